"""Commands that steer a daemon, or do its last duties without one."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from daemon.cli.app import (
    STEER,
    Config,
    Here,
    Json,
    RealMoney,
    Reason,
    Set,
    State,
    app,
    ask,
    run,
    settings_of,
    speak,
    tell,
)
from daemon.errors import NotRunning, TimedOut
from daemon.latch import Kind

Word = Literal["flatten", "cancel-all"]
_NEXT: dict[Kind, str] = {
    "none": "trades", "halt": "places nothing until resume", "flatten": "sells what it holds and places nothing until resume",
}  # fmt: skip


@app.command(rich_help_panel=STEER)
def halt(reason: Reason = "operator", state: State = None, config: Config = None, as_json: Json = False) -> None:
    """Cancel every order and place none until resume, restarts included; positions stay, and so do stops that protect them."""
    tell(_say_or_latch("halt", "halt", reason, state, config), as_json)


@app.command(rich_help_panel=STEER)
def resume(reason: Reason = "operator", state: State = None, config: Config = None, as_json: Json = False) -> None:
    """Trade again after halt or flatten."""
    tell(_say_or_latch("resume", "none", reason, state, config), as_json)


@app.command(rich_help_panel=STEER)
def reload(state: State = None, config: Config = None, as_json: Json = False) -> None:
    """Have the daemon read its configuration again: limits, log level and bounds of health change at once, the rest is refused by name."""
    tell(ask("reload", state, config), as_json)


@app.command(rich_help_panel=STEER)
def flatten(
    reason: Reason = "operator",
    without_daemon: Here = False,
    yes_trade_real_money: RealMoney = False,
    state: State = None,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Halt, cancel every order and sell what is held; stands across restarts until resume."""
    _tell_or_do("flatten", reason, state, config, assignments, as_json, without_daemon, yes_trade_real_money)


@app.command("cancel-all", rich_help_panel=STEER)
def cancel_all(
    reason: Reason = "operator",
    without_daemon: Here = False,
    yes_trade_real_money: RealMoney = False,
    state: State = None,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Cancel every order once, protective stops included; the agents go on and may place new ones.

    With --without-daemon nobody goes on: the next session stands still until resume.
    """
    _tell_or_do("cancel-all", reason, state, config, assignments, as_json, without_daemon, yes_trade_real_money)


@app.command(rich_help_panel=STEER)
def stop(state: State = None, config: Config = None, as_json: Json = False) -> None:
    """End the session as Ctrl-C does: cancel what rests, keep positions, print the summary."""
    tell(ask("stop", state, config), as_json)


def _tell_or_do(word: Word, reason: str, state: Path | None, config: Path | None, assignments: list[str] | None, as_json: bool,
                here: bool, real_money: bool) -> None:  # fmt: skip
    """Tell the running daemon; with `here` carry the word out without one, on the account that the settings name."""
    if not here:
        answer = _say_or_latch(word, "flatten", reason, state, config) if word == "flatten" else ask(word, state, config, reason=reason)
        tell(answer, as_json)
        return
    settings = settings_of(config, {"state_dir": state, "mode": "live"}, assignments)
    speak(settings)
    from daemon import session

    tell(run(session.clear(settings, word, reason, real_money=real_money)), as_json, ended=True)


def _say_or_latch(word: str, kind: Kind, reason: str, state: Path | None, config: Path | None) -> dict[str, Any]:
    """Tell the running daemon; where none runs but one has run before, the next session finds the word on disk.

    A word that stops is left there too where a daemon hangs, or is still starting and has no ear yet.
    """
    try:
        return ask(word, state, config, reason=reason)
    except (NotRunning, TimedOut) as error:
        folder = settings_of(config, {"state_dir": state}).state_dir
        if (kind == "none" and isinstance(error, TimedOut)) or not (folder / "journal.sqlite").is_file():
            raise
        from daemon.door import Door
        from daemon.latch import Latch
        from daemon.state_folder import Occupied, held

        if kind != "none":
            Latch(folder).set(kind, reason, Door().now())
        if isinstance(error, TimedOut):
            raise TimedOut(f"{error}. The word is latched: the next session {_NEXT[kind]}") from error
        try:
            with held(folder):
                Latch(folder).set(kind, reason, Door().now())
        except Occupied:
            if kind == "none":
                raise
            with suppress(NotRunning):  # it may have come up meanwhile, and before it saw the latch
                return ask(word, state, config, reason=reason)
            return {"latched": kind, "note": f"the daemon on {folder} is still starting; its session {_NEXT[kind]}"}
        return {"latched": kind, "note": f"no daemon runs on {folder}; the next session on it {_NEXT[kind]}"}
