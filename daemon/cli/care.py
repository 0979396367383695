"""Commands that take care: examine, explain, put in order, rehearse and prove."""

from typing import Annotated, Any

import typer

from daemon.cli.app import CARE, LOOK, Config, Json, Set, State, app, run, settings_of, speak, tell
from daemon.errors import Exit


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


def _say(data: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        tell(data, True)
    else:
        typer.echo(text)
