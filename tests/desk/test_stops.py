"""The trailing stop: follows the highest trusted mark, sells when it is hit, and waits for the long-term agent."""

from dataclasses import replace
from decimal import Decimal

import pytest

from agents.core.instruments import Side
from agents.desk.stops import AT_ONCE, HOUR, Stops
from agents.desk.wishes import LONG_TERM, SHORT_TERM, LongTermWish
from tests.desk.world import BTC, World


def wish(distance, weight=0.1):
    return LongTermWish(BTC, 0, 1 << 62, (0.0,) * 4, 0.5, weight, 1.0, (1.0, 0.0, 0.0), distance)


def shared(world, long_term, short_term):
    """A target that both directional agents made."""
    target = world.target({BTC: long_term + short_term})
    return replace(target, contributions={BTC: {LONG_TERM: long_term, SHORT_TERM: short_term}})


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
    assert stops.hits() == frozenset(), "forgiven"
    assert stops.cut(target).weights[BTC] == 0.0, "but the long-term agent stays out for a while"


def test_after_a_stop_the_long_term_agent_stays_out_and_the_others_do_not():
    world, stops, _ = held()
    target = shared(world, 0.1, 0.02)
    stops.fire(BTC, target.time)
    stops.wish(wish(0.02))
    cut = stops.cut(target)
    assert (cut.weights[BTC], cut.contributions[BTC]) == (0.02, {SHORT_TERM: 0.02})
    day_later = replace(target, time=target.time + 24 * HOUR)
    assert stops.cut(day_later) is day_later
    stops.wish(wish(0.02, weight=0.0))
    assert stops.cut(target) is target, "it has changed its mind: what it wishes from here on is new"
    sold = shared(world, -0.1, 0.02)
    stops.fire(BTC, target.time)
    stops.wish(wish(0.02))
    assert stops.cut(sold) is sold, "a wish to sell is heard"


def test_without_a_position_nothing_is_stopped():
    world, stops = World(), Stops()
    stops.wish(wish(0.02))
    world.book(BTC, world.mark(BTC) * Decimal("0.5"))
    stops.watch(world.market, world.ledger)
    target = world.target({BTC: 0.1})
    assert stops.cut(target) is target
    assert stops.levels(world.at) == {}


def test_where_a_stop_rests_its_trigger_says_when_it_is_hit():
    world, stops, target = held()
    resting = {BTC: 48_000.0}
    world.book(BTC, "48500")
    stops.watch(world.market, world.ledger, resting)
    assert stops.cut(target) is target, "below the level, above the trigger"
    world.book(BTC, "47990")
    stops.watch(world.market, world.ledger, resting)
    assert stops.hits() == {BTC}
    assert stops.cut(target).styles == target.styles
    assert stops.cut(target, {BTC}).styles[BTC] == AT_ONCE


def test_only_those_that_are_asked_for_are_watched():
    world, stops, _ = held()
    world.book(BTC, "40000")
    stops.watch(world.market, world.ledger, only=())
    assert stops.hits() == frozenset()
    stops.watch(world.market, world.ledger, only={BTC})
    assert stops.hits() == {BTC}


def test_a_stop_that_the_exchange_fired_counts_as_hit_until_the_agent_speaks():
    _, stops, target = held()
    stops.fire(BTC, 0)
    assert stops.cut(target).weights[BTC] == 0.0
    stops.wish(wish(0.02))
    assert stops.hits() == frozenset()
    silent = Stops()
    silent.fire(BTC, 0)
    assert silent.cut(target).weights[BTC] == 0.0, "also where nobody has spoken yet"


def test_the_trigger_of_an_earlier_session_is_where_the_trailing_goes_on():
    world, stops = World(), Stops()
    world.own(BTC, 0.1)
    stops.adopt(BTC, 49_500.0)
    stops.wish(wish(0.02))
    stops.watch(world.market, world.ledger)
    assert stops.prices()[BTC].price == pytest.approx(49_500.0) and stops.prices()[BTC].distance == 0.02
    assert not stops.hits()
    world.fill(world.order(BTC, Side.SELL, world.ledger.position(BTC), "50000"))
    stops.watch(world.market, world.ledger)
    assert stops.prices() == {}
    world.own(BTC, 0.1)
    stops.watch(world.market, world.ledger)
    assert stops.prices()[BTC].price == pytest.approx(49_000.0), "a new position starts anew"
