"""The hard limits and the drawdown ladder: numbers that no agent and no learner can change."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from math import isfinite

from agents.core.errors import ConfigError
from agents.core.instruments import Instrument, Symbol
from agents.desk.risk_model import RiskModel, RiskParams

CALM, WARN, NO_NEW_RISK, REDUCE, FLATTEN = "calm", "warn", "no_new_risk", "reduce", "flatten"
RUNGS = (CALM, WARN, NO_NEW_RISK, REDUCE, FLATTEN)
"""Rungs of the drawdown ladder, mildest first."""


MOST_SCENARIOS = 1000
"""Hours that bars keep, less a reserve."""
_FRACTIONS = (
    "cash_buffer", "position_cap", "reduced_gross", "price_collar", "slippage", "depth_share", "max_order_notional", "cvar", "var",
    "cluster_cap", "cluster_correlation", "herfindahl", "top_cap", "fees_day", "liquidity_depth", "liquidity_volume",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits of one account. Fractions are of marked equity unless a field says otherwise.

    Raises ConfigError, naming the field and the mend, where numbers are out of range or contradict each other.
    """

    cash_buffer: float = 0.02
    """Share of equity that stays in cash: pays fees and survives a price step between decision and fill."""
    position_cap: float = 0.20
    """Largest weight of one symbol, its bids included."""
    gross: float = 1.0
    """Largest sum of absolute weights, bids included; on spot never above 1."""
    net: float = 1.0
    """Largest signed sum of weights, bids included."""
    allow_short: bool = False
    """A spot account cannot be short; the field exists so that asking for it is answered by name."""
    turnover_cost_bps: float | None = None
    """Cost of trading one unit of weight in the objective; None takes each market's own taker fee."""
    turnover_day: float = 10.0
    """Bound on increases of weight per market day; reductions are exempt."""
    tracking: float = 1.0
    """Curvature D of the distance to the wish. At 1 a deviation smaller than the cost fraction is not traded."""
    quote_tracking: float = 0.1
    """The same for bid sizes: where positions and quotes compete for room, quotes shrink first."""
    fees_day: float | None = None
    """Fees that increases of weight may cost per market day, quotes included; reductions are exempt. None: no budget."""
    cvar: float | None = None
    """Largest mean loss over the worst of the historical scenarios, each blown up to one day. None: no limit."""
    cvar_level: float = 0.95
    """The tail begins here: at .95 the worst twentieth counts."""
    scenarios: int = 250
    """How many of the last hours are scenarios: ten days see the present regime, 500 are calmer and dearer."""
    var: float | None = None
    """Largest loss of one day at `var_level` by the shrunk covariance. None: no limit."""
    var_level: float = 0.95
    var_quantile: str = "gaussian"
    """gaussian, or cornish_fisher: stretched by the book's skewness and kurtosis, never below the normal one."""
    cluster_cap: float | None = None
    """Largest sum of weights among symbols that move alike, bids included. None: no limit."""
    cluster_correlation: float = 0.7
    """From this correlation on symbols move alike: they are one bet."""
    herfindahl: float | None = None
    """Largest sum of squared weights, as a share of `gross` squared: .25 is as concentrated as four equal positions."""
    top_count: int = 5
    top_cap: float | None = None
    """Largest sum of the `top_count` largest weights. None: no limit."""
    liquidity_depth: float | None = None
    """Largest rise of a weight in one decision as a share of the displayed asks. None, or no book displayed: no limit."""
    liquidity_volume: float | None = None
    """... as a share of the volume of the last day. None, or no bar seen: no limit."""
    drawdown_warn: float = 0.05
    """Drawdown from the peak of marked equity at which the operator is told."""
    drawdown_stop: float = 0.10
    """... at which no weight may rise any more."""
    drawdown_reduce: float = 0.15
    """... at which gross exposure is cut to `reduced_gross` besides."""
    drawdown_flatten: float = 0.20
    """... at which everything is sold."""
    reduced_gross: float = 0.5
    """What the rung `reduce` leaves of the gross bound."""
    price_collar: float = 0.02
    """Largest distance of an order's price from the mark, as a fraction of the mark, on the side that would hurt."""
    slippage: float = 0.002
    """How far through the touch an immediate-or-cancel order may reach, as a fraction of the touch."""
    depth_share: float = 0.25
    """Largest share of the displayed depth that one directional order may ask for."""
    min_order_notional: float = 0.0
    """Own floor in quote currency, above the exchange's minimum notional."""
    max_order_notional: float = 0.10
    """Largest order as a share of equity; larger wishes are worked in slices."""
    max_order_count: int = 100
    """Open orders at any time, over all symbols."""
    max_orders_per_second: float = 20.0
    """New orders and amendments per second of stamps; cancels are protective and always pass."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if (value := getattr(self, each.name)) is None:
                continue
            if isinstance(value, str):
                continue
            if not isfinite(value) or value < 0:
                raise ConfigError(f"{_setting(each.name)} is {value}: set a finite number that is at least 0")
        for name in _FRACTIONS:
            if (value := getattr(self, name)) is not None and value > 1:
                raise ConfigError(f"{_setting(name)} is {value}: it is a fraction, set at most 1")
        for name in (
            "tracking",
            "quote_tracking",
            "price_collar",
            "max_order_count",
            "max_orders_per_second",
            "scenarios",
            "top_count",
        ):
            if not getattr(self, name):
                raise ConfigError(f"{_setting(name)} is 0: nothing could be traded; set it above 0")
        if self.allow_short:
            raise ConfigError("risk.allow_short is true: a spot account cannot be short; set it to false")
        for name in ("gross", "net"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{_setting(name)} is {getattr(self, name)}: spot has no leverage; set at most 1")
        ladder = [self.drawdown_warn, self.drawdown_stop, self.drawdown_reduce, self.drawdown_flatten]
        if ladder != sorted(ladder) or ladder[0] <= 0 or ladder[-1] > 1:
            raise ConfigError(
                f"risk.drawdown_warn, _stop, _reduce, _flatten are {ladder}: set them rising, above 0 and at most 1"
            )
        self._check_risk()

    def _check_risk(self) -> None:
        if self.var_quantile not in ("gaussian", "cornish_fisher"):
            raise ConfigError(f"risk.var_quantile is {self.var_quantile!r}: use gaussian or cornish_fisher")
        for name in ("cvar_level", "var_level"):
            if not 0.5 <= getattr(self, name) < 1:
                raise ConfigError(f"risk.{name} is {getattr(self, name)}: a tail begins between 0.5 and below 1")
        if self.scenarios > MOST_SCENARIOS:
            raise ConfigError(f"risk.scenarios is {self.scenarios}: no more than {MOST_SCENARIOS} hours are remembered")
        for name in ("cluster_cap", "top_cap"):
            if (value := getattr(self, name)) is not None and value < self.position_cap:
                raise ConfigError(
                    f"risk.{name} {value:g} and risk.position_cap {self.position_cap:g} contradict each other: one position at its cap "
                    f"breaks the other; raise risk.{name} or lower risk.position_cap"
                )
        if self.herfindahl is not None and self.herfindahl * self.gross**2 < self.position_cap**2 - 1e-12:
            raise ConfigError(
                f"risk.herfindahl {self.herfindahl:g} and risk.position_cap {self.position_cap:g} contradict each other: one position "
                f"at its cap needs {(self.position_cap / self.gross) ** 2 if self.gross else 1:.4g}; raise risk.herfindahl or lower risk.position_cap"
            )

    @classmethod
    def portfolio_weekly(cls) -> "Limits":
        """The weekly softmax portfolio: 2 % stay cash, no weight above 20 %, trading costs 10 basis points. A wish of softmax weights
        over symbols and cash passes `project` as its clipping and capping; no other limit binds."""
        return cls(cash_buffer=0.02, position_cap=0.20, turnover_cost_bps=10.0)

    def risk_params(self) -> RiskParams:
        """What must be measured for these limits."""
        return RiskParams(
            self.scenarios,
            self.cvar_level if self.cvar is not None else None,
            self.var_level if self.var is not None else None,
            self.var_quantile == "cornish_fisher",
            self.cluster_correlation if self.cluster_cap is not None else None,
        )


def _setting(name: str) -> str:
    """The name under which the operator knows a limit."""
    return "risk.max_open_orders" if name == "max_order_count" else f"risk.{name}"


@dataclass(slots=True)
class RiskState:
    """What the risk layer remembers between decisions. The engine owns one; equities are in quote currency."""

    peak_equity: float = 0.0
    drawdown: float = 0.0
    rung: str = CALM
    halted: bool = False
    """The operator, the drawdown ladder or the kill path has forbidden new risk."""
    reconciled: bool = True
    """False while a difference between ledger and venue is unexplained."""
    unreconciled: frozenset[Symbol] = field(default_factory=frozenset)
    """Symbols whose own difference is unexplained, while the rest of the account is clean."""
    turnover_day: float = 0.0
    """Increases of weight during the last market day, as a fraction of equity."""
    fees_day: float = 0.0
    """Fees paid during the last market day, as a fraction of equity."""
    capital: float = 0.0
    model: RiskModel = field(default_factory=RiskModel, repr=False, compare=False)
    """Scenarios, covariance and clusters, and the planes that bound the tail so far."""

    def mark(self, equity: float, capital: float, limits: Limits) -> str:
        """Take the marked equity, move the peak and return the rung of the ladder.

        A change of `capital` is money added or taken away, not profit: the peak moves with it. Rungs above `warn` are
        latched: `no_new_risk` and `reduce` are left once the drawdown is back below `drawdown_warn`, `flatten` only by
        `release`. A value that is not finite changes nothing: an unknown equity is no evidence of recovery.
        """
        if not (isfinite(equity) and isfinite(capital)):
            return self.rung
        if self.peak_equity:
            self.peak_equity += capital - self.capital
        self.capital = capital
        self.peak_equity = max(self.peak_equity, equity)
        self.drawdown = 1 - equity / self.peak_equity if self.peak_equity > 0 else 1.0
        reached = self._reached(limits)
        if self.rung == FLATTEN:
            return FLATTEN
        if reached == CALM or self.rung in (CALM, WARN) or RUNGS.index(reached) > RUNGS.index(self.rung):
            self.rung = reached
        return self.rung

    def restore(self, peak_equity: float, capital: float, drawdown: float, rung: str) -> None:
        """Go on from where an earlier session of this account left the ladder. What is not finite restores nothing."""
        if isfinite(peak_equity) and isfinite(capital) and isfinite(drawdown) and rung in RUNGS:
            self.peak_equity, self.capital, self.drawdown, self.rung = peak_equity, capital, drawdown, rung

    def _reached(self, limits: Limits) -> str:
        marks = (limits.drawdown_warn, limits.drawdown_stop, limits.drawdown_reduce, limits.drawdown_flatten)
        return RUNGS[sum(self.drawdown >= mark for mark in marks)]

    def release(self) -> None:
        """The operator's word: start a new peak here and leave every latched rung."""
        self.peak_equity, self.drawdown, self.rung = self.peak_equity * (1 - self.drawdown), 0.0, CALM


def require_affordable(instruments: Mapping[Symbol, Instrument], marks: Mapping[Symbol, Decimal], capital: Decimal,
                       limits: Limits) -> None:  # fmt: skip
    """Raise ConfigError for a symbol whose smallest legal order is larger than the position cap allows.

    `capital` in quote currency. A symbol without a mark is judged by its minimum notional alone.
    """
    room = Decimal(str(limits.position_cap)) * capital
    for symbol, instrument in instruments.items():
        least = max(smallest_notional(instrument, marks.get(symbol)), Decimal(str(limits.min_order_notional)))
        if least > room:
            needed = least / Decimal(str(limits.position_cap)) if limits.position_cap else least
            raise ConfigError(
                f"exchange.symbols: {symbol} takes no order below {least:.8g} {instrument.quote}, but risk.position_cap "
                f"{limits.position_cap:g} of capital.allocation {capital:.8g} leaves {room:.8g}; raise capital.allocation to at "
                f"least {needed:.8g}, raise risk.position_cap, or remove {symbol}"
            )


def smallest_notional(instrument: Instrument, mark: Decimal | None) -> Decimal:
    """Quote value of the smallest order that the exchange takes: its minimum notional, quantity and lot."""
    if mark is None or not mark.is_finite():
        return instrument.min_notional
    return max(instrument.min_notional, max(instrument.min_quantity, instrument.lot) * mark)
