"""Commands that take care: examine, explain, put in order, rehearse and prove."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.cli.app import CARE, LOOK, Config, Json, Set, State, app, ask, run, settings_of, speak, tell
from daemon.errors import Exit, NotRunning


@app.command(rich_help_panel=LOOK)
def explain(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A decision's number, `last`, SESSION:NUMBER, an order's client id or the exchange's id of it.")
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


@app.command(rich_help_panel=LOOK)
def capabilities(
    ids: Annotated[list[str] | None, typer.Argument(metavar="EXCHANGE...", help="ccxt ids; the large ones if left out.")] = None,
    as_json: Json = False,
) -> None:
    """What exchanges can do for the safety of orders, and which of them `trade --live` refuses; dials nothing."""
    from daemon.venues import capabilities as room

    rows = room.table(ids or room.TABLE)
    _say({"exchanges": rows}, room.render(rows), as_json)


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


@app.command(rich_help_panel=CARE)
def drill(
    only: Annotated[str | None, typer.Option("--only", metavar="LIST", help="Only these drills, by name with commas.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where reports go; drills in the state folder if left out.")] = None,
    yes: Annotated[
        str, typer.Option("--yes", metavar="KEY", help="On a testnet: the first characters of the key whose account is meant.")
    ] = "",
    state: State = None,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Rehearse the accidents with real processes: kill, cut streams, restart with open orders, halt, flatten; writes a dated report.

    Without --set exchange.base_url it starts a rehearsal exchange of its own. Exit code 1 where a drill fails.
    """
    settings = settings_of(config, {"state_dir": state, "mode": "live"}, assignments)
    speak(settings)
    from daemon import drill as room

    chosen = [name.strip() for name in (only or "").split(",") if name.strip()]
    report = run(room.drill(settings, out or settings.state_dir / "drills", account=yes, only=chosen))
    _say(report, room.render(report), as_json)
    if not report["passed"]:
        raise typer.Exit(Exit.FAILED)


@app.command(rich_help_panel=CARE)
def simulate(
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="How many seeds to run.")] = 10,
    first_seed: Annotated[int, typer.Option("--first-seed", metavar="N", min=0, help="The first of them.")] = 1,
    faults: Annotated[str, typer.Option("--faults", metavar="LIST", help="all, none, or names with commas.")] = "all",
    minutes: Annotated[float, typer.Option("--minutes", metavar="M", min=0.1, help="Simulated minutes of each seed.")] = 10.0,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, help="Processes side by side.")] = 1,
    trace: Annotated[Path | None, typer.Option("--trace", metavar="FILE", help="Write the event log of the last seed there.")] = None,
    as_json: Json = False,
) -> None:
    """The whole daemon in virtual time against an exchange that misbehaves, from seeds; checks every promise after every event.

    Exit code 1 where a promise breaks, with the command that repeats the seed.
    """
    from daemon import logs
    from daemon.simulation import simulate as room

    logs.configure("critical", "json")
    summary = room.simulate(first_seed, seeds, faults, minutes, jobs, None if as_json else _progress(seeds), trace)
    _say(summary, room.render(summary), as_json)
    if summary["failed"]:
        raise typer.Exit(Exit.FAILED)


def _progress(seeds: int) -> Callable[[dict[str, Any]], None]:
    """A line on standard error after each seed that broke, and a count."""
    done = 0

    def told(report: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        if report["broken"]:
            typer.echo(f"seed {report['seed']} broke {report['broken'][0]['invariant']}", err=True)
        elif done % 10 == 0 or done == seeds:
            typer.echo(f"{done} of {seeds} seeds", err=True)

    return told


def _say(data: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        tell(data, True)
    else:
        typer.echo(text)
