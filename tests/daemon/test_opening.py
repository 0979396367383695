"""What a session starts with where nothing came before, and what leaves the book when the account does not hold it any more."""

from decimal import Decimal

import pytest

from agents.core.errors import ConfigError
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Event, Fill, Listing
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
    assert opening.given_up(ledger, BTC, {}) == []
    ledger.apply(Adjustment(UNSTAMPED, COIN, D(-3), AdjustmentKind.WITHDRAWAL, "withdrawal 7"))
    equity = ledger.equity({BTC: D(100)})
    assert opening.given_up(ledger, BTC, {COIN: D(4)}) == [], "the exchange has them, whatever explains it"
    for change in opening.given_up(ledger, BTC, {}):
        ledger.apply(change)
    assert (ledger.position(BTC), ledger.average_price(BTC), ledger.cash()) == (D(1), D(100), D(900))
    assert ledger.equity({BTC: D(100)}) == equity == D(1000)
    assert opening.given_up(ledger, BTC, {}) == []


def carried(quantity: str, price: str = "100") -> list[Event]:
    """A recovered ledger that goes on with a position bought for that price."""
    cost = Adjustment(UNSTAMPED, USDT, -D(quantity) * D(price), AdjustmentKind.CARRIED, "what trading has moved so far")
    return [Listing(UNSTAMPED, LISTED), Adjustment(UNSTAMPED, COIN, D(quantity), AdjustmentKind.CARRIED, price), cost]


def test_what_is_held_in_a_market_that_is_not_traded_any_more_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.3 BTC .* add BTC/USDT"):
        opening.untraded(carried("0.3"), [Symbol("ETH/USDT")], USDT, D(10_000))
    assert opening.untraded(carried("0.3"), [BTC], USDT, D(10_000)) == []
    missed = Fill(UNSTAMPED, BTC, 0, OrderId("a"), "1", Side.BUY, D(100), D(4), D(0), USDT, True)
    with pytest.raises(ConfigError, match=r"4\.01 BTC"):
        opening.untraded([*carried("0.01"), missed], [Symbol("ETH/USDT")], USDT, D(10_000))


def test_dust_in_a_market_that_is_not_traded_any_more_leaves_the_book_so_that_the_equity_stays_known() -> None:
    opened = [*opening.fresh(USDT, D(1000), {USDT: D(5000)}), *carried("0.001")]
    before, ledger = Ledger(USDT), Ledger(USDT)
    for event in opened:
        before.apply(event)
    for event in (*opened, *opening.untraded(opened, [Symbol("ETH/USDT")], USDT, D(1000))):
        ledger.apply(event)
    assert ledger.symbols() == []
    assert ledger.equity({}) == before.equity({BTC: D(100)}) == D(1000)
    assert opening.untraded(opened, [Symbol("ETH/USDT")], USDT, D(1000))[0].amount == D("-0.001")
