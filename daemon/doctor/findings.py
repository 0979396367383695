"""What an examination says: one finding a check, with what was found and how to mend it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agents.core.errors import TradingError

OK, SKIPPED, WARN, FAIL = "ok", "skipped", "warn", "fail"
ORDER = (SKIPPED, OK, WARN, FAIL)
"""From the harmless to the worst."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result. `mend` says what to do, and is empty where there is nothing to do."""

    name: str
    state: str
    said: str
    mend: str = ""


def guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """A check that fails in a way of its own is a finding too: the others must still be made."""
    try:
        return check()
    except (TradingError, OSError, ValueError, KeyError, TypeError) as error:
        return Finding(name, FAIL, f"{type(error).__name__}: {error}"[:400], "mend what it says, then examine again")


def result(findings: Sequence[Finding]) -> dict[str, Any]:
    """The plain data: the worst state, how many of each, and every check."""
    worst = max((finding.state for finding in findings), key=ORDER.index, default=OK)
    counts = {state: sum(finding.state == state for finding in findings) for state in reversed(ORDER)}
    return {"state": OK if worst == SKIPPED else worst, "counts": counts, "checks": [asdict(finding) for finding in findings]}


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def age(seconds: float) -> str:
    """A time span for people."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
