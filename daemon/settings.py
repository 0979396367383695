"""Every setting: its name, its unit, its default and the reason for it. A frozen tree; `daemon/sources.py` fills it.

Parsed once per process. Rooms receive plain values, never this tree.
"""

import difflib
import re
from decimal import Decimal
from importlib.util import find_spec
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Agent = Literal["long_term", "short_term", "market_making", "risk"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Money = Annotated[Decimal, Field(ge=0, allow_inf_nan=False, max_digits=30)]

KEYS = ("api_key", "secret", "password")
"""What opens an account; read only in a mode that may hold it."""
SECRETS = {"exchange": KEYS, "http": ("token",), "redis": ("password",), "mqtt": ("password", "token"), "notify": ("urls",)}
"""By section the fields that never come from a configuration file."""
SPOT_SYMBOL = re.compile(r"[A-Z0-9]{1,20}/[A-Z0-9]{1,20}")


def _words(value: object) -> object:
    """A list may also be written with commas: `BTC/USDT,ETH/USDT`."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _spot(symbol: str) -> str:
    if ":" in symbol:
        raise ValueError(f"{symbol} is a derivative, and Quartet trades spot only for now; write {symbol.split(':')[0]}")
    if not SPOT_SYMBOL.fullmatch(symbol):
        raise ValueError(f"{symbol!r} is not a spot symbol; write BASE/QUOTE in capitals, such as BTC/USDT")
    return symbol


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value} is listed twice; list it once")
    return values


def is_loopback(host: str) -> bool:
    """Whether this host name or address names the machine itself, without asking a resolver."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def known_exchanges() -> tuple[str, ...]:
    """Every id of the installed ccxt, read from its folder because importing it takes half a second; `rehearsal` first."""
    spec = find_spec("ccxt")
    folder = Path(spec.origin).parent / "async_support" if spec and spec.origin else Path()
    return ("rehearsal", *sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__"))


Symbols = Annotated[
    tuple[Annotated[str, AfterValidator(_spot)], ...], BeforeValidator(_words), AfterValidator(_distinct), Field(min_length=1)
]


class Section(BaseModel):
    """A frozen group of settings that knows no other keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Exchange(Section):
    """Which market we trade on, and how it is reached."""

    id: str = Field("rehearsal", description="A ccxt exchange id, or `rehearsal` for the built-in local exchange.")
    symbols: Symbols = Field(
        ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"), description="The spot symbols to trade, all quoted in `capital.quote`."
    )
    api_key: SecretStr | None = Field(None, description="The key's public half; from the environment or a file only.")
    secret: SecretStr | None = Field(None, description="The key's secret half; from the environment or a file only.")
    password: SecretStr | None = Field(None, description="The key's passphrase, where an exchange has one; as above.")
    base_url: str | None = Field(
        None, description="Another server of the same protocol, such as http://127.0.0.1:9000; plain http on loopback only."
    )
    ca_file: Path | None = Field(None, description="Certificates (PEM) to trust in place of the system's own.")
    timeout_ms: int = Field(10_000, ge=100, le=120_000, description="How long one request may take, in milliseconds.")
    orders_over: Literal["auto", "websocket", "rest"] = Field(
        "auto", description="How orders travel: `auto` takes the websocket API where it was tried with this daemon, else REST."
    )
    max_clock_offset_ms: Positive = Field(
        1000.0, description="A clock further than this from the exchange's is wrong: no session starts, and no order is placed."
    )
    weight_share: Fraction = Field(
        0.8, gt=0, description="Part of the exchange's request budget that all our processes on this machine may use together."
    )
    capabilities: dict[str, Any] = Field(
        {}, description="What you know better than docs/capabilities.md about this exchange, such as {stop_orders: false}."
    )

    @field_validator("id")
    @classmethod
    def _known(cls, value: str) -> str:
        known = known_exchanges()
        if value not in known:
            near = difflib.get_close_matches(value.lower(), known, 1, 0.5)
            raise ValueError(f"{value!r} is no exchange that ccxt knows; " + (f"the nearest is {near[0]}" if near else "see the ccxt manual"))
        return value

    @field_validator("base_url")
    @classmethod
    def _reachable(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is not the address of a server; write http://127.0.0.1:PORT or https://HOST")
        if parts.username or parts.password:
            raise ValueError("an address must not carry a user or a password; give keys by api_key and secret")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError(f"plain http is allowed on loopback only, and {parts.hostname} is not; use https")
        return value.rstrip("/")

    @field_validator("ca_file")
    @classmethod
    def _there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}; name a PEM file or leave it out")
        return value


class Capital(Section):
    """How much money this instance may use."""

    allocation: Money = Field(Decimal(10_000), gt=0, description="The most this instance uses, in units of `quote`.")
    quote: str = Field("USDT", pattern="^[A-Z0-9]{1,20}$", description="The one currency that everything is counted in.")


class Risk(Section):
    """Hard limits. The risk agent can tighten them and never loosen them."""

    cash_buffer: Fraction = Field(0.02, description="Fraction of equity that always stays cash.")
    position_cap: Fraction = Field(0.20, description="Largest position in one symbol, as a fraction of equity.")
    gross: Fraction = Field(1.0, description="Largest sum of all positions, as a fraction of equity.")
    net: Fraction = Field(1.0, description="Largest net position, as a fraction of equity.")
    turnover_cost_bps: float | None = Field(
        None, ge=0, le=1000, description="What a change of position is taken to cost, in basis points; none means the taker fee."
    )
    turnover_day: Positive = Field(10.0, description="Most increases of positions per market day, in multiples of equity; reductions are exempt.")
    fees_day: Fraction | None = Field(
        None, description="Most fees per market day that increases may run up to, as a fraction of equity; none means no budget."
    )
    cvar: Fraction | None = Field(
        0.05, gt=0, description="Largest mean loss of one day over the worst of the last hours, as a fraction of equity: about twice what a book"
        " at the agents' volatility target comes to, and as much as `drawdown_warn`; none means no limit.",
    )  # fmt: skip
    cvar_level: float = Field(0.95, ge=0.5, lt=1, description="Where that tail begins: at 0.95 the worst twentieth of the hours counts.")
    scenarios: int = Field(250, ge=20, le=1000, description="How many of the last hours are scenarios.")
    var: Fraction | None = Field(
        None, gt=0, description="Largest loss of one day at `var_level` by the shrunk covariance, as a fraction of equity; none means no limit."
    )
    var_level: float = Field(0.95, ge=0.5, lt=1, description="Confidence of that loss.")
    var_quantile: Literal["gaussian", "cornish_fisher"] = Field(
        "gaussian", description="The normal quantile, or one stretched by skewness and kurtosis; never the smaller of the two."
    )
    cluster_cap: Fraction | None = Field(
        0.60, description="Largest sum of positions among symbols that move alike; if unset, at least `position_cap`. None means no limit."
    )
    cluster_correlation: Fraction = Field(0.70, description="From this correlation on symbols move alike.")
    herfindahl: Fraction | None = Field(
        0.25,
        description="Largest sum of squared positions, as a share of `gross` squared; 0.25 is as concentrated as four equal positions. If"
        " unset, at least what one position at `position_cap` needs; none means no limit.",
    )
    top_count: int = Field(5, ge=1, le=1000, description="How many of the largest positions `top_cap` counts.")
    top_cap: Fraction | None = Field(None, description="Largest sum of the `top_count` largest positions; none means no limit.")
    liquidity_depth: Fraction | None = Field(
        None, gt=0, description="Largest increase of a position in one decision, as a share of the displayed asks; none means no limit."
    )
    liquidity_volume: Fraction | None = Field(
        None, gt=0, description="Largest increase of a position in one decision, as a share of the last day's volume; none means no limit."
    )
    price_collar: Fraction = Field(0.02, gt=0, description="No order further than this fraction from the mark price.")
    max_open_orders: int = Field(100, ge=1, le=10_000, description="Most orders that may rest at one time, all symbols together.")
    max_orders_per_second: Positive = Field(
        8.0, description="Most new orders and amendments a second, all symbols together; Binance bears ten."
    )
    drawdown_warn: Fraction = Field(0.05, description="Fall from the equity's peak at which the operator is warned.")
    drawdown_stop: Fraction = Field(0.10, description="Fall from the peak at which no new risk is taken.")
    drawdown_reduce: Fraction = Field(0.15, description="Fall from the peak at which positions are reduced.")
    drawdown_flatten: Fraction = Field(0.20, description="Fall from the peak at which everything is sold.")

    @model_validator(mode="after")
    def _ladder(self) -> "Risk":
        rungs = ("drawdown_warn", "drawdown_stop", "drawdown_reduce", "drawdown_flatten")
        for lower, higher in pairwise(rungs):
            if getattr(self, lower) > getattr(self, higher):
                raise ValueError(f"{lower} must not be above {higher}; the ladder climbs from warn to flatten")
        return self

    @model_validator(mode="after")
    def _reachable(self) -> "Risk":
        """A default that was not asked for never contradicts a position cap that was."""
        least = {"cluster_cap": self.position_cap, "herfindahl": min(self.position_cap / self.gross, 1.0) ** 2 if self.gross else 1.0}
        for name, needed in least.items():
            if name not in self.model_fields_set and needed > getattr(self, name):
                object.__setattr__(self, name, needed)
        return self


class Safety(Section):
    """What protects the account when something else has failed."""

    on_stop: Literal["keep", "flatten"] = Field("keep", description="What becomes of positions when the session ends: kept, or sold.")
    stop_timeout_s: Positive = Field(20.0, le=600, description="From the word to stop until orders are gone and positions sold where wanted.")
    on_record_failure: Literal["cancel", "flatten"] = Field(
        "cancel", description="What is done when the disk takes no more: every order is cancelled; or everything is sold besides."
    )
    watchdog_s: float = Field(
        15.0, ge=0, le=600, description="Without progress for so long a process beside the daemon cancels its orders; 0 means no such process."
    )
    dead_man_s: float = Field(
        60.0, ge=0, le=3600, description="The exchange itself cancels our orders when it has not heard of us for so long, where it can; 0: never."
    )
    reconcile_s: Positive = Field(10.0, description="Seconds between two comparisons of the ledger with the exchange's balances.")
    same_account: bool = Field(
        False, description="Your word that the account is the one last traded on this state folder, although its key or address is new."
    )


class LearningOptions(Section):
    """What can be changed about the agents' SAC; all off, because none has earned the default (docs/learning.md, "Ablation")."""

    layer_norm: bool = Field(False, description="LayerNorm between the layers of the critics.")
    droq_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in the critics, with LayerNorm (DroQ; 0.01 in its paper).")
    crossq: bool = Field(False, description="Batch renormalisation in the critics in place of target networks (CrossQ).")
    quantiles: int = Field(0, ge=0, le=200, description="Quantiles of each critic (TQC; 25 in its paper); 0 keeps expected values.")
    quantiles_dropped: int = Field(2, ge=0, description="Largest quantiles of each critic that are left out of the target.")
    risk_cvar: Fraction = Field(
        1.0, gt=0, description="Below 1 the risk agent climbs the mean of this worst share of quantiles (25 where `quantiles` is 0)."
    )
    prioritized_replay: bool = Field(False, description="Draw rows as they surprised, in place of market times.")
    max_gradient_norm: Positive | None = Field(None, description="Longest gradient of one step; none clips nothing.")
    mixed_precision: bool = Field(False, description="Products in bfloat16; always so on a GPU.")
    accumulate: int = Field(1, ge=1, le=64, description="Batches whose gradients make one update.")

    @model_validator(mode="after")
    def _possible(self) -> "LearningOptions":
        if self.crossq and (self.layer_norm or self.droq_dropout):
            raise ValueError("crossq normalises by batch; leave layer_norm and droq_dropout off")
        if self.quantiles and self.quantiles <= max(self.quantiles_dropped, 1):
            raise ValueError("quantiles must be 0 or at least 2, and more than quantiles_dropped")
        return self


class ReinforcementLearning(Section):
    """How the four agents learn, in a process of their own."""

    learning_rate: Positive = Field(3e-4, le=1, description="Step size of all networks.")
    batch_size: int = Field(256, ge=1, le=65_536, description="Rows sampled for one update of one agent.")
    replay_buffer_size: int = Field(1_000_000, ge=1, description="Rows kept per agent; the oldest give way.")
    gamma: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="Discount per nominal cadence of an agent.")
    tau: Fraction = Field(0.005, gt=0, description="How far the target critics move at each update.")
    alpha: Positive = Field(0.2, description="Entropy temperature, and its start where it is tuned.")
    automatic_entropy_tuning: bool = Field(True, description="Whether the temperature follows the target entropy.")
    reward_scale: Positive = Field(5.0, description="Factor on rewards, after their running return scale.")
    hidden_sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(min_length=1, max_length=8)] = Field(
        (256, 256), description="Units of the hidden layers of actors and critics."
    )
    update_to_data: float = Field(1.0, gt=0, le=4, description="Updates per new row; above 4 the critics overfit to few rows.")
    min_rows: int = Field(32, ge=1, description="Rows an agent must have seen before its first update.")
    publish_every_s: Positive = Field(15.0, description="Seconds between two offers of new weights.")
    exploration: Fraction = Field(
        0.1,
        description="Scale of the noise added to actions, as a fraction of the policy's own spread: market-making fills can only"
        " be learned from by trying. 0 serves the mean action.",
    )
    seed: int = Field(7, ge=0, description="Seed of the first weights and of sampling.")
    where: Literal["here", "redis"] = Field(
        "here", description="`redis`: rows go out and weights come in through `redis.url`, to `quartet learner --redis URL` on another machine."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "cpu", description="Where the networks learn; auto takes a GPU where there is one. Only the CPU gives the same numbers everywhere."
    )
    offline_data: Annotated[tuple[Path, ...], BeforeValidator(_words)] = Field(
        (), description="Files of transitions (.npz, .parquet) that make up half of each batch of the agent that they name."
    )
    options: LearningOptions = Field(LearningOptions(), description="What can be changed about the agents' SAC.")


REWARD_TERMS = {
    "long_term": ("utility", "differential_sharpe", "sortino", "cvar", "drawdown", "costs", "hybrid"),
    "short_term": ("utility", "differential_sharpe", "sortino", "cvar", "drawdown", "costs", "hybrid"),
    "market_making": ("spread_capture", "cvar", "drawdown", "costs"),
    "risk": ("utility", "cvar", "drawdown"),
}
"""By agent, as agents.desk.rewards has them."""


class Rewards(Section):
    """What each agent is paid for: a weighted sum of terms (docs/learning.md, "Rewards"). Terms that are given replace the default ones."""

    long_term: dict[str, NotNegative] = Field({"utility": 1.0}, description="Reward terms of the long-term agent and their weights.")
    short_term: dict[str, NotNegative] = Field({"utility": 1.0}, description="Reward terms of the short-term agent and their weights.")
    market_making: dict[str, NotNegative] = Field({"spread_capture": 1.0}, description="Reward terms of the market maker and their weights.")
    risk: dict[str, NotNegative] = Field(
        {"utility": 1.0}, description="Reward terms of the risk agent and their weights: each with its multiplier, less the same without."
    )
    volatility_target: Positive = Field(0.20, le=10, description="Annual volatility in whose units rewards are counted.")
    risk_aversion: NotNegative = Field(5.0, description="lambda of the utility: the best book has a Sharpe ratio of lambda times volatility.")
    alias: NotNegative = Field(1.0, description="Price of the squared difference between the weight wished for and the one that was had.")
    worst_drawdown: Fraction = Field(0.20, gt=0, description="Fall from the peak at which aversion has grown to ten times its size.")
    drawdown_penalty: NotNegative = Field(1.0, description="Price of a new loss at the peak, in the term `drawdown`; it grows below it.")
    cvar_level: float = Field(0.95, gt=0, lt=1, description="Losses beyond this quantile count in the term `cvar`.")
    prediction_bonus: NotNegative = Field(0.1, description="What a right and certain prediction adds in the term `hybrid`.")
    moment_memory: float = Field(
        100.0, gt=1, allow_inf_nan=False, description="Decisions over which the moments of the differential ratios and the tail are averaged."
    )
    clip: Positive = Field(10.0, description="Largest reward, in units of its running scale.")

    @model_validator(mode="after")
    def _known(self) -> "Rewards":
        for agent, known in REWARD_TERMS.items():
            terms = getattr(self, agent)
            for name in terms:
                if name not in known:
                    why = "is for simulation only; its" if name == "exploration" else "is no reward term of this agent; its"
                    raise ValueError(f"rewards.{agent}: {name!r} {why} terms are {', '.join(known)}")
            if not terms:
                raise ValueError(f"rewards.{agent}: there is no term; give at least one of {', '.join(known)}")
            if "differential_sharpe" in terms and "sortino" in terms:
                raise ValueError(f"rewards.{agent}: differential_sharpe and sortino need the same two columns of the state; keep one of them")
        return self


class Agents(Section):
    """Which agents speak. Three of them speak when their bar closes: long-term hourly, short-term and risk each minute."""

    enabled: Annotated[tuple[Agent, ...], BeforeValidator(_words), AfterValidator(_distinct)] = Field(
        ("long_term", "short_term", "market_making", "risk"),
        description="The agents that take part; with none the daemon watches and records, and decides nothing.",
    )
    prior: Literal["analytic", "none"] = Field("analytic", description="What action 0 means: the analytic prior, or nothing (plain SAC).")
    weights: Path | None = Field(
        None, description="Weights of `quartet train` (its folder, or a file) that decide from the start; what is learned then stays in shadow."
    )
    market_making_s: Positive = Field(5.0, ge=1, description="Market seconds between two decisions of the market maker; it requotes in between.")
    requote_ms: int = Field(500, ge=1, le=60_000, description="Least real time between two requotes of one symbol.")


class AgentBudget(Section):
    """What one agent may spend in a market day (UTC); selling is never refused for it."""

    turnover: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Most that is bought for it, as a fraction of equity; none sets no bound."
    )
    fees: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Most that its fills pay in fees, as a fraction of equity; then nothing more is bought for it."
    )


class AgentBudgets(Section):
    """A budget for each agent that trades."""

    long_term: AgentBudget = Field(AgentBudget(), description="Budget of the long-term agent.")
    short_term: AgentBudget = Field(AgentBudget(), description="Budget of the short-term agent.")
    market_making: AgentBudget = Field(AgentBudget(), description="Budget of the market maker; its bids are promises to spend.")


class Coordinator(Section):
    """How the four agents' wishes become one target. Whatever is chosen, no wish is ever made larger than its agent made it."""

    strategy: Literal["precision", "confidence", "band", "gating"] = Field(
        "precision",
        description="`precision` weighs views as their agents do; `confidence` also by what each lately earned for its risk; `band` keeps"
        " the short-term agent strictly inside a share of the long-term weight; `gating` learns who is heard (Hedge).",
    )
    period_s: Positive = Field(3600.0, ge=1, description="Market seconds whose attributed profit is one observation (confidence, gating).")
    memory_days: Positive = Field(30.0, description="How far back such observations count, forgotten exponentially (confidence, gating).")
    trust: float = Field(4.0, ge=1, le=100, description="confidence: most that a precision is multiplied or divided by.")
    sharpe_scale: Positive = Field(2.0, description="confidence: annual Sharpe ratio that agents are expected to differ by; less doubts longer.")
    band: Fraction = Field(0.25, description="band: half-width of the short-term agent's band as a share of the long-term weight.")
    gate_floor: Fraction = Field(0.1, description="gating: part of the gate that is spread evenly, so that everybody can come back.")
    inventory_limit: Fraction = Field(0.05, description="Most inventory that the market maker may keep, as a fraction of equity.")
    silent_gross: Fraction = Field(0.5, description="Factor on all positions while no wish of the risk agent stands.")
    silent_budget: Fraction = Field(0.5, description="Factor on the risk budgets (CVaR, clusters) while no wish of the risk agent stands.")
    budgets: AgentBudgets = Field(AgentBudgets(), description="What each agent may spend in a market day.")


class Paper(Section):
    """How simulated fills are made when real market data meets no real exchange."""

    latency_ms: float = Field(50.0, ge=0, le=60_000, description="From our order to the simulated exchange, in milliseconds.")
    maker_fee_bps: float | None = Field(None, ge=-100, le=1000, description="Maker fee in basis points; none means the exchange's own.")
    taker_fee_bps: float | None = Field(None, ge=-100, le=1000, description="Taker fee in basis points; none means the exchange's own.")
    queue: Literal["pro_rata", "front", "back"] = Field(
        "pro_rata", description="How cancellations ahead of us move our place in the queue of a price level."
    )
    impact: Literal["none", "square_root"] = Field("none", description="Whether our own size moves the simulated price.")


class Rehearsal(Section):
    """The built-in local exchange (`exchange.id: rehearsal` without a `base_url`)."""

    speed: float = Field(60.0, gt=0, le=1000, description="Market seconds per real second; recorded data runs at 1.")
    seed: int = Field(7, ge=0, description="Seed of the synthetic market.")
    trade_rate: Positive | None = Field(
        None, description="Trades of one symbol per market second, on average; none means about 20 per real second at speed 60."
    )
    balances: dict[str, Money] = Field({"USDT": Decimal(100_000)}, description="What the account holds at start, by currency.")
    data: Path | None = Field(None, description="A recorded tape to serve in place of the synthetic market.")

    @field_validator("balances", mode="before")
    @classmethod
    def _capitals(cls, value: object) -> object:
        """Environment variables are read in small letters."""
        return {str(currency).upper(): amount for currency, amount in value.items()} if isinstance(value, dict) else value

    @field_validator("data")
    @classmethod
    def _there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.exists():
            raise ValueError(f"there is no file or folder {value}; name a tape or leave it out")
        return value


class Feed(Section):
    """Market data: how much of it, and when it is too old to act on."""

    stale_after_s: Positive = Field(10.0, description="A book older than this takes no new risk.")
    depth: int = Field(10, ge=5, le=100, description="Book levels kept on each side; no column looks deeper than ten.")
    reload_markets_h: Positive = Field(24.0, description="Hours between two reloads of the exchange's filters and fees.")


class Journal(Section):
    """The durable record, in the state folder."""

    segment_mb: int = Field(64, ge=1, le=4096, description="A market-data segment is rolled and compressed at this size.")


class Http(Section):
    """Health, metrics, the session's interface and the operator's words over HTTP."""

    host: str = Field("127.0.0.1", description="Address to listen on; another than loopback needs a token, and TLS or `insecure_public`.")
    port: Literal["auto", "off"] | Annotated[int, Field(ge=1, le=65_535)] = Field(
        "auto", description="A port, `off`, or `auto`: 8080 where it is free, else any free one."
    )
    token: SecretStr | None = Field(None, min_length=16, description="Bearer token; without one nobody may halt, resume or flatten over HTTP.")
    tls_certificate: Path | None = Field(None, description="Certificate (PEM) to serve HTTPS with.")
    tls_key: Path | None = Field(None, description="Its private key (PEM).")
    insecure_public: bool = Field(False, description="Listen beyond loopback without TLS: for a network that only a proxy or containers share.")
    max_data_age_s: Positive = Field(30.0, description="Market data older than this makes health answer 503.")
    max_decision_age_s: Positive = Field(90.0, description="A last decision older than this makes health answer 503.")
    max_reconcile_age_s: Positive = Field(600.0, description="A last look at the account older than this makes health answer 503.")

    @model_validator(mode="after")
    def _guarded(self) -> "Http":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; set both")
        if self.port != "off" and not is_loopback(self.host):
            if self.token is None:
                raise ValueError(f"{self.host} is not loopback: set QUARTET__HTTP__TOKEN to at least 16 characters, or listen on 127.0.0.1")
            if self.tls_certificate is None and not self.insecure_public:
                raise ValueError(
                    f"{self.host} is not loopback, and the token would travel in the clear: set http.tls_certificate and http.tls_key, or"
                    " http.insecure_public if only a proxy or containers share that network"
                )
        return self


class Redis(Section):
    """A mirror of what happens: streams and hashes under `quartet:{instance}:`. Never asked to decide, unless it lends the lease."""

    url: str | None = Field(None, description="redis:// or rediss:// (TLS) address of a Redis 7, such as redis://127.0.0.1:6379; off where not set.")
    username: str | None = Field(None, description="The ACL user; `default` where not set.")
    password: SecretStr | None = Field(None, description="Its password; from the environment or a file only.")
    ca_file: Path | None = Field(None, description="Certificates (PEM) to trust in place of the system's own.")
    stream_length: int = Field(10_000, ge=100, le=10_000_000, description="Entries kept of each stream.")
    lease: bool = Field(
        False, description="Of all daemons with this `instance` and `redis.url` only the one that holds the lease trades live; the others stand by."
    )
    lease_s: float = Field(5.0, ge=2, le=60, description="Length of the lease in seconds: about as long a takeover takes after a crash. The same for all.")

    @field_validator("url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.password or parts.query or parts.fragment:  # the client would take a password from the query as well
            raise ValueError("an address must carry no password and no options; give them by redis.username, redis.password and redis.ca_file")
        if parts.scheme not in ("redis", "rediss") or not parts.hostname or not re.fullmatch(r"/?\d*", parts.path) or parts.port == 0:
            raise ValueError(f"{value!r} is no address of a Redis; write redis://HOST:PORT, or rediss://HOST:PORT for TLS")
        return value


class Mqtt(Section):
    """A mirror of what happens under `{namespace}/{instance}/`, and the operator's words from there."""

    host: str | None = Field(None, pattern=r"^[^\s/#+@]+$", description="The broker's host name or address; off where not set.")
    port: int = Field(1883, ge=1, le=65_535, description="The broker's port: 1883, and 8883 for TLS, by custom.")
    namespace: str = Field("quartet", pattern="^[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64})*$", description="First part of every topic; no wildcards.")
    username: str | None = Field(None, description="The broker's user.")
    password: SecretStr | None = Field(None, description="Its password; from the environment or a file only.")
    tls: bool = Field(False, description="Whether the connection is encrypted.")
    ca_file: Path | None = Field(None, description="Certificates (PEM) to trust in place of the system's own.")
    commands: bool = Field(False, description="Whether halt, resume, flatten, cancel-all and status are taken from the broker.")
    home_assistant: str | None = Field(
        None, pattern="^[A-Za-z0-9_-]{1,64}$", description="Home Assistant's discovery prefix, mostly `homeassistant`: then it finds our sensors by itself."
    )
    token: SecretStr | None = Field(None, description="What each word must carry as its token, besides what the broker asks.")

    @model_validator(mode="after")
    def _somebody(self) -> "Mqtt":
        if self.commands and self.host is not None and self.username is None and self.token is None:
            raise ValueError("commands are on, and nobody is asked who he is: set mqtt.username and mqtt.password, or mqtt.token")
        return self


class Notify(Section):
    """Messages to people, through apprise: Telegram, Discord, e-mail and the rest."""

    urls: SecretStr | None = Field(
        None, description="Services in apprise's form (tgram://..., discord://..., mailto://...), with spaces between; off where not set."
    )
    level: Literal["info", "warning", "critical"] = Field("warning", description="The least important level that is told.")
    quiet_hours: str | None = Field(
        None, pattern="^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$",
        description="UTC, such as 22:00-07:00: then only what is critical is told, and the rest at their end.",
    )
    again_min: Positive = Field(15.0, description="Minutes before a condition that comes and goes is told again.")
    most_an_hour: int = Field(12, ge=1, le=1000, description="Messages an hour at most, over all conditions.")


class Log(Section):
    """What is said on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least important level that is shown.")
    format: Literal["auto", "json", "console"] = Field("auto", description="`auto` is console on a terminal and JSON lines elsewhere.")


class Settings(BaseSettings):
    """The whole tree. Build it by `daemon.sources.load`, which knows the layers: file < environment < flags."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True, title="Quartet configuration")

    mode: Literal["paper", "live"] = Field("paper", description="`paper` fills orders in a simulation; `live` sends them to the exchange.")
    instance: str = Field(
        "main", pattern="^[a-z0-9]{1,8}$", description="Name of this daemon, part of its order ids: 1 to 8 of a-z and 0-9."
    )
    state_dir: Path = Field(Path("state"), description="Folder of the journal, tapes, weights and control socket; one daemon each.")
    exchange: Exchange = Field(Exchange(), description="Which market we trade on, and how it is reached.")
    capital: Capital = Field(Capital(), description="How much money this instance may use.")
    risk: Risk = Field(Risk(), description="Hard limits.")
    safety: Safety = Field(Safety(), description="What protects the account when something else has failed.")
    agents: Agents = Field(Agents(), description="Which agents speak.")
    coordinator: Coordinator = Field(Coordinator(), description="How the agents' wishes are joined, and what each may spend in a day.")
    rewards: Rewards = Field(Rewards(), description="What each agent is paid for.")
    reinforcement_learning: ReinforcementLearning = Field(ReinforcementLearning(), description="How the agents learn.")
    paper: Paper = Field(Paper(), description="How simulated fills are made.")
    rehearsal: Rehearsal = Field(Rehearsal(), description="The built-in local exchange.")
    feed: Feed = Field(Feed(), description="Market data: how much, and when it is too old.")
    journal: Journal = Field(Journal(), description="The durable record.")
    http: Http = Field(Http(), description="Health and metrics.")
    redis: Redis = Field(Redis(), description="Mirror into Redis.")
    mqtt: Mqtt = Field(Mqtt(), description="Mirror to an MQTT broker, and words from there.")
    notify: Notify = Field(Notify(), description="Messages to people.")
    log: Log = Field(Log(), description="What is said on standard error.")

    @model_validator(mode="after")
    def _somewhere(self) -> "Settings":
        if self.reinforcement_learning.where == "redis" and self.redis.url is None:
            raise ValueError("reinforcement_learning.where is redis, and redis.url is not set; set it, or learn `here`")
        return self

    @model_validator(mode="after")
    def _lent(self) -> "Settings":
        if self.redis.lease and self.redis.url is None:
            raise ValueError("redis.lease is on, and redis.url is not set; set it, or let one daemon trade without a lease")
        return self

    @model_validator(mode="after")
    def _one_quote(self) -> "Settings":
        for symbol in self.exchange.symbols:
            if symbol.split("/")[1] != self.capital.quote:
                raise ValueError(
                    f"exchange.symbols: {symbol} is not quoted in {self.capital.quote}; take it out or set capital.quote"
                )
        if self.exchange.id == "rehearsal" and self.exchange.base_url is None and self.capital.allocation > self.funds:
            raise ValueError(
                f"capital.allocation: {self.capital.allocation} {self.capital.quote} is more than rehearsal.balances hold"
                f" ({self.funds}); lower it or raise rehearsal.balances.{self.capital.quote}"
            )
        return self

    @property
    def may_hold_keys(self) -> bool:
        """Whether keys are read at all: in paper mode no object ever holds one."""
        return self.mode == "live"

    @property
    def funds(self) -> Decimal:
        """What the rehearsal account holds of the quote currency."""
        return self.rehearsal.balances.get(self.capital.quote, Decimal(0))

    def public(self) -> dict[str, Any]:
        """The tree as plain JSON values, secrets left out: for the journal, `show-config` and people."""
        return self.model_dump(mode="json", exclude={section: set(names) for section, names in SECRETS.items()})

    def secrets(self) -> tuple[str, ...]:
        """The secret values held, for the redactor of the log."""
        held = (getattr(getattr(self, section), name) for section, names in SECRETS.items() for name in names)
        plain = [value.get_secret_value() for value in held if value is not None]
        urls = (self.notify.urls.get_secret_value() if self.notify.urls else "").split()
        parts = (part for url in urls for part in re.split(r"[/:@?&=]+", url.partition("://")[2]))
        return (*plain, *urls, *(part for part in parts if len(part) >= 8))  # a message service's library says parts of its address
