"""Folds in time: train on the past, leave a gap, judge on what follows. Folds are plain data; nothing here trains or trades.

The gap between the last bar of training and the first bar of judging is purge plus embargo. The purge is at least the longer of
look-back and label, so that no number a test bar is judged by was seen in training, in a column or in a consequence (Lopez de Prado
2018, "Advances in financial machine learning", chapter 7).
"""

from dataclasses import asdict, dataclass
from math import isfinite

from agents.core.errors import ConfigError, DataError

ANCHORED, ROLLING = "anchored", "rolling"
LOOK_BACK_DAYS = 365
"""The longest look-back of an hourly column: the return and the extremes of a year."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Half-open ranges of bars: `train` ends `gap` bars before `test` begins."""

    number: int
    train: tuple[int, int]
    test: tuple[int, int]

    @property
    def gap(self) -> int:
        return self.test[0] - self.train[1]

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "gap": self.gap}


@dataclass(frozen=True, slots=True)
class WalkForward:
    """A plan in bars. `train` is the first fold's training length; anchored folds grow from there, rolling ones keep it."""

    train: int
    test: int
    purge: int
    embargo: int = 0
    scheme: str = ANCHORED
    look_back: int = 0
    """Longest look-back of a column in bars."""
    label: int = 1
    """Bars until an action's consequence is complete."""

    def __post_init__(self) -> None:
        if self.scheme not in (ANCHORED, ROLLING):
            raise ConfigError(f"walk-forward scheme {self.scheme!r}: use {ANCHORED} or {ROLLING}")
        for name, least in (("train", 1), ("test", 1), ("purge", 0), ("embargo", 0), ("look_back", 0), ("label", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"walk-forward {name} is {getattr(self, name)} bars: at least {least}")
        needed = max(self.look_back, self.label)
        if self.purge < needed:
            raise ConfigError(
                f"walk-forward purge is {self.purge} bars: at least {needed}, the longer of look-back ({self.look_back})"
                f" and label ({self.label}), or test bars share numbers with training"
            )

    @property
    def gap(self) -> int:
        return self.purge + self.embargo

    @property
    def least(self) -> int:
        """Bars that one whole fold takes."""
        return self.train + self.gap + self.test

    def folds(self, bars: int) -> tuple[Fold, ...]:
        """Folds over `bars` bars, oldest first. Their tests follow each other without hole or overlap and reach the last bar.

        What does not fill a whole test is added to the first fold's training. Raises DataError for a history shorter than one fold.
        """
        if bars < self.least:
            raise DataError(
                f"a history of {bars} bars is too short: one fold takes {self.least}, {self.train} to train, {self.gap} of gap"
                f" (purge {self.purge}, embargo {self.embargo}) and {self.test} to test; give longer data or shorter parts"
            )
        count = (bars - self.train - self.gap) // self.test
        first = bars - count * self.test
        starts = [first + n * self.test for n in range(count)]
        return tuple(
            Fold(n, (0 if self.scheme == ANCHORED else begin - self.gap - self.train, begin - self.gap), (begin, begin + self.test))
            for n, begin in enumerate(starts)
        )


def plan_in_days(
    bars_a_day: float, *, train: float, test: float, purge: float = LOOK_BACK_DAYS, embargo: float = 1.0, scheme: str = ANCHORED,
    look_back: float = LOOK_BACK_DAYS, label: float = 1.0,
) -> WalkForward:
    """A plan given in days of a market that never closes."""  # fmt: skip
    asked = {"train": train, "test": test, "purge": purge, "embargo": embargo, "look_back": look_back, "label": label}
    if wrong := [name for name, days in asked.items() if not isfinite(days)]:
        raise ConfigError(f"walk-forward {wrong[0]} is {asked[wrong[0]]} days: give a finite number")
    bars = {name: round(days * bars_a_day) for name, days in asked.items()}
    return WalkForward(scheme=scheme, **bars)
