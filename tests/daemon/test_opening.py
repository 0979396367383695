"""What a session starts with where nothing came before, and what leaves the book when the account does not hold it any more."""

from decimal import Decimal

import pytest

from agents.core.errors import ConfigError
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Fill, Listing
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import OrderId
from daemon import opening

BTC, USDT, COIN = Symbol("BTC/USDT"), Currency("USDT"), Currency("BTC")
LISTED = Instrument(BTC, COIN, USDT, Decimal("0.01"), Decimal("0.001"))
D = Decimal


def after(adjustments: list[Adjustment]) -> Ledger:
    ledger = Ledger(USDT)
    ledger.apply(Listing(UNSTAMPED, LISTED))
    for adjustment in adjustments:
        ledger.apply(adjustment)
    return ledger


def test_the_capital_is_the_allocation_or_what_is_there_and_the_mirror_is_the_whole_account() -> None:
    rich = after(opening.fresh(USDT, D(1000), {USDT: D(5000), COIN: D(2)}))
    assert (rich.capital, rich.balances[USDT], rich.balances[COIN], rich.position(BTC)) == (D(1000), D(5000), D(2), D(0))
    assert after(opening.fresh(USDT, D(1000), {USDT: D(300)})).capital == D(300)


def test_coins_that_the_owner_took_leave_the_book_at_their_cost_and_nothing_else_does() -> None:
    ledger = after(opening.fresh(USDT, D(1000), {USDT: D(5000)}))
    ledger.apply(Fill(UNSTAMPED, BTC, 0, OrderId("a"), "1", Side.BUY, D(100), D(4), D(0), USDT, True))
    assert opening.given_up(ledger, BTC) == []
    ledger.apply(Adjustment(UNSTAMPED, COIN, D(-3), AdjustmentKind.WITHDRAWAL, "withdrawal 7"))
    equity = ledger.equity({BTC: D(100)})
    for change in opening.given_up(ledger, BTC):
        ledger.apply(change)
    assert (ledger.position(BTC), ledger.average_price(BTC), ledger.cash()) == (D(1), D(100), D(900))
    assert ledger.equity({BTC: D(100)}) == equity == D(1000)
    assert opening.given_up(ledger, BTC) == []


def test_what_is_held_in_a_market_that_is_not_traded_any_more_is_refused_and_dust_is_not() -> None:
    held = Adjustment(UNSTAMPED, COIN, D("0.3"), AdjustmentKind.CARRIED, "100")
    with pytest.raises(ConfigError, match=r"0\.3 BTC .* add BTC/USDT"):
        opening.require_traded([held], [Symbol("ETH/USDT")], USDT, D(10_000))
    opening.require_traded([held], [BTC], USDT, D(10_000))
    opening.require_traded([held], [Symbol("ETH/USDT")], USDT, D(100_000))
    money = Adjustment(UNSTAMPED, USDT, D(5000), AdjustmentKind.CARRIED, "cost")
    opening.require_traded([money], [Symbol("ETH/USDT")], USDT, D(10))
