"""What is measured of a session, from a real engine's facts and effects."""

import asyncio
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from agents.core.events import NewWeights, OrderUpdate, Stamp
from agents.core.instruments import Side, Symbol
from agents.core.orders import OrderId, OrderState, Place, TimeInForce
from agents.desk.decision import Decision, Effects
from agents.desk.projection import Bound
from agents.engine import Engine
from daemon.measures import BUCKETS_S, Histogram, Measures
from daemon.settings import Settings
from daemon.wiring import engine_config

SECOND = 1_000_000_000
PLACE = Place(OrderId("q-main-1-1-0"), Symbol("BTC/USDT"), Side.BUY, Decimal(1), Decimal(10), TimeInForce.GTC)


def measures(now: list[int]) -> Measures:
    return Measures(Engine(engine_config(Settings(), (Symbol("BTC/USDT"),), 1, 0.0)), lambda: now[0])


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_counts_every_duration_once(durations):
    histogram = Histogram()
    for each in durations:
        histogram.add(each)
    found = dict(histogram.describe()["buckets"])
    assert found["+Inf"] == len(durations)
    for bound in BUCKETS_S:
        assert found[repr(bound)] == sum(each <= bound for each in durations)


def test_latency_counts_from_the_stamp_and_acknowledgement_to_the_first_word():
    now = [int(1.02 * SECOND)]
    found = measures(now)
    stamp = Stamp(SECOND, 1)
    decision = Decision(1, stamp, 0, ("long_term",), (PLACE,))
    found.tell(NewWeights(stamp, 1, "", "", b""), Effects((PLACE,), (), decision))
    for seconds, state in ((1.001, OrderState.PENDING), (1.3, OrderState.OPEN), (9.0, OrderState.FILLED)):
        found.tell(OrderUpdate(Stamp(int(seconds * SECOND), 2), PLACE.order_id, PLACE.symbol, state), Effects())
    told = found.describe()
    assert (dict(told["decision_latency"]["buckets"])["0.025"], dict(told["decision_latency"]["buckets"])["0.01"]) == (1, 0)
    assert (dict(told["acknowledgement"]["buckets"])["0.5"], dict(told["acknowledgement"]["buckets"])["+Inf"]) == (1, 1)


def test_what_bound_and_which_policy_serves():
    now = [10 * SECOND]
    found = measures(now)
    cuts = (Bound("cvar", None, 0.1), Bound("gross", None, 0.2))
    decision = Decision(1, Stamp(4 * SECOND, 1), 0, (), (), cuts=cuts)
    found.tell(NewWeights(Stamp(4 * SECOND, 1), 1, "", "", b""), Effects(decision=decision, swapped=True))
    told = found.describe()
    assert (told["bindings"], told["policy_age_s"]) == ({"cvar": 1, "gross": 1}, 6.0)


async def test_a_loop_that_blocks_is_seen():
    found = measures([0])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.watch_loop())
        await asyncio.sleep(0.05)
        until = asyncio.get_running_loop().time() + 0.5
        while asyncio.get_running_loop().time() < until:
            pass
        await asyncio.sleep(0.05)
        task.cancel()
    assert dict(found.lag.describe()["buckets"])["0.1"] == 0
    assert dict(found.lag.describe()["buckets"])["+Inf"] == 1
