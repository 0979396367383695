"""What decisions are worth: formulas, their weighted sums, and the book that turns decisions into experiences."""

from agents.desk.rewards.book import NO_FAULTS, RewardBook
from agents.desk.rewards.curriculum import Curriculum, CurriculumParams, Stage
from agents.desk.rewards.exploration import CountBonus, ExplorationBonus, RandomNetworkBonus, make_bonus
from agents.desk.rewards.functions import RewardFunctions
from agents.desk.rewards.params import CADENCES_NS, NAMES, SECONDS_PER_YEAR, TERMS, RewardParams, RewardTerms, check_terms
from agents.desk.rewards.scale import Covariance, RunningScale
from agents.desk.rewards.tightening import TighteningReward
from agents.desk.rewards.weighted import Outcome, WeightedReward

__all__ = [
    "CADENCES_NS", "NAMES", "NO_FAULTS", "SECONDS_PER_YEAR", "TERMS", "CountBonus", "Covariance", "Curriculum", "CurriculumParams",
    "ExplorationBonus", "Outcome", "RandomNetworkBonus", "RewardBook", "RewardFunctions", "RewardParams", "RewardTerms", "RunningScale",
    "Stage", "TighteningReward", "WeightedReward", "check_terms", "make_bonus",
]  # fmt: skip
