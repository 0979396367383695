"""How a session on a real account starts: read the journal, ask the venue, recover, hand over what goes on. One path for every start."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Protocol

import structlog

from agents.core.errors import Unreachable
from agents.core.events import Adopted
from agents.core.instruments import Currency, Symbol
from agents.core.orders import OrderId, epoch_of, is_ours
from daemon.emergency import merge_into
from daemon.errors import Unsafe
from daemon.journal import JournalReader
from daemon.left import Left, known_orders, left_in
from daemon.left_plain import Inherited
from daemon.opening import DUST
from daemon.recovery import Recovery, recover
from daemon.store import examine
from daemon.venues.fills import Cursor
from daemon.venues.parse import OrderView, VenueKey
from daemon.venues.throttle import Backoff
from daemon.venues.truth import Asked, Truth

log = structlog.get_logger()

PATIENCE_S = 60.0
"""How long a start goes on asking an account that cannot be read; as long as for the exchange's markets."""


class Account(Protocol):
    """A venue that can be asked for the truth, and takes over what an earlier session left."""

    async def truth(self, asked: Asked) -> Truth: ...
    async def adopt(
        self, orders: Iterable[Adopted], cursors: Mapping[Symbol, Cursor], past: Mapping[VenueKey, OrderId] | None = None,
        epoch: int | None = None,
    ) -> None: ...  # fmt: skip
    async def cancel_strays(self, strays: Sequence[OrderView]) -> None: ...


async def recovered(
    folder: Path, venue: Account, quote: Currency, allocation: Decimal, instance: str, origin: str, *, same_account: bool = False,
    inherited: Inherited | None = None,
) -> Recovery:  # fmt: skip
    """What the session that starts now begins with; its orders are followed by the venue from here on, strays are gone.

    `origin` says which account it is (`opening.identity`); without one nothing is carried over. `same_account` is the operator's word
    that the last account traded here is this one under a new key or address. Under a lease `inherited` says which session this is, and what
    the last holder left: it counts where it is newer than the journal here. The folder must be held. Raises Occupied where another
    daemon trades this account, Unsafe where another account's holdings would be forgotten, Unreachable, DataError for a damaged journal.
    """
    reader, left, epoch = what_was_left(folder, origin)
    if inherited is not None:
        epoch = inherited.epoch - 1
        if inherited.left is not None and (left is None or inherited.left.epoch > left.epoch):
            taken = _required_same(inherited, origin, same_account=same_account)
            return await _taken_over(venue, taken, quote, allocation, instance, epoch)
    left, truth = await of_this_account(
        reader, left, lambda known: _patiently(venue, asked(known)), allocation if origin else None, same_account=same_account
    )
    recovery = recover(with_earlier(reader, left, truth, instance), truth, quote, allocation, instance, epoch=epoch)
    await hand_over(venue, recovery)
    say(recovery, left)
    return recovery


async def _taken_over(venue: Account, left: Left, quote: Currency, allocation: Decimal, instance: str, epoch: int) -> Recovery:
    """Go on from another daemon's end. It was told a moment before that end: the last orders may be missing in it, so every order
    with our name and an older number is ours. Those that are open and unknown go first; what they traded is a position of ours.
    """
    truth = await _patiently(venue, asked(left))
    unknown = [v for v in truth.opened if _before(v.order_id, instance, epoch) and OrderId(v.order_id) not in left.ledger.orders]
    if unknown:
        log.warning("orders_of_the_last_holder_cancelled", orders=[view.order_id for view in unknown])
        await venue.cancel_strays(unknown)
        truth = await _patiently(venue, asked(left))
    names = {trade.order_id for trade in truth.trades} | {view.order_id for view in (truth.owners or {}).values()}
    left = replace(left, earlier=frozenset(OrderId(name) for name in names if _before(name, instance, epoch)))
    recovery = recover(left, truth, quote, allocation, instance, epoch=epoch)
    await hand_over(venue, recovery)
    log.info("taken_over", session=left.epoch)
    say(recovery, left)
    return recovery


def _before(order_id: str, instance: str, epoch: int) -> bool:
    """Whether this is the name of an order of ours of a session up to `epoch`."""
    number = epoch_of(order_id) if is_ours(order_id, instance) else None
    return number is not None and number <= epoch


def _required_same(inherited: Inherited, origin: str, *, same_account: bool) -> Left:
    """What the last holder left. Raises Unsafe where it traded under another key or address, and nobody has said that it is one account."""
    assert inherited.left is not None
    if inherited.origin != origin and not same_account:
        raise Unsafe(
            "the last holder of this lease traded under another exchange, address or key: if it is the same account, start with"
            " --set safety.same_account=true; if not, give this daemon another `instance`"
        )
    return inherited.left


async def _patiently(venue: Account, wanted: Asked) -> Truth:
    """One failed request is no reason not to start. Raises Unreachable once the account could not be read for `PATIENCE_S`."""
    loop, backoff = asyncio.get_running_loop(), Backoff(0.5, 10.0)
    deadline = loop.time() + PATIENCE_S
    while True:
        try:
            return await venue.truth(wanted)
        except Unreachable as error:
            delay = backoff.failed()
            if loop.time() + delay > deadline:
                raise
            if backoff.failures == 1:
                log.warning("account_not_read", error=str(error)[:200], patience_s=PATIENCE_S)
            await asyncio.sleep(delay)


def what_was_left(folder: Path, origin: str) -> tuple[JournalReader | None, Left | None, int]:
    """(reader, what the account's last session left, newest session of all). Raises DataError for a damaged journal."""
    merge_into(folder)
    if examine(folder) is None:
        return None, None, 0
    reader = JournalReader(folder)
    epochs = [row.epoch for row in reader.sessions()]
    return reader, left_in(reader, origin) if origin else None, max(epochs, default=0)


async def of_this_account(
    reader: JournalReader | None, left: Left | None, read: Callable[[Left | None], Awaitable[Truth]], allocation: Decimal | None,
    *, same_account: bool = False,
) -> tuple[Left | None, Truth]:  # fmt: skip
    """What the last session of this account left, whatever its key or address was, and the truth read with that in view.

    With an `allocation` (None: nothing is going to be written) Unsafe is raised where another account's holdings would be forgotten,
    unless `same_account` is the operator's word that it is this one.
    """
    truth = await read(left)
    if (moved := _moved(reader, left, truth)) is not left:
        return moved, await read(moved)
    if allocation is None or left is not None or reader is None or (other := _last_of_another(reader)) is None:
        return left, truth
    if same_account:
        return other, await read(other)
    _require_nothing_held(other, allocation)
    log.warning("journal_of_another_account", carried_over="nothing: exchange, address or key have changed")
    return None, truth


def _moved(reader: JournalReader | None, left: Left | None, truth: Truth) -> Left | None:
    """`left`, or what a newer session under another address or key left, if an order of it that is open now proves the same account.

    Both of the order's ids must be those that the exchange lists: ours alone may have been used on another account, too.
    """
    newest = left.epoch if left is not None else 0
    rows = reversed(reader.sessions()) if reader is not None and truth.opened else ()
    for origin in dict.fromkeys(row.config.get("origin") for row in rows if row.epoch > newest):
        found = left_in(reader, origin) if reader is not None and origin else None
        if found is not None and found.epoch > newest and any(_is_of(found, view) for view in truth.opened):
            log.warning("account_moved", session=found.epoch, what="its address or key has changed; its orders are open here, so it goes on")
            return found
    return left


def _last_of_another(reader: JournalReader) -> Left | None:
    """What the newest session on any real account left; sessions on an exchange that lives and dies with them do not count."""
    origins = [row.config.get("origin") for row in reversed(reader.sessions())]
    return next((left_in(reader, origin) for origin in origins if origin), None)


def _require_nothing_held(other: Left, allocation: Decimal) -> None:
    """Raise Unsafe where another account's session left more than dust: to go on without it would be to forget it."""
    ledger = other.ledger
    held = [s for s in ledger.symbols() if ledger.position(s) * ledger.average_price(s) > DUST * allocation]
    if held:
        sums = ", ".join(f"{ledger.position(s).normalize():f} {ledger.instruments[s].base}" for s in held)
        raise Unsafe(
            f"the last session here traded another account (exchange, address or key have changed) and left {sums}: if it is the same "
            "account, start once with --set safety.same_account=true; if not, give this account a state folder of its own with --state"
        )


def _is_of(left: Left, view: OrderView) -> bool:
    order = left.ledger.orders.get(OrderId(view.order_id))
    return order is not None and order.venue_order_id == view.venue_order_id != "" and order.place.symbol == view.symbol


def asked(left: Left | None, patience_s: float = 0.0) -> Asked:
    """What has to be found out, given what was left."""
    if left is None:
        return Asked()
    orders = [order for order in left.ledger.orders.values() if order.live or order.remaining]
    return Asked(orders, left.cursors, left.at, patience_s)


def with_earlier(reader: JournalReader | None, left: Left | None, truth: Truth, instance: str) -> Left | None:
    """What was left, with the names of older sessions' orders whose trades have turned up only now."""
    if reader is None or left is None:
        return left
    names = {trade.order_id for trade in truth.trades} | {view.order_id for view in (truth.owners or {}).values()}
    unknown = {name for name in names if is_ours(name, instance) and OrderId(name) not in left.ledger.orders}
    epochs = {name: epoch for name in unknown if (epoch := epoch_of(name)) is not None}
    return replace(left, earlier=frozenset(known_orders(reader, epochs.keys(), epochs))) if epochs else left


async def hand_over(venue: Account, recovery: Recovery) -> None:
    """Strays go first, so that nothing of theirs fills unseen; then the venue follows what was adopted."""
    await venue.adopt(recovery.orders, recovery.cursors, recovery.past, recovery.epoch)
    await venue.cancel_strays(recovery.strays)


def say(recovery: Recovery, left: Left | None) -> None:
    """For the log: how the session starts."""
    for note in recovery.notes:
        log.warning("recovery", note=note)
    log.info(
        "recovered", carried_over=left is not None, adopted=len(recovery.orders), strays=len(recovery.strays),
        manual_orders=len(recovery.foreign), clean=not recovery.differences,
    )  # fmt: skip
    for currency, ours, theirs in recovery.differences:
        log.error("unexplained", currency=currency, ledger=str(ours), venue=str(theirs), so="risk is only reduced; quartet reconcile")
