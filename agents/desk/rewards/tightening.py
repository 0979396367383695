"""What the risk agent's multiplier was worth: each of its terms under the multiplier, less the same term without it."""

from collections.abc import Mapping

from agents.desk.rewards.functions import Array, RewardFunctions
from agents.desk.rewards.params import CVAR, DRAWDOWN, TERMS, UTILITY, RewardParams, check_terms
from agents.desk.rewards.weighted import START_VALUE_AT_RISK
from agents.desk.wishes import RISK


class TighteningReward:
    """`judge` takes one interval after the other, on the path of the portfolio as it was held."""

    def __init__(self, params: RewardParams, terms: Mapping[str, float]) -> None:
        check_terms(terms, TERMS[RISK], "rewards.risk")
        self.functions, self.terms = RewardFunctions(params), {name: weight for name, weight in terms.items() if weight}
        self.value_at_risk = START_VALUE_AT_RISK

    def judge(self, multiplier: float, weights: Array, returns: Array, covariance: Array, drawdown: float, years: float) -> float:
        """One reward; `weights` [n] are those held under `multiplier`, `drawdown` that of the account at the end."""
        functions, value = self.functions, 0.0
        held = functions.normalised(weights * returns, years)
        full = functions.normalised(functions.untightened(multiplier, weights) * returns, years)
        for name, weight in self.terms.items():
            if name == UTILITY:
                term = functions.tightening(multiplier, weights, returns, covariance, drawdown, years)
            elif name == DRAWDOWN:
                term = float((functions.drawdown(held, drawdown) - functions.drawdown(full, drawdown)).sum())
            else:
                term = float((functions.cvar(held, self.value_at_risk) - functions.cvar(full, self.value_at_risk)).sum())
            value += weight * term
        if CVAR in self.terms:
            self.value_at_risk = float(functions.value_at_risk(held, self.value_at_risk))
        return value
