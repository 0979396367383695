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


def given_up(ledger: Ledger, symbol: Symbol, venue: Mapping[Currency, Decimal]) -> list[Adjustment]:
    """What takes the part of a position that the account does not hold any more out of the book, at its average price.

    Nothing where the mirror of the account covers the position, or `venue`, the exchange's own totals: coins that nothing explains yet
    may be there besides. Neither profit nor loss: the coins went to the account's owner.
    """
    instrument, position = ledger.instruments[symbol], ledger.position(symbol)
    lacking = position - max(ledger.balances.get(instrument.base, ZERO), venue.get(instrument.base, ZERO), ZERO)
    if position <= 0 or lacking <= 0:
        return []
    return _out_of_the_book(ledger, symbol, lacking, f"{lacking} {instrument.base} are no longer in the account")


def _out_of_the_book(ledger: Ledger, symbol: Symbol, quantity: Decimal, note: str) -> list[Adjustment]:
    price, base = ledger.average_price(symbol), ledger.instruments[symbol].base
    return [
        Adjustment(UNSTAMPED, base, -quantity, AdjustmentKind.CARRIED, str(price)),
        Adjustment(UNSTAMPED, ledger.quote, quantity * price, AdjustmentKind.CARRIED, note),
    ]


def identity(parts: Sequence[str]) -> str:
    """One account at one exchange, as a digest: it is written down, and a key is part of it."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def untraded(opened: Iterable[Event], symbols: Collection[Symbol], quote: Currency, allocation: Decimal) -> list[Adjustment]:
    """What takes the dust of markets that are not traded any more out of the book: nothing tells its price, and without one no equity
    is known. The coins stay in the account, as its owner's. Raises ConfigError for more than dust: nobody would watch over it.
    """
    ledger, changes = Ledger(quote), list[Adjustment]()
    for event in opened:
        ledger.apply(event)
    for symbol in sorted(set(ledger.symbols()) - set(symbols)):
        position, base = ledger.position(symbol), ledger.instruments[symbol].base
        if position * ledger.average_price(symbol) > DUST * allocation:
            raise ConfigError(
                f"exchange.symbols: {position.normalize():f} {base} of an earlier session are held, and nobody would watch "
                f"over them: add {symbol} (flatten sells them), or sell them by hand"
            )
        changes += _out_of_the_book(ledger, symbol, position, f"{position.normalize():f} {base} of a market that is not traded any more")
    return changes
