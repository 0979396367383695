"""Commands beside the trading session: the rehearsal exchange alone, and the engine over recorded data."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.core.errors import TradingError
from agents.core.instruments import Symbol
from agents.jobs.backtest import WARM_UP_NS, run_backtest
from agents.jobs.books import mark_outs as run_mark_outs
from agents.jobs.result import RunResult
from agents.jobs.weights import joined
from daemon.rehearsal.config import RehearsalConfig
from daemon.rehearsal.server import serve as serve_rehearsal
from daemon.running import stop_on_signals
from daemon.settings import Settings
from daemon.wiring import engine_config, frictions


async def exchange(
    settings: Settings, port: int, announce: Callable[[dict[str, Any]], None], *, faults: bool = False
) -> dict[str, Any]:
    """Serve the rehearsal exchange alone until a signal, or until its tape ends; `announce` gets address, symbols and keys.

    With `faults` it misbehaves on request (docs/rehearsal.md).
    """
    rehearsal = settings.rehearsal
    recorded = rehearsal.data is not None
    config = RehearsalConfig(
        port=port, speed=1.0 if recorded else rehearsal.speed, seed=rehearsal.seed, data=rehearsal.data,
        symbols=() if recorded else settings.exchange.symbols, balances=rehearsal.balances, trade_rate=rehearsal.trade_rate, faults=faults,
    )  # fmt: skip
    served: dict[str, Any] = {}

    def listening(hello: dict[str, object]) -> None:
        served.update(base_url=f"http://127.0.0.1:{hello['port']}", **hello)
        announce(dict(served))

    stop, ended = asyncio.Event(), asyncio.Event()
    stop_on_signals(stop)
    try:
        async with asyncio.TaskGroup() as group:
            server = group.create_task(serve_rehearsal(config, listening, ended.set))
            server.add_done_callback(lambda _: stop.set())
            await stop.wait()
            server.cancel()
    except* TradingError as errors:
        raise errors.exceptions[0] from None
    return {**served, "ended": ended.is_set()}


def backtest(
    settings: Settings, data: Path | Sequence[Path], start: int | None, end: int | None, symbols: tuple[str, ...] | None,
    *, allow_gaps: bool = False, weights: Mapping[str, bytes] | bytes | None = None, progress: Callable[[float], None] | None = None,
    warm_up_ns: int = WARM_UP_NS,
) -> RunResult:
    """The engine over recorded data with these settings' limits and frictions; all symbols of the tape unless some are named."""
    config = engine_config(settings, tuple(Symbol(s) for s in symbols or ()), 0, exploration=0.0)
    return run_backtest(
        config, data, start, end, settings.capital.allocation, frictions(settings),
        allow_gaps=allow_gaps, weights=weights, progress=progress, warm_up_ns=warm_up_ns,
    )  # fmt: skip


def mark_outs(
    settings: Settings, data: Sequence[Path], start: int | None, end: int | None, symbols: tuple[str, ...] | None,
    *, allow_gaps: bool = False, weights: Mapping[str, bytes] | bytes | None = None, progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """The market maker on recorded books under every queue model; everything else as `backtest`."""
    payload = joined(weights) if isinstance(weights, Mapping) else weights
    return run_mark_outs(
        engine_config(settings, (), 0, exploration=0.0), data, settings.capital.allocation, frictions(settings),
        symbols=symbols, weights=payload, start=start, end=end, allow_gaps=allow_gaps, progress=progress,
    )  # fmt: skip
