"""Health means progress: fresh data, fresh decisions, a recent look at the account, a learner that lives; not a live process."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bounds:
    """Ages in seconds above which the session counts as stuck."""

    data_age_s: float
    decision_age_s: float
    reconcile_age_s: float = 600.0
    """Judged only where the account is reconciled at all."""


def health(snapshot: Mapping[str, Any], bounds: Bounds) -> tuple[bool, dict[str, Any]]:
    """Whether the session makes progress, and what says so. The learner's end is told and harms nobody's health: trading goes on."""
    if snapshot.get("standby"):  # it makes no progress, and should not: it is well while it can see the lease
        waits = [] if (snapshot.get("lease") or {}).get("reachable") else ["lease_store_unreachable"]
        return not waits, {"healthy": not waits, "problems": waits, "session": snapshot.get("session"), "ready": False}
    problems = [] if snapshot.get("ready") else ["starting"]
    aged = [("data_age_s", bounds.data_age_s)]
    if not snapshot.get("halted"):  # who is halted has nothing to decide
        aged.append(("decision_age_s", bounds.decision_age_s))
    for name, bound in aged:
        age = snapshot.get(name)
        if age is None:
            problems.append(f"{name.removesuffix('_age_s')}_missing")
        elif not age <= bound:  # NaN counts as too old
            problems.append(f"{name.removesuffix('_age_s')}_too_old")
    reconciled = (snapshot.get("reconcile") or {}).get("age_s")
    if reconciled is not None and not reconciled <= bounds.reconcile_age_s:
        problems.append("reconcile_too_old")
    keys = ("session", "ready", "halted", "data_age_s", "decision_age_s")
    learner = (snapshot.get("learner") or {}).get("state")
    body = {"healthy": not problems, "problems": problems, **{key: snapshot.get(key) for key in keys}}
    return not problems, {**body, "reconcile_age_s": reconciled, "learner": learner}
