"""Commands that take care: examine, explain, put in order, rehearse and prove."""

from typing import Annotated, Any

import typer

from daemon.cli.app import CARE, LOOK, Config, Json, Set, State, app, ask, run, settings_of, speak, tell
from daemon.errors import Exit, NotRunning


@app.command(rich_help_panel=LOOK)
def explain(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A decision's number, SESSION:NUMBER, an order's client id or the exchange's id of it.")
    ],
    session_name: Annotated[str, typer.Option("--session", metavar="SESSION", help="In which session; the last if left out.")] = "last",
    state: State = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """The whole story of a decision or an order: seen, wished, limited, sent, answered, learned."""
    from daemon import explain as room

    story = room.explain(settings_of(config, {"state_dir": state}).state_dir, what, session_name)
    _say(story, room.render(story), as_json)


@app.command(rich_help_panel=CARE)
def doctor(
    live: Annotated[bool, typer.Option("--live", help="Examine the account too: its key and that key's rights.")] = False,
    state: State = None,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Examine machine, state folder, settings and exchange; exit code 1 where something would keep the daemon from trading."""
    settings = settings_of(config, {"state_dir": state, "mode": "live" if live else None}, assignments)
    speak(settings)
    from daemon import doctor as room

    found = run(room.examine(settings))
    _say(found, room.render(found), as_json)
    if found["state"] == "fail":
        raise typer.Exit(Exit.FAILED)


@app.command(rich_help_panel=CARE)
def reconcile(
    apply: Annotated[bool, typer.Option("--apply", help="Book what nothing explains as it is on the exchange, and cancel stray orders.")] = False,
    state: State = None,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Hold the books against the exchange and say what differs; with --apply put them right.

    Asks the running daemon; where none runs it looks at the account itself. Exit code 1 while something is unexplained.
    """
    from daemon import by_hand

    settings = settings_of(config, {"state_dir": state, "mode": "live"}, assignments)
    try:
        found = ask("reconcile", state, config, apply=apply)
    except NotRunning:
        speak(settings)
        from daemon import session

        found = run(session.reconcile(settings, apply=apply))
    _say(found, by_hand.render(found), as_json)
    if not (found.get("clean") or found.get("applied")):
        raise typer.Exit(Exit.FAILED)


def _say(data: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        tell(data, True)
    else:
        typer.echo(text)
