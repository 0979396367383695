"""Ledger against venue: what differs, and what that difference may mean. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from agents.core.instruments import ZERO, Currency


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
    ledger: Mapping[Currency, Decimal], venue: Mapping[Currency, Decimal], tolerance: Decimal = ZERO
) -> tuple[Difference, ...]:
    """Every currency whose two totals are more than `tolerance` apart, sorted by name; a missing currency counts as zero."""
    found = []
    for currency in sorted({*ledger, *venue}):
        ours, theirs = ledger.get(currency, ZERO), venue.get(currency, ZERO)
        if abs(theirs - ours) > tolerance:
            found.append(Difference(currency, ours, theirs))
    return tuple(found)


def total_difference(ledger: Mapping[Currency, Decimal], venue: Mapping[Currency, Decimal]) -> Decimal:
    """Sum over currencies of |ledger - venue|, each in its own unit: zero or something is wrong."""
    return sum((abs(found.amount) for found in differences(ledger, venue)), ZERO)
