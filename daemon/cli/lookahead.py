"""The command that looks for knowledge of the future."""

from pathlib import Path
from typing import Annotated

import typer

from agents.core.errors import ConfigError, DataError
from agents.core.instruments import Symbol
from daemon.cli.app import RESEARCH, Config, Json, Set, Symbols, app, settings_of, speak, tell
from daemon.cli.backtesting import Moment, Until, moment, progress_bar


@app.command(rich_help_panel=RESEARCH)
def lookahead(
    data: Annotated[
        list[Path] | None, typer.Option("--data", metavar="PATH", help="Recorded candles, files or folders; without, a made-up market.")
    ] = None,
    start: Moment = None,
    end: Until = None,
    symbols: Symbols = None,
    bars: Annotated[int, typer.Option("--bars", min=60, help="The last so many candles are searched.")] = 400,
    cuts: Annotated[int, typer.Option("--cuts", min=1, help="Moments after which the future is altered.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the moments, the alterations and the actions tried.")] = 0,
    weights: Annotated[
        list[str] | None, typer.Option("--weights", metavar="[AGENT=]PATH", help="Learned weights; without, the priors decide.")
    ] = None,
    allow_gaps: Annotated[bool, typer.Option("--allow-gaps", help="Go on over holes in the candles.")] = False,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Alter the future and look whether anything before it changes: features, observations, simulated trades, decisions.

    After random moments the candles are shifted by one bar, shuffled, and disturbed. Whatever was known before must be the same bit
    for bit; features of whole histories must also be those that the engine sees bar by bar. Exit code 1 names the first number
    that leaks.
    """
    settings = settings_of(config, {}, assignments)
    speak(settings)
    from agents.jobs.lookahead_checks import lookahead as search
    from agents.jobs.weights import joined, read_weights
    from agents.market.history import load_history
    from agents.market.synthetic_candles import random_walk_history
    from daemon.wiring import engine_config, frictions

    chosen = None if symbols is None else tuple(word.strip() for word in symbols.split(",") if word.strip())
    for path in data or ():
        if not path.exists():
            raise ConfigError(f"--data: there is no file or folder {path}")
    window = moment("--from", start), moment("--to", end)
    if data:
        history = load_history(data, chosen, *window, allow_gaps=allow_gaps)
    else:
        history = random_walk_history(chosen or settings.exchange.symbols, bars, seed)
    history = history.rows(max(len(history.times) - bars, 0), len(history.times))
    served = read_weights(weights or [])
    payload = served if served is None or isinstance(served, bytes) else joined(served)
    desk = engine_config(settings, tuple(Symbol(symbol) for symbol in history.symbols), 0, exploration=0.0)
    with progress_bar(not as_json) as advance:
        found = search(history, desk, frictions(settings), weights=payload, cuts=cuts, seed=seed, progress=advance)
    tell(found.to_json(), as_json)
    if not found.sound:
        more = f" (and {len(found.leaks) - 1} more)" if len(found.leaks) > 1 else ""
        raise DataError(f"the future is seen: {found.leaks[0].sentence()}{more}")
