"""What a ledger opens with where nothing came before, which account it is of, and what leaves its book."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal

from agents.core.errors import ConfigError
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Event
from agents.core.instruments import ZERO, Currency, Symbol
from agents.core.ledger import Ledger

DUST = Decimal("0.001")
"""Part of the capital below which a holding is what a sale left over: exchanges take no order for so little."""


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


def require_traded(opened: Iterable[Event], symbols: Collection[Symbol], quote: Currency, allocation: Decimal) -> None:
    """Raise ConfigError for what an earlier session holds in a market that is not traded any more: nobody would watch over it."""
    for event in opened:
        if not (isinstance(event, Adjustment) and event.kind is AdjustmentKind.CARRIED and event.currency != quote and event.amount > 0):
            continue
        worth = event.amount * Decimal(event.note or 0)
        if (symbol := Symbol(f"{event.currency}/{quote}")) not in symbols and worth > DUST * allocation:
            raise ConfigError(
                f"exchange.symbols: {event.amount.normalize():f} {event.currency} of an earlier session are held, and nobody would watch "
                f"over them: add {symbol} (flatten sells them), or sell them by hand"
            )
