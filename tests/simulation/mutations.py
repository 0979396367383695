"""Breaks the code behind each invariant, one break at a time, and looks whether the simulation notices.

    python -m tests.simulation.mutations [--seeds 12] [--minutes 4] [--first-seed 1] [--only NAME] [--markdown]

Each break is put in by replacing a function in a process of its own; the files stay as they are. Exit code 1 where one goes unnoticed.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from unittest import mock

from daemon.simulation.run import Options, simulate_seed


@dataclass(frozen=True)
class Mutation:
    """One break: which invariants must catch it, what it does, and how it is put in."""

    name: str
    caught_by: tuple[str, ...]
    sentence: str
    apply: Callable[[], None]
    faults: str = "all"
    minutes: float = 0.0
    """How long a seed must run for it; 0 takes what was asked for."""
    learner: str = ""


def _patch(target: str, value: object) -> None:
    mock.patch(target, value).start()


def _resend() -> None:
    from daemon.venues import transport

    create = transport.OrderTransport.create

    async def again(self: Any, place: Any) -> Any:
        try:
            return await create(self, place)
        except Exception as error:
            if "imeout" in type(error).__name__ or "Unsettled" in type(error).__name__ or "NotAvailable" in type(error).__name__:
                return await create(self, replace(place, order_id=f"{place.order_id}x"))
            raise

    _patch("daemon.venues.transport.OrderTransport.create", again)


def _timeout_is_rejection() -> None:
    from daemon.venues import outcomes

    judge = outcomes.judge_error

    def hasty(error: BaseException) -> Any:
        verdict = judge(error)
        return replace(verdict, outcome=outcomes.Outcome.REJECTED) if verdict.outcome is outcomes.Outcome.UNKNOWN else verdict

    _patch("daemon.venues.orders.judge_error", hasty)


def _empty_is_accepted() -> None:
    from daemon.venues import outcomes

    _patch("daemon.venues.orders.judge_answer", lambda view, order_id: outcomes.Verdict(outcomes.Outcome.ACCEPTED, "accepted"))


def _cancel_once() -> None:
    _patch("daemon.venues.orders.OrderDesk.uncancelled", lambda self: [])


def _no_adoption() -> None:
    from daemon import recovery

    recover = recovery.recover

    def forgetful(*args: Any, **kwargs: Any) -> Any:
        found = recover(*args, **kwargs)
        from agents.core.events import Adopted

        return replace(found, events=tuple(e for e in found.events if not isinstance(e, Adopted)), strays=())

    _patch("daemon.starting.recover", forgetful)


def _no_fill_sweep() -> None:
    async def idle(self: Any, symbol: Any) -> int:
        return 0

    _patch("daemon.venues.fills.FillReader.sweep", idle)
    _patch("daemon.venues.fills.FillReader.of_order", lambda self, symbol, venue_order_id: idle(self, symbol))


def _fills_twice() -> None:
    from agents.core.ledger import Ledger

    fill = Ledger._fill

    def twice(self: Any, event: Any) -> None:
        fill(self, event)
        if self.fill_count % 5 == 0:
            self._seen_fills.discard((event.symbol, event.trade_id))
            fill(self, event)

    _patch("agents.core.ledger.Ledger._fill", twice)


def _no_missed_fills() -> None:
    _patch("daemon.recovery._Story.trades", lambda self, truth: None)


def _send_before_commit() -> None:
    from daemon import drive as module

    class Lazy:
        def __init__(self, record: Any) -> None:
            self._record = record
            self._late: list[Any] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(self._record, name)

        def commit(self, seq: int) -> None:
            """One commit behind."""
            self._late.append(seq)
            if len(self._late) > 8:
                self._late.clear()
                self._record.commit(seq)

    drive = module.drive

    async def careless(facts: Any, engine: Any, record: Any, *rest: Any) -> None:
        await drive(facts, engine, Lazy(record), *rest)

    _patch("daemon.running.drive", careless)


def _disk_ignored() -> None:
    from daemon.journal import Journal
    from daemon.segments import RecordFailed

    commit = Journal.commit

    def careless(self: Any, seq: int) -> None:
        try:
            commit(self, seq)
        except RecordFailed:
            return

    _patch("daemon.journal.Journal.commit", careless)


def _halt_ignored() -> None:
    from agents.core.events import Halt
    from agents.engine import Engine

    listen = Engine._listen

    def deaf(self: Any, event: Any, fresh: bool) -> bool:
        return False if isinstance(event, Halt) and event.reason == "drawn" else listen(self, event, fresh)

    _patch("agents.engine.Engine._listen", deaf)


def _latch_forgotten() -> None:
    from daemon.latch import Latched

    _patch("daemon.running.Latch.read", lambda self: Latched("none", "", 0))


def _stale_trusted() -> None:
    _patch("agents.market.state.MarketState.trouble", lambda self, symbol: None)


def _unreconciled_trusted() -> None:
    from agents.engine import Engine

    listen = Engine._listen

    def trusting(self: Any, event: Any, fresh: bool) -> bool:
        result = listen(self, event, fresh)
        self.risk.reconciled = True
        return result

    _patch("agents.engine.Engine._listen", trusting)


def _working_forgotten() -> None:
    from agents.core.instruments import ZERO

    _patch("agents.core.ledger.Ledger.working", lambda self, symbol: (ZERO, ZERO))


def _owners_coins() -> None:
    from agents.core.ledger import Ledger

    position = Ledger.position

    def greedy(self: Any, symbol: Any) -> Decimal:
        instrument = self.instruments.get(symbol)
        return position(self, symbol) if instrument is None else max(position(self, symbol), self.balances[instrument.base])

    _patch("agents.core.ledger.Ledger.position", greedy)


def _ladder_forgotten() -> None:
    _patch("agents.desk.limits.RiskState.restore", lambda self, *args: None)


def _wall_clock() -> None:
    import time

    from agents.engine import Engine

    decide = Engine._decide

    def impatient(self: Any, stamp: Any, due: Any, swapped: Any) -> Any:
        result = decide(self, stamp, due, swapped)
        self._next_plan += time.monotonic_ns() % 500_000_000
        return result

    _patch("agents.engine.Engine._decide", impatient)


def _facts_dropped() -> None:
    from agents.core.events import Balance
    from daemon.journal import Journal

    append = Journal.append

    def choosy(self: Any, event: Any) -> None:
        if not isinstance(event, Balance):
            append(self, event)

    _patch("daemon.journal.Journal.append", choosy)


def _state_outside() -> None:
    from agents.core.ledger import Ledger

    fill = Ledger._fill
    paid = {"count": 0}

    def with_memory(self: Any, event: Any) -> None:
        paid["count"] += 1
        fill(self, replace(event, price=event.price + Decimal(paid["count"] % 2) * Decimal("0.01")))

    _patch("agents.core.ledger.Ledger._fill", with_memory)


def _weights_unchecked() -> None:
    import numpy as np

    from agents.serving import actors

    finite = np.isfinite

    class Blind:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        @staticmethod
        def isfinite(tensor: Any) -> Any:
            return np.ones_like(finite(tensor), dtype=bool)

    _patch("agents.serving.actors.np", Blind())
    assert actors is not None


MUTATIONS: tuple[Mutation, ...] = (
    Mutation("timeout_is_rejection", ("I1", "I2"), "an order without an answer counts as refused", _timeout_is_rejection),
    Mutation("empty_is_accepted", ("I1",), "an empty answer counts as accepted", _empty_is_accepted),
    Mutation("cancel_once", ("I1", "I2"), "a cancel that failed is not sent again", _cancel_once),
    Mutation("no_adoption", ("I1", "I2"), "a restart neither adopts nor cancels the orders that it finds", _no_adoption),
    Mutation("no_fill_sweep", ("I2",), "own trades are never fetched", _no_fill_sweep),
    Mutation("fills_twice", ("I2",), "every fifth fill counts twice", _fills_twice),
    Mutation("no_missed_fills", ("I2",), "a restart does not look for fills that it missed", _no_missed_fills),
    Mutation("resend", ("I3",), "an order without an answer is sent again", _resend),
    Mutation("send_before_commit", ("I3",), "orders are sent before their intents are on the disk", _send_before_commit),
    Mutation("disk_ignored", ("I3",), "a failed commit is ignored", _disk_ignored, "disk_full,owner", 6),
    Mutation("halt_ignored", ("I4",), "the operator's halt is not heard", _halt_ignored),
    Mutation("latch_forgotten", ("I4",), "a restart forgets the operator's halt", _latch_forgotten, "operator,crashes,commit_crashes", 10),
    Mutation("stale_trusted", ("I4",), "stale, crossed and gapped books are traded on", _stale_trusted),
    Mutation("unreconciled_trusted", ("I4",), "new risk is taken while the account differs", _unreconciled_trusted, "owner", 10),
    Mutation("working_forgotten", ("I5",), "working orders are no exposure", _working_forgotten),
    Mutation("owners_coins", ("I5", "I2"), "the owner's coins count as ours to sell", _owners_coins),
    Mutation("ladder_forgotten", ("I6",), "a restart forgets the peak of equity", _ladder_forgotten, "crashes,stops,commit_crashes", 6),
    Mutation("state_outside", ("I6", "I7", "I2"), "the ledger remembers something that is not in the journal", _state_outside),
    Mutation("wall_clock", ("I7",), "the engine reads a clock", _wall_clock),
    Mutation("facts_dropped", ("I7",), "balances are not written down", _facts_dropped),
    Mutation("weights_unchecked", ("I8",), "weights are not looked at before they serve", _weights_unchecked, learner="poisonous"),
)
BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}


def hunt(name: str, first_seed: int, seeds: int, minutes: float) -> dict[str, Any]:
    """Put one break in, and try seeds until one notices. To be called in a process of its own: the break stays in."""
    mutation = BY_NAME[name]
    mutation.apply()
    for seed in range(first_seed, first_seed + seeds):
        report, _ = simulate_seed(Options(seed, max(minutes, mutation.minutes), mutation.faults, mutation.learner))
        if report["broken"]:
            first = report["broken"][0]
            return {"name": name, "seed": seed, "by": first["invariant"], "at_s": first["at_s"], "what": first["what"],
                    "wanted": list(mutation.caught_by), "noticed": first["invariant"] in mutation.caught_by}  # fmt: skip
    return {"name": name, "seed": None, "by": "", "at_s": 0.0, "what": "", "wanted": list(mutation.caught_by), "noticed": False}


def in_a_process(name: str, first_seed: int, seeds: int, minutes: float) -> dict[str, Any]:
    """The same in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(hunt, (name, first_seed, seeds, minutes))


def main() -> int:
    """All breaks, or one; a table on standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    missed = 0
    for name in [given.only] if given.only else list(BY_NAME):
        found = in_a_process(name, given.first_seed, given.seeds, given.minutes)
        missed += not found["noticed"]
        if given.markdown:
            mutation = BY_NAME[name]
            sys.stdout.write(f"| {', '.join(mutation.caught_by)} | {mutation.sentence} | {found['by']} | {found['seed']} | {found['at_s']:.0f} |\n")
        else:
            sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
