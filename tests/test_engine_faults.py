"""What was lived under a fault is told apart by the engine, so that nobody learns from it."""

from decimal import Decimal

import pytest

from agents.core.events import UNSTAMPED, Event, FeedGap, OrderUpdate, Reconciled
from agents.core.instruments import Currency, Symbol
from agents.core.orders import OrderId, OrderState
from agents.market.observation import Experience
from tests.test_engine import BTC, ETH, World

REFUSED = OrderId("q-test-1-1-0")
DIFFERS = ((Currency("USDT"), Decimal(5), Decimal(4)),)


def lived(world: World, seconds: float) -> dict[Symbol | None, list[bool]]:
    """By symbol whether the market maker's rows of these market seconds are quarantined."""
    rows: list[Experience] = []
    step = world.engine.step

    def noted(event: Event):  # type: ignore[no-untyped-def]
        effects = step(event)
        rows.extend(effects.experiences)
        return effects

    world.engine.step = noted  # type: ignore[method-assign]
    world.pass_time(seconds)
    world.engine.step = step  # type: ignore[method-assign]
    found: dict[Symbol | None, list[bool]] = {}
    for row in rows:
        if row.agent == "market_making":
            found.setdefault(row.symbol, []).append(row.quarantined)
    return found


@pytest.fixture
def world() -> World:
    made = World()
    made.pass_time(60)
    return made


@pytest.mark.parametrize(
    ("event", "btc", "eth"),
    [
        (FeedGap(UNSTAMPED, BTC, "trades", "test"), True, False),
        (Reconciled(UNSTAMPED, DIFFERS), True, True),
        (Reconciled(UNSTAMPED, ()), False, False),
        (OrderUpdate(UNSTAMPED, REFUSED, ETH, OrderState.REJECTED, reason="throttled"), False, True),
        (OrderUpdate(UNSTAMPED, REFUSED, ETH, OrderState.REJECTED, reason="filter"), False, False),
        (OrderUpdate(UNSTAMPED, REFUSED, ETH, OrderState.UNKNOWN), False, True),
    ],
)
def test_a_fault_between_two_decisions_quarantines_what_it_concerns(world: World, event: Event, btc: bool, eth: bool) -> None:
    lived(world, 5)
    world.tell(event)
    found = lived(world, 6)
    assert (found[BTC][0], found[ETH][0]) == (btc, eth)


def test_rows_count_again_once_the_account_is_reconciled(world: World) -> None:
    world.tell(Reconciled(UNSTAMPED, DIFFERS))
    assert all(lived(world, 20)[BTC])
    world.tell(Reconciled(UNSTAMPED, ()))
    assert lived(world, 25)[BTC][-1] is False
