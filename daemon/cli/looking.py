"""Commands that look and change nothing."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.app import (
    LOOK,
    Config,
    ExchangeId,
    Json,
    Set,
    State,
    Symbols,
    app,
    ask,
    market_flags,
    run,
    settings_of,
    speak,
    tell,
)
from daemon.errors import Exit
from daemon.settings import Settings


@app.command(rich_help_panel=LOOK)
def replay(
    session_name: Annotated[str, typer.Argument(metavar="SESSION", help="A session's name, or `last`.")] = "last",
    state: State = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Re-run a recorded session and compare every decision and command; exit code 1 names the first difference."""
    settings = settings_of(config, {"state_dir": state})
    speak(settings)
    from daemon.replay import replay as run

    result = run(settings.state_dir, session_name)
    tell(result, as_json)
    if not result["equal"]:
        raise typer.Exit(Exit.FAILED)


@app.command(rich_help_panel=LOOK)
def status(state: State = None, config: Config = None, as_json: Json = False) -> None:
    """What the daemon on a state folder is doing."""
    answer = ask("status", state, config)
    if as_json:
        tell(answer, True)
        return
    from rich.console import Console

    from daemon.view import render

    Console().print(render(answer, 60))


@app.command(rich_help_panel=LOOK)
def health(state: State = None, config: Config = None, as_json: Json = False) -> None:
    """Whether the daemon makes progress: fresh data, decisions and looks at the account. Exit code 1 where it does not."""
    from daemon.publish.health import Bounds
    from daemon.publish.health import health as judge

    bounds = settings_of(config, {"state_dir": state}).http
    well, found = judge(ask("status", state, config), Bounds(bounds.max_data_age_s, bounds.max_decision_age_s, bounds.max_reconcile_age_s))
    tell(found, as_json)
    if not well:
        raise typer.Exit(Exit.FAILED)


@app.command(rich_help_panel=LOOK)
def learner(
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Also draw the learning curves there.")] = None,
    redis: Annotated[str | None, typer.Option("--redis", metavar="URL", help="Be the learner of a daemon elsewhere, through this Redis, until Ctrl-C.")] = None,
    state: State = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What the learner has learned, by agent: of the running daemon, or of the last one on a state folder. With --redis: be one."""
    settings = settings_of(config, {"state_dir": state, "redis.url": redis})
    if redis is not None:
        from daemon import learner_far

        speak(settings)
        run(learner_far.serve_settings(settings))
        return
    folder = settings.state_dir
    from daemon import learner_view

    found = learner_view.look(folder)
    if png is not None:
        from daemon.learner_history import read

        learner_view.curves(read(folder / "learner"), png)
    if as_json:
        tell(found, True)
        return
    from rich.console import Console

    Console().print(learner_view.table(found))


@app.command("show-config", rich_help_panel=LOOK)
def show_config(
    config: Config = None,
    state: State = None,
    symbols: Symbols = None,
    exchange: ExchangeId = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """The settings that are in force, without secrets; the output is itself a configuration file."""
    settings = settings_of(config, market_flags(symbols, exchange, None, None, state), assignments)
    if as_json:
        tell(settings.public(), True)
        return
    import yaml

    typer.echo(yaml.safe_dump(settings.public(), sort_keys=False), nl=False)


@app.command("config-schema", rich_help_panel=LOOK)
def config_schema(as_json: Json = True) -> None:
    """The JSON schema of the configuration file: every setting with its meaning, bounds and default."""
    tell(Settings.model_json_schema(), as_json or True)
