"""A market that grows harder with skill: costs and volatility start small and reach their real size stage by stage.

Bengio, Louradour, Collobert, Weston (2009), "Curriculum learning". For simulation: an environment multiplies its costs and the log
returns of its prices by the factors of the present stage, and reports what each episode earned.
"""

from dataclasses import dataclass
from math import isfinite

from agents.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CurriculumParams:
    """When a stage is passed, and how easy the first one is."""

    stages: int = 5
    """The last one is the real market; with 1 there is no curriculum."""
    first_costs: float = 0.0
    """Share of the real costs in the first stage."""
    first_volatility: float = 0.5
    """Share of the real log returns in the first stage."""
    promote: float = 0.0
    """Running mean of an episode's performance (mean reward a step, say) above which the next stage begins."""
    demote: float = -1.0
    """Running mean below which the stage before comes back."""
    memory: float = 10.0
    """Episodes over which performance is averaged."""
    patience: int = 20
    """Episodes that a stage lasts at least."""

    def __post_init__(self) -> None:
        if self.stages < 1 or self.patience < 1 or not self.memory >= 1.0:
            raise ConfigError("a curriculum has at least one stage, a patience of one episode and a memory of one")
        if not (0.0 <= self.first_costs <= 1.0 and 0.0 < self.first_volatility <= 1.0):
            raise ConfigError("first_costs lies in [0, 1] and first_volatility in (0, 1]: a curriculum is never harder than the market")
        if not self.demote < self.promote:
            raise ConfigError(f"demote ({self.demote}) must be below promote ({self.promote}), else stages flap")


@dataclass(frozen=True, slots=True)
class Stage:
    """Factors on costs and on log returns; both are 1 in the last stage."""

    number: int
    costs: float
    volatility: float


class Curriculum:
    """Where a learner stands. `update` after each episode; a function of the performances alone."""

    def __init__(self, params: CurriculumParams = CurriculumParams()) -> None:
        self.params = params
        self.number = 0
        self.dropped = 0
        """Performances that were not finite."""
        self._mean, self._episodes = 0.0, 0

    @property
    def stage(self) -> Stage:
        """The present stage."""
        p = self.params
        share = self.number / (p.stages - 1) if p.stages > 1 else 1.0
        return Stage(self.number, _between(p.first_costs, share), _between(p.first_volatility, share))

    @property
    def passed(self) -> bool:
        """Whether the market is as hard as the real one."""
        return self.number == self.params.stages - 1

    def update(self, performance: float) -> Stage:
        """Take what one episode earned; returns the stage of the next one. Each stage is judged by its own episodes."""
        if not isfinite(performance):
            self.dropped += 1
            return self.stage
        p = self.params
        self._episodes += 1
        self._mean += (performance - self._mean) / min(float(self._episodes), p.memory)
        if self._episodes >= p.patience:
            if self._mean > p.promote and self.number < p.stages - 1:
                self._enter(self.number + 1)
            elif self._mean < p.demote and self.number > 0:
                self._enter(self.number - 1)
        return self.stage

    def state(self) -> tuple[int, float, int]:
        """What a run that goes on later needs: (stage, mean, episodes)."""
        return self.number, self._mean, self._episodes

    def restore(self, state: tuple[int, float, int]) -> None:
        """Go on where `state` was taken. Raises ConfigError for a stage that these params do not have."""
        number, mean, episodes = state
        if not 0 <= number < self.params.stages:
            raise ConfigError(f"stage {number} was saved, and there are {self.params.stages}: go on with the params of that run")
        self.number, self._mean, self._episodes = number, mean, episodes

    def _enter(self, number: int) -> None:
        self.number, self._mean, self._episodes = number, 0.0, 0


def _between(first: float, share: float) -> float:
    return first + (1.0 - first) * share
