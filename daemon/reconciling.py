"""The ledger held against the venue while the session runs: what is explainable is booked, what is not stops new risk.

At quiet moments only: a currency counts where two reads of the venue agree, everything told in between has reached the ledger, and
no order of ours is on its way in it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

import structlog

from agents.core.errors import DataError, VenueError
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Event, Reconciled
from agents.core.instruments import NS, ZERO, Currency, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import OrderState
from daemon import opening
from daemon.recovery import Unexplained
from daemon.venues.parse import Transfer
from daemon.venues.reconcile import Difference, differences, explain, rounding
from daemon.venues.truth import LOOK_BACK_NS

log = structlog.get_logger()

INTERVAL_S = 10.0
PERSISTENT = 3
"""Looks in a row that must find a difference before it is told: exchanges are eventually consistent."""
DRAIN_S = 5.0
"""How long what was told may take to reach the ledger."""
AGAIN_S = 2.0
"""Pause after a look that failed, or that money on its way disturbed."""
LATE_NS = 60 * NS
"""Fills that are missing for so long are not on their way any more: the difference that they make is told."""
_ON_THE_WAY = frozenset({OrderState.PENDING, OrderState.UNKNOWN})


class Account(Protocol):
    """What is asked of the venue."""

    async def balances(self) -> Mapping[Currency, Decimal]: ...
    async def sweep(self, symbols: Iterable[Symbol]) -> None: ...
    async def compare(self) -> None: ...
    async def transfers(self, since: int) -> list[Transfer]: ...
    def close_denied(self) -> None: ...
    @property
    def denied(self) -> Sequence[str]: ...
    @property
    def rivals(self) -> Sequence[str]: ...
    @property
    def strays(self) -> Sequence[str]: ...
    @property
    def waiting(self) -> int: ...


class Reconciler:
    """One session's comparison. `ledger` is the engine's own, `tell` the door; `pending` says how many facts wait at the door.

    `told` is what the start left unexplained, `booked` the transfers that are in the ledger already; `halt` takes a reason.
    """

    def __init__(
        self, venue: Account, ledger: Ledger, tell: Callable[[Event], None], pending: Callable[[], int], clock: Callable[[], int],
        halt: Callable[[str], object], *, interval_s: float = INTERVAL_S, told: Unexplained = (), booked: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self._venue, self._ledger, self._tell, self._pending, self._clock, self._halt = venue, ledger, tell, pending, clock, halt
        self._interval_s = interval_s
        self._told: Unexplained = told
        self._booked = set(booked)
        self._since = clock()
        self._persists: Counter[Currency] = Counter()
        self._found: dict[Currency, Difference] = {}
        self._rivals: set[str] = set()
        self._looked_at: int | None = None
        self._transfers_due = 0.0
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Look every interval, for ever."""
        pause_s = self._interval_s
        while True:
            await asyncio.sleep(pause_s)
            pause_s = self._interval_s if await self.look() else min(AGAIN_S, self._interval_s)

    async def look(self) -> bool:
        """One comparison; whether all of it could be judged. A venue that cannot be reached is no difference: the last look ages."""
        try:
            await self._venue.compare()
            self._guard()
            theirs = await self._venue.balances()
            found, skipped = self._differences(theirs), frozenset[Currency]()
            if found:
                found, skipped = await self._explain(theirs, found)
        except (VenueError, DataError, TimeoutError) as error:
            self.counts["failed"] += 1
            log.warning("not_reconciled", error=str(error)[:200])
            return False
        self.counts["looks"] += 1
        self._looked_at = self._clock()
        self._judge(found, skipped)
        return not skipped

    def status(self) -> dict[str, Any]:
        """For metrics and the view: seconds since the last whole look (None: none yet), and what it found."""
        age = None if self._looked_at is None else (self._clock() - self._looked_at) / NS
        return {
            "age_s": age,
            "mismatches": len(self._told),
            "clean": not self._told,
            "differences": {c: {"ledger": str(ours), "venue": str(theirs)} for c, ours, theirs in self._told},
            "watched": sorted(self._found.keys() - {c for c, _, _ in self._told}),
            "strays": list(self._venue.strays),
            "rivals": sorted(self._rivals),
            "denied": list(self._venue.denied),
            **self.counts,
        }

    def report(self) -> dict[str, Any]:
        """What `apply` would do: `quartet reconcile` on a running daemon."""
        corrections = {d.currency: str(d.amount) for d in self._found.values() if d.amount}
        return {**self.status(), "corrections": corrections, "applied": False}

    def apply(self) -> dict[str, Any]:
        """The operator's word: book every standing difference as a correction, and close orders that the exchange denies.

        The next look says whether the account is clean then.
        """
        report = {**self.report(), "applied": True}
        for difference in self._found.values():
            if difference.amount:
                note = "booked on the operator's word"
                self._tell(Adjustment(UNSTAMPED, difference.currency, difference.amount, AdjustmentKind.CORRECTION, note))
        self._venue.close_denied()
        self._found.clear()
        self._persists.clear()
        return report

    # -- inside --------------------------------------------------------------------------------------------------

    def _guard(self) -> None:
        """Another daemon under our name: neither may go on believing that it is alone."""
        fresh = set(self._venue.rivals) - self._rivals
        if fresh:
            self._rivals |= fresh
            log.error("another_daemon", orders=sorted(fresh), so="halted")
            self._halt(
                f"another daemon trades this account under this instance's name (its order {min(fresh)} is open): stop one of them, "
                "or give it another `instance`"
            )

    def _differences(self, theirs: Mapping[Currency, Decimal]) -> dict[Currency, Difference]:
        ledger = self._ledger
        allowed = rounding({**ledger.balances, **theirs}, ledger.instruments, ledger.fill_count)
        return {found.currency: found for found in differences(ledger.balances, theirs, allowed)}

    async def _explain(
        self, before: Mapping[Currency, Decimal], found: Mapping[Currency, Difference]
    ) -> tuple[dict[Currency, Difference], frozenset[Currency]]:
        """Sweep, read again, ask for transfers: what is left, and the currencies that were not quiet."""
        await self._venue.sweep(self._symbols(found))
        drained = await self._drain()
        theirs = await self._venue.balances()
        moved = {c for c in {*before, *theirs} if before.get(c, ZERO) != theirs.get(c, ZERO)}
        left = self._differences(theirs)
        noisy = frozenset(left) & frozenset(moved | self._on_the_way() | (set() if drained else set(left)))
        left = {currency: difference for currency, difference in left.items() if currency not in noisy}
        if left and await self._book_transfers(left):
            await self._drain()
            left = {c: d for c, d in self._differences(theirs).items() if c in left}
        self._give_up(theirs)
        return left, noisy

    def _symbols(self, found: Iterable[Currency]) -> list[Symbol]:
        """Markets whose trades may explain a difference in these currencies: their own, or any where it may be a fee."""
        wanted = set(found)
        own = {c for i in self._ledger.instruments.values() for c in (i.base, i.quote)}
        touched = [s for s, i in self._ledger.instruments.items() if {i.base, i.quote} & wanted or wanted - own]
        return sorted(touched)

    def _on_the_way(self) -> set[Currency]:
        """Currencies in which an order of ours is on its way, or has fills that have not come yet."""
        late = self._clock() - LATE_NS
        busy = (o for o in self._ledger.live_orders() if o.state in _ON_THE_WAY or (o.reported > o.filled and o.updated > late))
        found = (self._ledger.instruments.get(order.place.symbol) for order in busy)
        return {currency for instrument in found if instrument is not None for currency in (instrument.base, instrument.quote)}

    async def _drain(self) -> bool:
        """Wait until everything that the venue has told is in the ledger; whether it is."""
        try:
            async with asyncio.timeout(DRAIN_S):
                while self._venue.waiting or self._pending():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True

    async def _book_transfers(self, left: Mapping[Currency, Difference]) -> bool:
        """Tell the deposits and withdrawals that explain a difference; whether there were any. Asked for once a minute at most."""
        now = asyncio.get_running_loop().time()
        if now < self._transfers_due and not any(self._persists[currency] + 1 >= PERSISTENT for currency in left):
            return False
        self._transfers_due = now + 60.0
        listed = await self._venue.transfers(self._since - LOOK_BACK_NS)
        unbooked = [transfer for transfer in listed if transfer.transfer_id not in self._booked]
        found = explain({currency: difference.amount for currency, difference in left.items()}, unbooked, self._since)
        for transfer in found:
            self._booked.add(transfer.transfer_id)
            self._tell(transfer.adjustment())
            log.info("transfer_booked", transfer=transfer.transfer_id, currency=transfer.currency, amount=str(transfer.amount))
        return bool(found)

    def _give_up(self, theirs: Mapping[Currency, Decimal]) -> None:
        """Coins that the owner took leave our book."""
        for symbol in self._ledger.symbols():
            if symbol in self._ledger.instruments and not self._ledger.live_orders(symbol):
                for change in opening.given_up(self._ledger, symbol, theirs):
                    self._tell(change)
                    log.warning("position_given_up", symbol=symbol, currency=change.currency, amount=str(change.amount))

    def _judge(self, found: Mapping[Currency, Difference], skipped: frozenset[Currency]) -> None:
        """Tell what persists, and tell when all is clean again."""
        kept = {c: d for c, d in self._found.items() if c in skipped}
        self._persists = Counter({c: self._persists[c] + (c in found) for c in {*found, *kept}})
        self._found = {**kept, **found}
        standing = tuple(
            (d.currency, d.ledger, d.venue)
            for d in sorted(self._found.values(), key=lambda d: d.currency) if self._persists[d.currency] >= PERSISTENT
        )  # fmt: skip
        note = "no trade, order or transfer explains it"
        if not standing and (denied := list(self._venue.denied)):
            quote, total = self._ledger.quote, self._ledger.balances[self._ledger.quote]
            standing, note = ((quote, total, total),), f"the exchange denies {len(denied)} orders that it had accepted, such as {denied[0]}"
        if standing and not self._same(standing):
            self._say(standing, note)
        elif not standing and not self._found and not skipped and self._told:
            self._say((), "clean again")

    def _same(self, standing: Unexplained) -> bool:
        """Whether the same amounts are missing as were told; totals themselves move on while we reduce."""
        return {c: theirs - ours for c, ours, theirs in standing} == {c: theirs - ours for c, ours, theirs in self._told}

    def _say(self, standing: Unexplained, note: str) -> None:
        self._told = standing
        self.counts["told"] += 1
        self._tell(Reconciled(UNSTAMPED, standing, note))
        say = log.error if standing else log.info
        say("reconciled", clean=not standing, note=note, differences=[f"{c}: ledger {ours}, venue {theirs}" for c, ours, theirs in standing])
