"""The trailing stop: follows the highest trusted mark, sells when it is hit, and waits for the long-term agent."""

from decimal import Decimal

from agents.desk.stops import Stops
from agents.desk.wishes import LongTermWish
from tests.desk.world import BTC, World


def wish(distance):
    return LongTermWish(BTC, 0, 1 << 62, (0.0,) * 4, 0.5, 0.1, 1.0, (1.0, 0.0, 0.0), distance)


def held():
    world, stops = World(), Stops()
    world.own(BTC, 0.1)
    stops.wish(wish(0.02))
    stops.watch(world.market, world.ledger)
    return world, stops, world.target({BTC: 0.1})


def test_a_fall_from_the_highest_mark_takes_the_wish_away_until_the_agent_speaks():
    world, stops, target = held()
    top = world.mark(BTC) * Decimal("1.05")
    world.book(BTC, top)
    stops.watch(world.market, world.ledger)
    world.book(BTC, top * Decimal("0.985"))
    stops.watch(world.market, world.ledger)
    assert stops.cut(target) is target
    world.book(BTC, top * Decimal("0.975"))
    stops.watch(world.market, world.ledger)
    assert stops.cut(target).weights[BTC] == 0.0
    assert stops.levels(world.at)[BTC][0] == 0.02
    stops.wish(wish(0.05))
    assert stops.cut(target) is target


def test_without_a_position_nothing_is_stopped():
    world, stops = World(), Stops()
    stops.wish(wish(0.02))
    world.book(BTC, world.mark(BTC) * Decimal("0.5"))
    stops.watch(world.market, world.ledger)
    target = world.target({BTC: 0.1})
    assert stops.cut(target) is target
    assert stops.levels(world.at) == {}
