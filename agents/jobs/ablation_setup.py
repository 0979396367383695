"""From data and a window to what an ablation needs: a runner, the length of returns, and a trainer where one is wanted."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from agents.core.errors import ConfigError
from agents.core.instruments import TIMEFRAMES
from agents.environment.kernel import VectorCosts
from agents.jobs.ablate import Runner, Trainer, bucket_of
from agents.jobs.ablation_runners import EventRunner, VectorRunner, long_term_trainer
from agents.jobs.backtest import Source
from agents.market.frictions import Frictions
from agents.market.history import CandleHistory, load_history
from agents.market.synthetic_candles import planted_alpha_history
from agents.market.tape import open_tape

EVENT, VECTOR = "event", "vector"
MADE_UP_BARS = 24 * 120
"""Hours of the made-up market: the first third to warm up and to learn from, the rest to judge."""


@dataclass(frozen=True, slots=True)
class Window:
    """What is judged, and at which costs. Times in market ns; without data the market is made up."""

    data: Sequence[Path]
    symbols: tuple[str, ...]
    start: int | None
    end: int | None
    capital: Decimal
    frictions: Frictions
    fee_bps: float = 10.0
    """Of the vector kernel and of training."""
    warm_up_days: float = 100.0
    allow_gaps: bool = False


def made_up(symbols: Sequence[str] | int = 4) -> CandleHistory:
    """Hours of made-up coins in which momentum pays: a market where something can be found, and nothing proved."""
    return planted_alpha_history(symbols, MADE_UP_BARS, 7, sharpe=3.0, half_life=24.0 * 7, in_prices=True)[0]


def prepare(window: Window, engine: str = EVENT, retrain: int = 0, seeds: int = 3) -> tuple[Runner, str, Trainer | None]:
    """(runner, length of a return, trainer of `retrain` updates a seed or None).

    Raises ConfigError for retraining without a beginning of the window, DataError for data that cannot be used.
    """
    data, start, costs = list(window.data), window.start, VectorCosts(fee_bps=window.fee_bps)
    if retrain and data and start is None:
        raise ConfigError("--retrain learns on what lies before the test window: give its beginning by --from")
    history: CandleHistory | None = None
    if not data:
        history = made_up(window.symbols or 4)
        start = int(history.times[MADE_UP_BARS // 3]) if start is None else start
    elif engine == VECTOR or retrain:
        history = load_history(data, window.symbols or None, None, window.end, allow_gaps=window.allow_gaps)
    train = None
    if retrain and history is not None and start is not None:
        train = long_term_trainer(history, start, seeds, retrain, costs)
    if engine == VECTOR and history is not None:
        return VectorRunner(history, start, window.end, costs), "1d", train
    paths = data[0] if len(data) == 1 else data
    source: Source = paths
    if not data and history is not None:
        source, first, last = history, int(history.times[0]), int(history.closings[-1])
    else:
        tape = open_tape(paths, start, window.end, window.symbols or None, allow_gaps=window.allow_gaps)
        first, last = tape.start, tape.end
    bucket = bucket_of(max(first, start or first), min(last, window.end or last))
    warm_up = int(window.warm_up_days * TIMEFRAMES["1d"])
    return EventRunner(source, start, window.end, bucket, window.capital, window.frictions, warm_up, window.allow_gaps), bucket, train
