"""Without the lease the engine opens nothing, takes away what rests, keeps the stops, and leaves the operator's words alone."""

from agents.core.events import UNSTAMPED, CancelAll, Flatten, Leased, Resume
from agents.core.instruments import NS
from agents.core.orders import Cancel
from agents.desk.gate import is_stop
from agents.engine import Engine
from tests.engine_world import World, buys, cancels, places
from tests.test_engine_stops import held, hold, live_stop


def resting(world: World) -> set[str]:
    return {o.place.order_id for o in world.engine.ledger.live_orders() if not is_stop(o.place)}


def test_what_rests_goes_and_the_stop_stays_and_nothing_new_comes() -> None:
    world = held()
    stop = live_stop(world)
    assert stop is not None
    world.until(lambda: resting(world))
    before = resting(world)
    told = world.tell(Leased(UNSTAMPED, False))
    assert set(cancels(told)) == before and places(told) == []
    hold(world)
    later = world.pass_time(30)
    assert places(later) == [] and resting(world) == set() and live_stop(world) is not None
    assert stop.place.order_id not in cancels(later)
    assert not world.engine.halted, "the operator has said nothing"
    world.tell(Leased(UNSTAMPED, True))
    hold(world)
    assert buys(world.pass_time(60)), "held again, it trades again"
    assert world.violations == []


def test_a_flatten_waits_for_the_lease_and_its_stops_stay_meanwhile() -> None:
    world = held()
    assert live_stop(world) is not None
    world.tell(Leased(UNSTAMPED, False))
    world.tell(Flatten(UNSTAMPED, "test"))
    assert places(world.pass_time(20)) == [] and live_stop(world) is not None
    world.tell(Leased(UNSTAMPED, True))
    sold = world.pass_time(60)
    assert world.engine.flattening and places(sold) and all(place.reduce_only for place in places(sold))
    assert world.engine.flat()


def test_the_operators_word_to_cancel_everything_takes_stops_too() -> None:
    world = held()
    stop = live_stop(world)
    assert stop is not None
    world.tell(Leased(UNSTAMPED, False))
    assert stop.place.order_id in cancels(world.tell(CancelAll(UNSTAMPED, "test")))


def test_resume_is_no_lease() -> None:
    world = held()
    world.tell(Leased(UNSTAMPED, False))
    world.tell(Resume(UNSTAMPED))
    hold(world)
    assert places(world.pass_time(20)) == []


def test_before_it_is_warm_nothing_but_cancels_leaves() -> None:
    world = World()
    engine: Engine = world.engine
    world.tell(Leased(UNSTAMPED, False))
    sent = world.pass_time(30)
    assert all(isinstance(command, Cancel) for command in sent) and engine.leased is False
    assert world.now > 30 * NS
