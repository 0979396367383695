"""Ledger against venue: what differs, and what may explain a difference. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations

from agents.core.instruments import ZERO, Currency, Instrument, Symbol
from daemon.venues.parse import Transfer

SINGLE = Decimal(2) ** -50
"""ccxt tells totals as floats: beyond fifteen digits their last one is noise."""
LAST_PLACE = Decimal("1e-8")
"""Where a market's grid is finer than this, exchanges round what each fill moves to it."""
MOST_COMBINED = 4
"""Transfers that may explain one difference together, when the newest alone do not."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One currency in which the venue and the ledger disagree."""

    currency: Currency
    ledger: Decimal
    venue: Decimal

    @property
    def amount(self) -> Decimal:
        """What the ledger lacks; negative when it has too much."""
        return self.venue - self.ledger


def differences(
    ledger: Mapping[Currency, Decimal], venue: Mapping[Currency, Decimal], tolerance: Decimal | Mapping[Currency, Decimal] = ZERO
) -> tuple[Difference, ...]:
    """Every currency whose two totals are more than `tolerance` apart, sorted by name; a missing currency counts as zero."""
    found = []
    for currency in sorted({*ledger, *venue}):
        ours, theirs = ledger.get(currency, ZERO), venue.get(currency, ZERO)
        allowed = tolerance if isinstance(tolerance, Decimal) else tolerance.get(currency, ZERO)
        if abs(theirs - ours) > allowed:
            found.append(Difference(currency, ours, theirs))
    return tuple(found)


def total_difference(ledger: Mapping[Currency, Decimal], venue: Mapping[Currency, Decimal]) -> Decimal:
    """Sum over currencies of |ledger - venue|, each in its own unit: zero or something is wrong."""
    return sum((abs(found.amount) for found in differences(ledger, venue)), ZERO)


def rounding(totals: Mapping[Currency, Decimal], instruments: Mapping[Symbol, Instrument], fills: int) -> dict[Currency, Decimal]:
    """What rounding alone may make two totals differ by. It is no tolerance for anything else: a tenth of a cent is a difference.

    The last digit of a float; and in quote currencies of markets whose prices times quantities have more than eight decimals, one
    unit in the eighth for each fill.
    """
    fine = {i.quote for i in instruments.values() if (i.tick * i.lot) % LAST_PLACE}
    return {c: abs(total) * SINGLE + (fills * LAST_PLACE if c in fine else ZERO) for c, total in totals.items()}


def explain(missing: Mapping[Currency, Decimal], transfers: Iterable[Transfer], since: int) -> list[Transfer]:
    """The transfers that explain what the ledger lacks by currency, exactly.

    One after `since` (ns) has happened for certain. Others may be in the ledger already, as they are dated by their sender: they
    count only where they close the difference to the last digit.
    """
    found: list[Transfer] = []
    candidates = list(transfers)
    for currency, amount in sorted(missing.items()):
        here = [transfer for transfer in candidates if transfer.currency == currency]
        certain = [transfer for transfer in here if transfer.time > since]
        found += _closing(amount, certain, [transfer for transfer in here if transfer.time <= since])
    return sorted(found, key=lambda transfer: (transfer.time, transfer.transfer_id))


def _closing(amount: Decimal, certain: Sequence[Transfer], others: Sequence[Transfer]) -> list[Transfer]:
    rest = amount - sum((transfer.amount for transfer in certain), ZERO)
    newest = sorted(others, key=lambda transfer: (-transfer.time, transfer.transfer_id))[:16]
    for count in range(MOST_COMBINED + 1):
        for some in combinations(newest, count):
            if sum((transfer.amount for transfer in some), ZERO) == rest:
                return [*certain, *some]
    for count in range(1, MOST_COMBINED + 1):  # one that is announced may not be credited yet
        for some in combinations([*certain, *newest][:16], count):
            if sum((transfer.amount for transfer in some), ZERO) == amount:
                return list(some)
    return list(certain)
