"""What a session starts with: its capital, the account's balances, and what an earlier session of the same book left."""

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Fill, Listing
from agents.core.instruments import ZERO, Currency
from agents.core.ledger import Ledger
from daemon.journal import JournalReader


def fresh(quote: Currency, allocation: Decimal, balances: Mapping[Currency, Decimal]) -> list[Adjustment]:
    """Opening balances of the whole account, and the capital: the allocation, or what is there of it."""
    capital = min(allocation, balances.get(quote, ZERO))
    return [*_mirror(balances), Adjustment(UNSTAMPED, quote, capital, AdjustmentKind.CAPITAL)]


def carried(quote: Currency, allocation: Decimal, balances: Mapping[Currency, Decimal], left: Ledger) -> list[Adjustment]:
    """The same, with the positions of the earlier session, as far as the account still holds the coins.

    The capital stays what it was; an allocation that was lowered takes effect, one that was raised only as far as there is money.
    """
    result = _mirror(balances)
    flows = ZERO
    for symbol in left.symbols():
        instrument = left.instruments[symbol]
        quantity = min(left.position(symbol), balances.get(instrument.base, ZERO))
        if quantity > 0:
            price = left.average_price(symbol)
            flows -= quantity * price
            result.append(Adjustment(UNSTAMPED, instrument.base, quantity, AdjustmentKind.CARRIED, str(price)))
    result.append(Adjustment(UNSTAMPED, quote, flows, AdjustmentKind.CARRIED, "cost of what was carried"))
    capital = max(min(allocation, balances.get(quote, ZERO) - flows), -flows)
    return [*result, Adjustment(UNSTAMPED, quote, capital, AdjustmentKind.CAPITAL)]


def left_by(folder: Path, origin: str) -> Ledger | None:
    """The ledger at the end of the latest session of this folder that traded the account `origin`, from its own record.

    None when there is none, or when it ended flat.
    """
    if not (folder / "journal.sqlite").is_file():
        return None
    reader = JournalReader(folder)
    for row in reversed(reader.sessions()):
        if row.config.get("origin") == origin:
            ledger = Ledger(Currency(row.config["engine"]["quote"]))
            for event in reader.facts(row.epoch):
                if isinstance(event, Fill | Adjustment | Listing):
                    ledger.apply(event)
            return ledger if ledger.symbols() else None
    return None


def _mirror(balances: Mapping[Currency, Decimal]) -> list[Adjustment]:
    return [
        Adjustment(UNSTAMPED, currency, amount, AdjustmentKind.OPENING)
        for currency, amount in sorted(balances.items())
        if amount
    ]


def identity(parts: Sequence[str]) -> str:
    """One account at one exchange, as a digest: it is written down, and a key is part of it."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()
