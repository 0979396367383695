"""Wishes stand until they expire or are replaced, and their numbers are named and finite."""

import dataclasses
from math import isfinite

import pytest

from agents.desk.long_term import LongTerm
from agents.desk.market_making import MarketMaking
from agents.desk.risk import Risk
from agents.desk.short_term import ShortTerm
from agents.desk.wishes import ORDER, PORTFOLIO, RiskWish, StandingWishes, Wish
from agents.market.columns import AGENTS
from tests.desk.observed import SYMBOLS, act, observed

BTC = SYMBOLS[0]


def all_wishes(time: int) -> list[Wish]:
    wishes: list[Wish] = []
    for agent in (LongTerm(), ShortTerm(), MarketMaking(), Risk()):
        wishes += agent.propose(observed(agent.name, time=time), act(*[0.0] * agent.action_size))
    return wishes


def test_the_order_of_wishes_is_the_markets_order_of_agents() -> None:
    assert ORDER == AGENTS


def test_a_wish_cannot_be_edited() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RiskWish(0, 1, (0.0, 0.0), 0.5, 0.5).gross_multiplier = 1.0  # type: ignore[misc]


def test_every_wish_has_finite_numbers_under_its_symbol() -> None:
    standing = StandingWishes()
    standing.post(all_wishes(time=100))
    numbers = standing.numbers(now=101)
    assert list(numbers) == list(ORDER)
    assert set(numbers["risk"]) == {PORTFOLIO}
    for agent in ORDER[:3]:
        assert set(numbers[agent]) == {BTC}
    assert all(isfinite(x) for by_symbol in numbers.values() for named in by_symbol.values() for x in named.values())


def test_a_number_carries_the_name_of_the_field_it_comes_from() -> None:
    for wish in all_wishes(time=0):
        for name, value in wish.numbers().items():
            if hasattr(wish, name):
                assert value == float(getattr(wish, name))


@pytest.mark.parametrize(("agent", "cadences"), [(LongTerm(), 2), (ShortTerm(), 3), (MarketMaking(), 6), (Risk(), 5)])
def test_lifetimes_are_counted_in_cadences(agent: LongTerm | ShortTerm | MarketMaking | Risk, cadences: int) -> None:
    (wish,) = agent.propose(observed(agent.name, time=7), act(*[0.0] * agent.action_size))
    assert (wish.made_at, wish.expires_at) == (7, 7 + cadences * agent.cadence_ns)
    standing = StandingWishes()
    standing.post([wish])
    assert standing.numbers(now=wish.expires_at - 1)[agent.name]
    assert not standing.numbers(now=wish.expires_at)[agent.name]


def test_a_later_wish_replaces_only_its_own_kind_and_symbol() -> None:
    standing = StandingWishes()
    standing.post(all_wishes(time=0))
    before = standing.long_term[BTC], standing.short_term[BTC]
    (newer,) = MarketMaking().propose(observed("market_making", time=5), act(0, 0, 0, 0, 0, 0))
    standing.post([newer])
    assert standing.market_making[BTC] is newer
    assert (standing.long_term[BTC], standing.short_term[BTC]) == before
