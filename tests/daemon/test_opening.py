"""What a session starts with: never more than the allocation, and what was carried only as far as the account still holds it."""

from decimal import Decimal

from agents.core.events import UNSTAMPED, Adjustment, Fill, Listing
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


def test_a_carried_position_keeps_its_cost_and_shrinks_to_what_the_account_holds() -> None:
    left = after(opening.fresh(USDT, D(1000), {USDT: D(5000)}))
    left.apply(Fill(UNSTAMPED, BTC, 0, OrderId("a"), "1", Side.BUY, D(100), D(4), D(0), USDT, True))
    whole = after(opening.carried(USDT, D(1000), {USDT: D(4600), COIN: D(4)}, left))
    assert (whole.position(BTC), whole.average_price(BTC), whole.capital, whole.cash()) == (D(4), D(100), D(1000), D(600))
    assert whole.balances == {USDT: D(4600), COIN: D(4)}
    part = after(opening.carried(USDT, D(1000), {USDT: D(4600), COIN: D(1)}, left))
    assert (part.position(BTC), part.cash()) == (D(1), D(900))
