"""What is left to another daemon says the same as the journal: recovery makes of both the same session."""

from decimal import Decimal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import DataError
from agents.core.events import UNSTAMPED, RiskRestored
from agents.core.instruments import Side
from daemon import left_plain
from daemon.latch import Latched
from daemon.left import Left
from daemon.left_plain import Legacy
from daemon.recovery import recover
from tests.daemon.recovery_world import ALLOCATION, BNB, COIN, USDT, World

D = Decimal
LATCH = Latched("halt", "by hand", 7)


def passed_on(left: Left, latch: Latched = LATCH) -> Legacy:
    return left_plain.read(left_plain.told(left.epoch, left.at, left.ledger, left.cursors, left.risk, left.transfers, "account", latch))


STEP = st.tuples(
    st.sampled_from(["place", "fill", "cancel", "deposit"]), st.integers(0, 9), st.integers(1, 40), st.booleans(), st.booleans(),
    st.sampled_from([USDT, COIN, BNB]),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.lists(STEP, max_size=14), st.lists(STEP, max_size=6))
def test_recovery_makes_the_same_of_what_was_passed_on(lived: list, dead: list) -> None:
    world = World()
    for alive, steps in ((True, lived), (False, dead)):
        world.alive = alive
        for what, which, size, arrives, told, currency in steps:
            world.now += 1_000_000_000
            ours = [order for order in world.orders if order.status == "open"]
            if what == "place" and alive:
                world.place(Side.BUY if which % 3 else Side.SELL, 90 + which, D(size) / 100, arrives=arrives, acknowledged=told)
            elif what == "fill" and ours:
                order = ours[which % len(ours)]
                world.execute(order, min(D(size) / 300, order.quantity - order.filled), (currency, D("0.0001")), told=told)
            elif what == "cancel" and ours and alive:
                world.cancel(ours[which % len(ours)], arrives=arrives, told=told)
            elif what == "deposit":
                world.transfer(USDT, D(size), listed=True, told=told)
    left = world.left()
    legacy = passed_on(left)
    truth = world.truth(left)
    one, other = (recover(each, truth, USDT, ALLOCATION, "main", epoch=1) for each in (left, legacy.left))
    assert other == one
    assert (legacy.origin, legacy.latch) == ("account", LATCH)


def test_the_risk_layers_memory_is_passed_on():
    left = World().left()
    risk = RiskRestored(UNSTAMPED, 1100.0, 1000.0, 0.1, "reduce")
    body = left_plain.told(3, 5, left.ledger, left.cursors, risk, (), "", LATCH)
    assert left_plain.read(body).left.risk == risk


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: kept.pop("cursors"), lambda kept: kept["facts"].append(["Nothing"]), lambda kept: kept.update(latch=["perhaps", "", 1]),
        lambda kept: kept["facts"].append(["Cancel", "q-main-1-1-0", "BTC/USDT"]), lambda kept: kept.update(risk=kept["facts"][0]),
    ],
)  # fmt: skip
def test_what_cannot_be_believed_is_refused(spoil):
    left = World().left()
    kept = orjson.loads(left_plain.told(1, 1, left.ledger, left.cursors, None, (), "", LATCH))
    left_plain.read(orjson.dumps(kept))
    spoil(kept)
    with pytest.raises(DataError, match="cannot be read"):
        left_plain.read(orjson.dumps(kept))
    with pytest.raises(DataError, match="cannot be read"):
        left_plain.read(b"[")
