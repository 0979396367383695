"""Which faults are switched on, whom they strike, and when they are used up. Pure: time and chance are given."""

import difflib
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from agents.core.errors import ConfigError
from daemon.rehearsal.faults.catalogue import KINDS, Border, Kind, Value

Facts = Mapping[str, str]
"""What a fault's `match` is held against: the call or stream, and the parameters."""
NS = 1_000_000_000
_COMMON = ("fault", "count", "seconds", "match")


@dataclass(slots=True)
class Armed:
    """A fault that is switched on. `left` strikes remain (None: any number), until `until` (ns; None: for ever)."""

    number: int
    kind: Kind
    match: Mapping[str, Value]
    details: Mapping[str, Value]
    left: int | None
    until: int | None

    def detail(self, name: str) -> float:
        """A detail that is a number."""
        value = self.details[name]
        return float(value) if isinstance(value, int | float | str) else 0.0

    def row(self, now: int) -> dict[str, object]:
        """How the control endpoint lists it."""
        seconds = None if self.until is None else max(0.0, (self.until - now) / NS)
        return {**self.details, "id": self.number, "fault": self.kind.name, "left": self.left, "seconds": seconds, "match": dict(self.match)}


def matches(match: Mapping[str, Value], facts: Facts) -> bool:
    """Whether every name of `match` has its value in the facts; a list means one of, a trailing `*` any ending."""
    return all(name in facts and _is(wanted, facts[name]) for name, wanted in match.items())


def _is(wanted: Value, fact: str) -> bool:
    if isinstance(wanted, list):
        return any(_is(one, fact) for one in wanted)
    text = str(wanted)
    return fact.startswith(text[:-1]) if text.endswith("*") else text == fact


class Chance:
    """Random mode: one generator a border, so that what one border sees does not move the others."""

    def __init__(self, armed: Armed) -> None:
        self.rate, self._seed = armed.detail("rate"), int(armed.detail("seed"))
        among = armed.details["among"]
        named = among if isinstance(among, list) else []
        self._kinds = [KINDS[name] for name in named] or [kind for kind in KINDS.values() if kind.chance]
        self._generators: dict[str, np.random.Generator] = {}

    def draw(self, border: str, rate: float, allowed: Callable[[Kind], bool]) -> Kind | None:
        """One of the allowed kinds with probability `rate`."""
        generator = self._generators.get(border)
        if generator is None:
            generator = self._generators[border] = np.random.default_rng([self._seed, zlib.crc32(border.encode())])
        if generator.random() >= rate:
            return None
        kinds = [kind for kind in self._kinds if allowed(kind)]
        return kinds[int(generator.integers(len(kinds)))] if kinds else None


class Plan:
    """The faults of one exchange. `clock` gives real nanoseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._armed: list[Armed] = []
        self._chance: dict[int, Chance] = {}
        self._number = 0
        self.struck: Counter[str] = Counter()
        """How often each fault has struck."""

    def arm(self, request: Mapping[str, object]) -> Armed:
        """Switch on what the request names (`fault`, `count`, `seconds`, `match`, and the fault's own details).

        Raises ConfigError, with a sentence for the caller, for what there is not.
        """
        kind = _kind(request.get("fault"))
        details = _details(kind, request)
        seconds = _number(request, "seconds", details.get("seconds"))
        count = request.get("count", None if request.get("seconds") is not None else kind.count)
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise ConfigError(f"count {count!r}: give a whole number from 1 on, or leave it out")
        match = request.get("match", {})
        if not isinstance(match, Mapping):
            raise ConfigError(f"match {match!r}: give an object such as {{\"symbol\": \"BTCUSDT\"}}")
        armed = self._make(kind, details, {**kind.match, **{str(name): _plain(name, value) for name, value in match.items()}}, count, seconds)
        if kind.border is not Border.ACTION:
            self._armed.append(armed)
        if kind.name == "random":
            self._chance[armed.number] = Chance(armed)
        return armed

    def clear(self, name: str | None = None) -> None:
        """Switch off one fault, or all."""
        self._armed = [armed for armed in self._armed if name is not None and armed.kind.name != name]
        self._chance = {armed.number: self._chance[armed.number] for armed in self._armed if armed.number in self._chance}

    def active(self) -> list[dict[str, object]]:
        """What is switched on, in order of asking."""
        now = self._clock()
        self._forget_ended(now)
        return [armed.row(now) for armed in self._armed]

    def strike(self, border: Border, facts: Facts) -> Armed | None:
        """The fault that strikes here now, counted; the oldest first, then chance."""
        if not self._armed:
            return None
        found = next(iter(self.candidates(border, facts)), None)
        if found is not None:
            self.count(found)
        return found

    def candidates(self, border: Border, facts: Facts) -> list[Armed]:
        """Every fault that could strike here now, or one by chance; the caller counts those that do."""
        if not self._armed:
            return []
        self._forget_ended(self._clock())
        asked = [armed for armed in self._armed if armed.kind.border is border and matches(armed.match, facts)]
        return asked or self._by_chance(border, facts)

    def count(self, armed: Armed) -> None:
        """It has struck once."""
        self.struck[armed.kind.name] += 1
        if armed.left is not None:
            armed.left -= 1
            if armed.left <= 0:
                self._armed = [other for other in self._armed if other is not armed]

    def holds(self, name: str, facts: Facts | None = None) -> Armed | None:
        """The state of that name, if it is on."""
        if not self._armed:
            return None
        self._forget_ended(self._clock())
        return next((armed for armed in self._armed if armed.kind.name == name and (facts is None or matches(armed.match, facts))), None)

    def seconds_left(self, armed: Armed) -> float | None:
        """How long it still holds; None without an end."""
        return None if armed.until is None else max(0.0, (armed.until - self._clock()) / NS)

    def by_the_second(self, elapsed_s: float) -> Armed | None:
        """A state or an action of random mode: each second has one with the probability `rate`. States are switched on."""
        for chance in self._chance.values():
            kind = chance.draw("second", chance.rate * elapsed_s, lambda kind: kind.border in (Border.STATE, Border.ACTION))
            if kind is not None:
                return self.arm({"fault": kind.name})
        return None

    def _by_chance(self, border: Border, facts: Facts) -> list[Armed]:
        for chance in self._chance.values():
            kind = chance.draw(
                border.value, chance.rate, lambda kind: kind.border is border and (kind.anywhere or matches(kind.match, facts))
            )
            if kind is not None and "retry_after_s" in kind.details:  # a ban lasts for as long as it says
                return [self.arm({"fault": kind.name, "seconds": kind.details["retry_after_s"]})]
            if kind is not None:
                return [self._make(kind, kind.details, kind.match, 1, None)]
        return []

    def _make(
        self, kind: Kind, details: Mapping[str, Value], match: Mapping[str, Value], count: int | None, seconds: float | None
    ) -> Armed:
        self._number += 1
        until = None if seconds is None else self._clock() + round(seconds * NS)
        return Armed(self._number, kind, match, details, count, until)

    def _forget_ended(self, now: int) -> None:
        if any(armed.until is not None and armed.until <= now for armed in self._armed):
            self._armed = [armed for armed in self._armed if armed.until is None or armed.until > now]


def _kind(name: object) -> Kind:
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        near = difflib.get_close_matches(str(name), KINDS, 1)
        raise ConfigError(f"there is no fault {name!r}" + (f"; the nearest is {near[0]}" if near else "; GET lists them"))
    return kind


def _details(kind: Kind, request: Mapping[str, object]) -> dict[str, Value]:
    unknown = [name for name in request if name not in _COMMON and name not in kind.details]
    if unknown:
        raise ConfigError(f"{kind.name} has no {', '.join(unknown)}; it has {', '.join([*_COMMON[1:], *kind.details])}")
    details = {name: _plain(name, request[name]) if name in request else value for name, value in kind.details.items()}
    for name, default in kind.details.items():
        if isinstance(default, float) or (isinstance(default, int) and not isinstance(default, bool)):
            _number(details, name, None)
    if kind.name == "random":
        for name in details["among"] if isinstance(details["among"], list) else []:
            _kind(name)
    return details


def _plain(name: object, value: object) -> Value:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    raise ConfigError(f"{name} {value!r}: give a text, a number, true, false, null or a list of texts")


def _number(request: Mapping[str, object], name: str, default: object) -> float | None:
    value = request.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise ConfigError(f"{name} {value!r}: give a number")
    return float(value)
