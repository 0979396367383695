"""What a ledger opens with where nothing came before, which account it is of, and what leaves its book."""

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal

from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind
from agents.core.instruments import ZERO, Currency, Symbol
from agents.core.ledger import Ledger


def fresh(quote: Currency, allocation: Decimal, balances: Mapping[Currency, Decimal]) -> list[Adjustment]:
    """Opening balances of the whole account, and the capital: the allocation, or what is there of it."""
    capital = min(allocation, balances.get(quote, ZERO))
    mirror = [Adjustment(UNSTAMPED, c, amount, AdjustmentKind.OPENING) for c, amount in sorted(balances.items()) if amount]
    return [*mirror, Adjustment(UNSTAMPED, quote, capital, AdjustmentKind.CAPITAL)]


def given_up(ledger: Ledger, symbol: Symbol) -> list[Adjustment]:
    """What takes the part of a position that the account does not hold any more out of the book, at its average price.

    Nothing where the mirror of the account covers the position. Neither profit nor loss: the coins went to the account's owner.
    """
    instrument, position = ledger.instruments[symbol], ledger.position(symbol)
    lacking = position - max(ledger.balances.get(instrument.base, ZERO), ZERO)
    if position <= 0 or lacking <= 0:
        return []
    price = ledger.average_price(symbol)
    note = f"{lacking} {instrument.base} are no longer in the account"
    return [
        Adjustment(UNSTAMPED, instrument.base, -lacking, AdjustmentKind.CARRIED, str(price)),
        Adjustment(UNSTAMPED, ledger.quote, lacking * price, AdjustmentKind.CARRIED, note),
    ]


def identity(parts: Sequence[str]) -> str:
    """One account at one exchange, as a digest: it is written down, and a key is part of it."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()
