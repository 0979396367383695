"""What exchanges can do, and how our order ids are spelled there."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import ConfigError
from agents.core.orders import client_order_id, is_ours
from daemon.venues import capabilities
from daemon.venues.client_ids import NAMED, Unspellable

ROOT = Path(__file__).parents[2]
INSTANCE = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
IDS = st.builds(client_order_id, INSTANCE, st.integers(0, 36**4 - 1), st.integers(0, 36**7 - 1), st.integers(0, 36**2 - 1))
"""A session each minute for three years, a thousand decisions a second for two: the shortest rule takes all of these."""
ON_THE_WIRE = {"t-28": "t-"}


@given(IDS, st.sampled_from(sorted(NAMED)))
def test_every_spelling_comes_back_and_keeps_the_exchanges_rules(order_id: str, name: str):
    rule = NAMED[name]
    text = rule.spell(order_id)
    assert len(text) <= rule.max_length and re.fullmatch(f"{rule.alphabet}+", text)
    assert rule.unspell(ON_THE_WIRE.get(name, "") + text) == order_id


@given(IDS, IDS, st.sampled_from(sorted(NAMED)))
def test_two_ids_never_share_a_spelling(one: str, other: str, name: str):
    assert (NAMED[name].spell(one) == NAMED[name].spell(other)) == (one == other)


@given(st.text(max_size=40) | st.uuids().map(str) | st.from_regex(r"[qZ0-9a-z-]{1,36}", fullmatch=True), st.sampled_from(sorted(NAMED)))
def test_a_strangers_id_stays_his(text: str, name: str):
    rule = NAMED[name]
    back = rule.unspell(text)
    if back != text:  # taken for ours: then it must be what we would have sent
        sent = rule.spell(back)
        assert text.replace("-", "") == sent.replace("-", "") if name == "uuid" else text in (sent, ON_THE_WIRE.get(name, "") + sent)


def test_a_mixture_of_two_spellings_is_a_strangers():
    assert NAMED["letters32"].unspell("q-mainZ1Z1Z0") == "q-mainZ1Z1Z0"
    assert NAMED["letters32"].unspell("qZmainZ01Z1Z0") == "qZmainZ01Z1Z0"


def test_spellings_are_what_the_exchanges_document():
    order_id = client_order_id("main", 3, 4711, 2)
    assert order_id == "q-main-3-3mv-2"
    assert NAMED["letters32"].spell(order_id) == "qZmainZ3Z3mvZ2"
    assert re.fullmatch(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", NAMED["uuid"].spell(order_id))
    assert NAMED["plain36"].spell(order_id) == order_id


@pytest.mark.parametrize(
    ("name", "order_id"),
    [("letters32", "somebody-else"), ("uuid", client_order_id("main", 2**24, 1, 0)), ("uuid", client_order_id("main", 1, 1, 4096)),
     ("t-28", client_order_id("abcdefgh", 36**4, 36**7, 36**2)), ("plain32", "q-abcdefgh-zzzzzzz-zzzzzzzzz-zzzz"), ("plain36", "q-ü-1-1-0")],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_never_cut(name: str, order_id: str):
    with pytest.raises(Unspellable):
        NAMED[name].spell(order_id)


def test_the_table_is_up_to_date_for_the_pinned_ccxt():
    assert (ROOT / "docs" / "capabilities.md").read_text() == capabilities.document(), (
        "write it anew: python -m daemon.venues.capabilities > docs/capabilities.md"
    )


def test_large_exchanges_are_fit_or_say_why_not():
    rows = {row["exchange"]: row for row in capabilities.table()}
    assert set(rows) == set(capabilities.TABLE)
    assert [name for name, row in rows.items() if row["missing"]] == ["bitfinex"]
    assert [name for name, row in rows.items() if row["dead_man"]] == ["okx", "kraken", "htx"]
    assert rows["binance"]["websocket_orders"] and rows["binance"]["websocket_reviewed"] and not rows["binance"]["dead_man"]
    assert rows["binance"]["trades_cursor"] == "id" and rows["binance"]["request_window_s"] == 10.0
    assert not rows["coinbase"]["websocket_orders"] and not rows["mexc"]["stop_orders"]


def test_an_exchange_that_lacks_something_is_refused_by_name_and_lack():
    caps = capabilities.of("bitfinex")
    with pytest.raises(ConfigError, match=r"bitfinex lacks .*client order id.*looked up"):
        capabilities.refuse_unsafe(caps)
    capabilities.refuse_unsafe(capabilities.of("rehearsal"))
    capabilities.refuse_unsafe(capabilities.of("bitfinex", {"client_id": "plain36", "lookup": "lists"}))
    nobody_looked = capabilities.of("hitbtc")
    assert nobody_looked.client_id is None and capabilities.missing(nobody_looked)


def test_each_need_is_a_sentence_of_its_own():
    whole = {"client_id": "", "lookup": "", "open_orders": False, "own_trades": False, "balances": False, "post_only": False}
    for name, value in whole.items():
        assert len(capabilities.missing(capabilities.of("binance", {name: value}))) == 1, name
    assert capabilities.missing(capabilities.of("binance", {"stop_orders": False, "dead_man": False})) == []


@pytest.mark.parametrize(
    "overrides",
    [{"clientid": True}, {"exchange": "x"}, {"lookup": "guess"}, {"post_only": "yes"}, {"client_id": "plain"}, {"request_window_s": -1},
     {"request_window_s": True}, {"trades_cursor": "luck"}],
)  # fmt: skip
def test_an_override_that_cannot_be_is_refused_by_name(overrides: dict[str, object]):
    with pytest.raises(ConfigError, match=r"exchange\.capabilities.*" + next(iter(overrides))):
        capabilities.of("binance", overrides)


def test_a_spelled_id_is_known_as_ours_again():
    order_id = client_order_id("abcdefgh", 35, 10**9, 7)
    for name, rule in NAMED.items():
        assert is_ours(rule.unspell(ON_THE_WIRE.get(name, "") + rule.spell(order_id)), "abcdefgh")
