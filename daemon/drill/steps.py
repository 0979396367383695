"""The five drills. Each starts its own daemons, hurts them, and says what it expected and what it saw."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from agents.core.events import Adopted, Fill, OrderUpdate, Reconciled
from daemon.drill.ground import Ground
from daemon.journal import JournalReader
from daemon.latch import Latch

GONE_S = 15.0
FRESH_S = 30.0
QUIET_S = 5.0
HELD_S = 240.0


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill: what is done, what is expected of it, and the way to do it, which returns (what was seen, passed)."""

    name: str
    done: str
    expected: str
    run: Callable[[Ground], Awaitable[tuple[str, bool]]]
    needs_faults: bool = False


async def kill(ground: Ground) -> tuple[str, bool]:
    """SIGKILL of a daemon with open orders."""
    process = await ground.start()
    await ground.until(ground.status, lambda status: (status.get("watchdog") or {}).get("state") == "watching", 120.0, "no watchdog came up")
    orders = await ground.some_orders()
    await ground.kill(process)
    loop = asyncio.get_running_loop()
    killed = loop.time()
    await ground.until(ground.open_orders, lambda left: not left, GONE_S, "our orders were not taken away")
    seconds = loop.time() - killed

    async def report() -> Path | None:
        return max((ground.state / "watchdog").glob("*.json"), default=None)

    told = orjson.loads((await ground.until(report, lambda path: path is not None, GONE_S, "the watchdog wrote no report")).read_bytes())
    seen = f"{len(orders)} open orders, none {seconds:.1f} s after SIGKILL; the watchdog's report: {told['cancelled']} cancelled, {told['reason']}"
    return seen, True


async def restart(ground: Ground) -> tuple[str, bool]:
    """SIGKILL without a watchdog, and a start over what is left."""
    process = await ground.start(watchdog_s=0)
    orders = await ground.some_orders()
    await ground.kill(process)
    left = await ground.open_orders()
    process = await ground.start()
    await ground.until(ground.status, lambda status: bool(status.get("ready")), 120.0, "the daemon did not become ready again")
    reader = JournalReader(ground.state)
    facts = list(reader.facts(reader.session("last").epoch))
    adopted = {fact.place.order_id for fact in facts if isinstance(fact, Adopted)}
    told = {fact.order_id for fact in facts if isinstance(fact, Fill | OrderUpdate)}
    differences = [fact.differences for fact in facts if isinstance(fact, Reconciled) and fact.differences]
    lost = {order_id for order_id in left if order_id not in adopted | told}
    code, summary = await ground.stop(process)
    clean = not lost and not differences and code == 0 and summary.get("ledger_difference") == 0
    seen = (
        f"{len(orders)} open orders, {len(left)} left by the killed daemon, {len(adopted)} adopted, {len(lost)} unaccounted for; "
        f"{len(differences)} unexplained differences; exit code {code}, ledger difference {summary.get('ledger_difference')}"
    )
    return seen, clean


async def streams(ground: Ground) -> tuple[str, bool]:
    """Every market-data and account connection is cut at once."""
    process = await ground.start()
    await ground.some_orders()
    before = await ground.until(ground.status, lambda status: "decisions" in status, GONE_S, "the daemon does not answer")
    await ground.inject("stream_drop")
    await ground.inject("private_drop")
    loop = asyncio.get_running_loop()
    cut = loop.time()
    decisions = sum(before["decisions"].values())

    def back(status: dict[str, Any]) -> bool:
        if "decisions" not in status or status["data_age_s"] is None or loop.time() - cut < 1.0:
            return False
        return status["data_age_s"] < 1.0 and not status["feed"]["stale"] and sum(status["decisions"].values()) > decisions

    await ground.until(ground.status, back, FRESH_S, "data and decisions did not come back")
    seconds = loop.time() - cut
    code, summary = await ground.stop(process)
    seen = f"fresh data and a new decision {seconds:.1f} s after the cut; exit code {code}, ledger difference {summary.get('ledger_difference')}"
    return seen, code == 0 and summary.get("ledger_difference") == 0


async def halt(ground: Ground) -> tuple[str, bool]:
    """Halt, SIGKILL, start again, resume."""
    process = await ground.start()
    await ground.some_orders()
    await ground.tell("halt")
    await ground.until(ground.open_orders, lambda left: not left, GONE_S, "halt did not take our orders away")
    await ground.kill(process)
    process = await ground.start()
    await ground.until(ground.status, lambda status: bool(status.get("data_age_s") is not None), 120.0, "the daemon did not start again")
    loop = asyncio.get_running_loop()
    until, placed, halted = loop.time() + QUIET_S, set[str](), True
    while loop.time() < until:
        placed |= await ground.open_orders()
        halted = halted and bool((await ground.status()).get("halted"))
        await asyncio.sleep(0.2)
    await ground.tell("resume")
    again = await ground.some_orders()
    await ground.stop(process)
    seen = f"halted after the restart: {halted}, {len(placed)} orders in {QUIET_S:g} s; {len(again)} soon after resume"
    return seen, halted and not placed and bool(again)


async def flatten(ground: Ground) -> tuple[str, bool]:
    """Sell everything by the operator's word."""
    process = await ground.start()
    held = await ground.until(ground.status, lambda status: bool(status.get("positions")), HELD_S, "no position was built")
    await ground.tell("flatten")
    await ground.until(ground.open_orders, lambda left: not left, HELD_S, "orders stay open")
    latch = Latch(ground.state)

    async def word() -> str:
        return latch.read().kind

    await ground.until(word, lambda kind: kind == "halt", HELD_S, "the daemon did not say that all is sold")
    latched = await ground.status()
    code, summary = await ground.stop(process)
    latch.set("none", "drill", 0)  # the drill's own folder, for whoever drills next
    seen = (
        f"{len(held['positions'])} positions before, {summary.get('sellable')} that could still be sold after; "
        f"halted: {latched.get('halted')}; exit code {code}, ledger difference {summary.get('ledger_difference')}"
    )
    return seen, not summary.get("sellable") and bool(latched.get("halted")) and code == 0 and summary.get("ledger_difference") == 0


DRILLS = (
    Drill("kill", "SIGKILL of a daemon with open orders", f"the watchdog cancels all but protective stops within {GONE_S:g} s and writes a report", kill),
    Drill("restart", "SIGKILL without a watchdog, then a start over the open orders", "each is adopted or its end is told; books equal the exchange's", restart),
    Drill("streams", "all streams are cut", f"fresh data and decisions within {FRESH_S:g} s; books equal the exchange's", streams, needs_faults=True),
    Drill("latch", "halt, SIGKILL, start, resume", "no order before resume, orders after it", halt),
    Drill("flatten", "flatten while positions are held", "all is sold, trading is halted, books equal the exchange's", flatten),
)
