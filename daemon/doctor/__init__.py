"""`quartet doctor`: looks at everything that a session will depend on, changes nothing, and says what to mend."""

from collections.abc import Mapping
from typing import Any

from daemon.doctor.exchange import examine as examine_exchange
from daemon.doctor.findings import OK, SKIPPED, Finding, result
from daemon.doctor.machine import examine as examine_machine
from daemon.doctor.record import examine as examine_record
from daemon.door import MonotonicClock
from daemon.settings import Settings

_MARKS = {"ok": "ok  ", "skipped": "-   ", "warn": "WARN", "fail": "FAIL"}


async def examine(settings: Settings) -> dict[str, Any]:
    """`{"state": worst, "counts": {...}, "checks": [{name, state, said, mend}]}`; never raises for what it finds.

    The rehearsal exchange is started where the settings name it and no other server; anything else is asked only what the keys
    that the mode may hold allow.
    """
    now = MonotonicClock()()
    found = [_settings(settings), *examine_machine(), *examine_record(settings.state_dir, now)]
    found += await examine_exchange(settings)
    return {**result(found), "exchange": settings.exchange.id, "state_dir": str(settings.state_dir)}


def render(data: Mapping[str, Any]) -> str:
    """The same for people: a line a check, and the mend under what is not well."""
    width = max((len(check["name"]) for check in data["checks"]), default=0)
    lines = []
    for check in data["checks"]:
        lines.append(f"{_MARKS[check['state']]}  {check['name']:<{width}}  {check['said']}")
        if check["mend"] and check["state"] not in (OK, SKIPPED):
            lines.append(f"{'':<{width + 6}}  -> {check['mend']}")
    counts = ", ".join(f"{number} {state}" for state, number in data["counts"].items() if number)
    return "\n".join([*lines, "", f"{data['state']}: {counts}"])


def _settings(settings: Settings) -> Finding:
    """They are parsed, or nobody would call us: what is left to say is what they mean."""
    chosen = settings.exchange
    where = chosen.base_url or ("this machine" if chosen.id == "rehearsal" else "the exchange itself")
    keys = "keys are read" if settings.may_hold_keys else "no key is read in this mode"
    said = f"valid; {chosen.id} at {where}, {', '.join(chosen.symbols)}, {settings.capital.allocation:f} {settings.capital.quote}; {keys}"
    return Finding("settings", OK, said)
