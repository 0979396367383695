"""Orders that expire before the lease does: real ccxt signs, the rehearsal exchange's own check judges."""

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import pytest

from agents.core.errors import ConfigError
from agents.core.instruments import Side, Symbol
from agents.core.orders import OrderId, Place
from daemon.rehearsal.errors import ApiError
from daemon.rehearsal.protocol import Access, Params, parse_query, signed_payload, without_signature
from daemon.venues.budget import Lane
from daemon.venues.client import ExchangeOptions, build_client, close_client
from daemon.venues.expiry import require_expiring
from daemon.venues.link import Link, LinkOptions
from daemon.venues.outcomes import NotSent, Outcome, judge_error
from daemon.venues.throttle import Throttle
from tests.daemon.scripted_binance import ScriptedBinance

KEY, SECRET = "k" * 64, "s" * 64
ORDER = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "quantity": "1", "price": "9", "newClientOrderId": "q-main-1-1-0"}


class Account:
    """One ccxt object with keys, and how long what it signs may live."""

    def __init__(self) -> None:
        self.left_s = 3.0
        self.look: Callable[[], None] = lambda: None

    def may_live_s(self) -> float:
        self.look()
        return self.left_s

    def rest(self, method: str = "POST") -> tuple[str, dict[str, str]]:
        """(payload, parameters) of a signed order request."""
        told = self.exchange.sign("order", ["private"], method, dict(ORDER))
        raw = told["body"] if method == "POST" else told["url"].partition("?")[2]
        return without_signature(raw), parse_query(raw)

    def socket(self, params: dict[str, Any]) -> tuple[str, dict[str, str]]:
        told = self.exchange.sign_params(params)
        return signed_payload(told), {name: str(value) for name, value in told.items()}

    def taken(self, signed: tuple[str, dict[str, str]], after_ms: int) -> bool:
        """Whether the exchange takes it when it arrives so long after it was signed."""
        payload, params = signed
        try:
            Access(KEY, SECRET, lambda: int(params["timestamp"]) + after_ms).check_signed(KEY, payload, Params(params))
        except ApiError as error:
            return error.code != -1021
        return True


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    server, made = ScriptedBinance(), Account()
    await server.start()
    made.server = server  # type: ignore[attr-defined]
    made.exchange = build_client(ExchangeOptions("binance", server.url, api_key=KEY, secret=SECRET, timeout_ms=5000))  # type: ignore[attr-defined]
    made.link = Link(made.exchange, Throttle(5.0, lane=Lane.PROTECT), LinkOptions("rest", 10_000.0, may_live_s=made.may_live_s))  # type: ignore[attr-defined]
    await made.exchange.load_markets()  # type: ignore[attr-defined]
    await made.link.start()  # type: ignore[attr-defined]
    yield made
    await close_client(made.exchange)  # type: ignore[attr-defined]
    await server.stop()


async def test_a_new_order_is_refused_once_the_lease_is_over_by_both_ways(account):
    for signed in (account.rest(), account.socket(dict(ORDER))):
        assert account.taken(signed, 2000)
        assert not account.taken(signed, 3001)
    account.left_s = 60.0
    for signed in (account.rest(), account.socket(dict(ORDER))):
        assert account.taken(signed, 10_000) and not account.taken(signed, 10_001), "never longer than without a lease"


async def test_cancels_and_questions_are_signed_as_ever_and_the_default_stands_again(account):
    account.left_s = 0.0
    assert account.taken(account.rest("DELETE"), 10_000) and account.taken(account.rest("GET"), 10_000)
    assert account.taken(account.socket({"symbol": "BTCUSDT", "origClientOrderId": "q-main-1-1-0"}), 10_000)
    account.left_s = 1.0
    account.rest()
    assert account.exchange.options["recvWindow"] == 10_000


@pytest.mark.parametrize("left_s", [0.0, 0.15])
async def test_with_too_little_left_nothing_leaves_and_the_order_counts_as_refused(account, left_s):
    account.left_s = left_s
    place = Place(OrderId("q-main-1-1-0"), Symbol("BTC/USDT"), Side.BUY, Decimal("0.1"), Decimal(100))
    with pytest.raises(NotSent) as refusal:
        await account.link.transport.create(place)
    verdict = judge_error(refusal.value)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, "lease")
    assert account.server.orders == []
    with pytest.raises(NotSent):
        account.socket(dict(ORDER))


@pytest.mark.parametrize("left_s", [3.0, 2.6])
async def test_who_is_stopped_while_it_signs_has_signed_what_is_old(account, left_s):
    """The look at the lease comes after the signed time: a pause between them shortens the order's life, and never prolongs it."""
    clock, before = account.exchange.milliseconds, account.exchange.milliseconds()
    account.left_s = left_s

    def pause() -> None:
        account.exchange.milliseconds = lambda: clock() + 2500
        account.link.clock._base += 2500  # no step of the machine's clock: time passed
        account.left_s -= 2.5

    account.look = pause
    if left_s < 2.7:
        with pytest.raises(NotSent):
            account.rest()
        return
    _, params = account.rest()
    assert int(params["timestamp"]) < before + 1000, "signed with the time before the pause"
    assert int(params["recvWindow"]) <= 500


async def test_a_machine_whose_clock_has_stepped_ahead_signs_for_less_or_not_at_all(account):
    clock = account.exchange.milliseconds
    account.exchange.milliseconds = lambda: clock() + 1500
    _, params = account.rest()
    assert int(params["recvWindow"]) <= 1500, "its time is 1.5 s ahead of the exchange's: so much earlier it has to expire"
    account.exchange.milliseconds = lambda: clock() + 3_600_000  # what a suspended machine's clock does
    with pytest.raises(NotSent):
        account.rest()


def test_an_exchange_without_an_expiring_send_is_refused_by_name():
    for name in ("binance", "binanceus", "rehearsal"):
        require_expiring(name)
    with pytest.raises(ConfigError, match="kraken"):
        require_expiring("kraken")


async def test_everything_that_makes_an_order_over_rest_is_bounded(account):
    account.left_s = 0.0
    for path in ("order", "order/cancelReplace", "sor/order", "orderList/oco", "orderList/oto"):
        with pytest.raises(NotSent):
            account.exchange.sign(path, ["private"], "POST", dict(ORDER))
    assert dict(parse_qsl(account.exchange.sign("account", ["private"], "GET", {})["url"].partition("?")[2]))["recvWindow"] == "10000"
    await asyncio.sleep(0)
