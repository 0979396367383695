"""The pure parts of the venues, the two venues without a network, and how clients are built."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ccxt.base import errors
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import ConfigError, ReplayDiffers, Throttled, Unreachable
from agents.core.events import UNSTAMPED, BookSnapshot, Event, Fill, Listing, OrderUpdate, Stamp, Tick, Trade
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.orders import Cancel, Command, OrderId, Place
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import FixedLatency, Frictions, FrontQueue, MakerTakerFee, NoImpact
from daemon.venues.base import Outbox, pumped
from daemon.venues.client import ExchangeOptions, build_client, close_client, dials_loopback, rewritten
from daemon.venues.continuity import LEARNED, TradeLine
from daemon.venues.freshness import Freshness
from daemon.venues.outcomes import Outcome, judge_answer, judge_error
from daemon.venues.parse import parse_order
from daemon.venues.reconcile import differences, total_difference
from daemon.venues.recorded import RecordedVenue
from daemon.venues.simulated import SimulatedVenue
from daemon.venues.throttle import Backoff, Throttle, ban_seconds

BTC = Symbol("BTC/USDT")
MS = 1_000_000


def trade(number: int | str, time: int | None = None) -> Trade:
    at = time if time is not None else int(number)
    return Trade(UNSTAMPED, BTC, at, str(number), Decimal(100), Decimal(1), Side.BUY)


# -- continuity --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from(["live", "lost", "silent"]), st.integers(1, 30)), max_size=20),
    st.booleans(),
)
def test_every_print_comes_once_and_in_order_across_holes_that_rest_can_bridge(steps: list[tuple[str, int]], lettered: bool) -> None:
    def named(number: int) -> Trade:
        return trade(f"x{number}" if lettered else number, number)

    line, told, printed = TradeLine(), [], 0
    for kind, count in [("live", LEARNED + 2), *steps, ("live", 1)]:
        fresh = [named(number) for number in range(printed + 1, printed + count + 1)]
        printed += count
        if kind == "live":
            told += line.live(fresh)
        elif kind == "lost":
            line.lose()
        elif lettered:
            line.lose()  # a hole without notice cannot be seen where ids do not count
        if line.holed:
            new, joined = line.mend([named(number) for number in range(1, printed + 1)])
            assert joined
            told += new
    assert [t.time for t in told] == list(range(1, printed + 1))


def test_a_hole_that_nobody_can_bridge_is_said_so_and_what_was_held_comes_out() -> None:
    line = TradeLine()
    line.live([trade(1)])
    line.lose()
    assert line.live([trade(50), trade(51)]) == []
    told, joined = line.mend([trade(49), trade(50)])
    assert not joined
    assert [t.trade_id for t in told] == ["49", "50", "51"]
    line.lose()
    line.live([trade(60)])
    assert [t.trade_id for t in line.give_up()] == ["60"]


def test_ids_that_jump_by_nature_are_no_holes() -> None:
    line = TradeLine()
    assert len(line.live([trade(n * 3) for n in range(1, 400)])) == 399
    assert not line.holed


def test_seeds_are_known_but_not_told() -> None:
    line = TradeLine()
    line.seed(trade(5))
    assert [t.trade_id for t in line.live([trade(4), trade(5), trade(6)])] == ["6"]
    assert line.duplicates == 2


# -- freshness ---------------------------------------------------------------------------------------------------------


def test_silence_is_asked_about_later_each_time_and_the_longest_silent_first() -> None:
    fresh = Freshness({"book": 3.0}, longest_s=8.0)
    other = Symbol("ETH/USDT")
    fresh.watch("book", BTC, 0.0)
    fresh.watch("book", other, 1.0)
    assert fresh.due(2.9) == []
    assert fresh.due(4.5) == [("book", BTC), ("book", other)]
    fresh.heard("book", other, 4.5)
    fresh.asked("book", BTC, 4.5)
    assert fresh.due(10.0) == [("book", other)]
    assert ("book", BTC) in fresh.due(10.6)
    fresh.asked("book", BTC, 10.6)
    assert ("book", BTC) not in fresh.due(18.5)
    assert ("book", BTC) in fresh.due(18.6)
    fresh.heard("book", BTC, 18.6)
    assert ("book", BTC) in fresh.due(21.6)


# -- throttle ----------------------------------------------------------------------------------------------------------


def test_back_off_doubles_to_its_limit_and_starts_again() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.failed() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.worked()
    assert not backoff.worked()
    assert backoff.failed() == 0.5


@pytest.mark.parametrize(
    ("error", "headers", "seconds"),
    [
        (errors.DDoSProtection("binance 429 Too many"), {"Retry-After": "7"}, 7.0),
        (errors.RateLimitExceeded("x"), {"retry-after": "0"}, 0.5),
        (errors.RateLimitExceeded("x"), {"Retry-After": "soon"}, 10.0),
        (errors.DDoSProtection("binance 418 I am a teapot"), None, 120.0),
        (errors.DDoSProtection('binance {"code":-2015,"msg":"Invalid API-key"}'), None, None),
        (errors.RequestTimeout("x"), {"Retry-After": "7"}, None),
    ],
)
def test_how_long_the_exchange_wants_silence(error: Exception, headers: Any, seconds: float | None) -> None:
    assert ban_seconds(error, headers) == seconds


async def test_no_call_while_banned_and_every_call_ends() -> None:
    throttle = Throttle(0.05)

    class Exchange:
        last_response_headers = {"Retry-After": "100"}  # noqa: RUF012

    async def refused() -> None:
        raise errors.RateLimitExceeded("429")

    async def hanging() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await throttle.call(Exchange(), hanging)
    with pytest.raises(errors.RateLimitExceeded):
        await throttle.call(Exchange(), refused)
    assert 99 < throttle.banned_s() <= 100
    with pytest.raises(Throttled):
        await throttle.call(Exchange(), hanging, wait_for_ban=False)


# -- outcomes ----------------------------------------------------------------------------------------------------------

ACCEPTED, REJECTED, UNKNOWN, FATAL = Outcome.ACCEPTED, Outcome.REJECTED, Outcome.UNKNOWN, Outcome.FATAL


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (errors.RequestTimeout("x"), UNKNOWN, "RequestTimeout"),
        (errors.ExchangeNotAvailable("x"), UNKNOWN, "ExchangeNotAvailable"),
        (errors.NetworkError("x"), UNKNOWN, "NetworkError"),
        (errors.BadResponse("x"), UNKNOWN, "BadResponse"),
        (errors.NullResponse("x"), UNKNOWN, "NullResponse"),
        (errors.ExchangeError("x"), UNKNOWN, "ExchangeError"),
        (errors.OperationFailed("x"), UNKNOWN, "OperationFailed"),
        (errors.OrderNotFound("x"), UNKNOWN, "OrderNotFound"),
        (errors.OperationFailed('{"code":-1007,"msg":"x"}'), UNKNOWN, "code-1007"),
        (errors.ExchangeError('{"code":-1008,"msg":"x"}'), REJECTED, "overloaded"),
        (errors.BadRequest('{"code":-1013,"msg":"Filter failure"}'), REJECTED, "filter"),
        (errors.InvalidNonce('{"code":-1021,"msg":"x"}'), REJECTED, "clock"),
        (errors.InvalidNonce("x"), REJECTED, "clock"),
        (errors.InsufficientFunds("x"), REJECTED, "insufficient_balance"),
        (errors.OrderImmediatelyFillable("would immediately match"), REJECTED, "would_cross"),
        (errors.DuplicateOrderId("x"), UNKNOWN, "duplicate"),
        (errors.InvalidOrder("Duplicate order sent."), UNKNOWN, "duplicate"),
        (errors.InvalidOrder("x"), REJECTED, "InvalidOrder"),
        (errors.ArgumentsRequired("x"), REJECTED, "ArgumentsRequired"),
        (errors.DDoSProtection("429"), REJECTED, "throttled"),
        (errors.RateLimitExceeded("x"), REJECTED, "throttled"),
        (errors.DDoSProtection('{"code":-2015,"msg":"x"}'), FATAL, "bad_key"),
        (errors.AuthenticationError("x"), FATAL, "bad_key"),
        (errors.PermissionDenied("x"), FATAL, "bad_key"),
        (TimeoutError(), UNKNOWN, "timeout"),
        (KeyError("fills"), UNKNOWN, "KeyError"),
        (ConnectionResetError(), UNKNOWN, "ConnectionResetError"),
    ],
)
def test_the_order_table(error: Exception, outcome: Outcome, reason: str) -> None:
    verdict = judge_error(error)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


def test_every_error_of_ccxt_has_an_outcome_and_no_network_error_is_a_refusal_by_accident() -> None:
    refusals = {"DDoSProtection", "RateLimitExceeded", "InvalidNonce", "ChecksumError"}
    for name in dir(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.NetworkError) and name not in refusals:
            assert judge_error(kind("x")).outcome is UNKNOWN, name


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        ({"id": "1", "clientOrderId": "a", "status": "open"}, ACCEPTED), ({"id": "1", "status": None}, ACCEPTED),
        ({"id": None, "status": None}, UNKNOWN), (None, UNKNOWN), ({"id": "1", "clientOrderId": "b", "status": "open"}, UNKNOWN),
        ({"id": "1", "clientOrderId": "a", "status": "rejected"}, REJECTED),
    ],
)  # fmt: skip
def test_answers_that_return_normally(raw: Any, outcome: Outcome) -> None:
    assert judge_answer(parse_order(raw), "a").outcome is outcome


# -- reconcile ---------------------------------------------------------------------------------------------------------

MONEY = st.dictionaries(st.sampled_from(["BTC", "ETH", "USDT", "BNB"]).map(Currency), st.decimals(-1000, 1000, places=8))


@given(MONEY, MONEY)
def test_differences_explain_the_venue_exactly(ours: dict[Currency, Decimal], theirs: dict[Currency, Decimal]) -> None:
    found = differences(ours, theirs)
    corrected = {**ours}
    for difference in found:
        corrected[difference.currency] = corrected.get(difference.currency, Decimal(0)) + difference.amount
    assert differences(corrected, theirs) == ()
    assert total_difference(ours, theirs) == sum(abs(d.amount) for d in found)
    assert (total_difference(ours, theirs) == 0) == (not found)


# -- outbox ------------------------------------------------------------------------------------------------------------


async def test_pumped_ends_with_its_runner_and_raises_our_error_first() -> None:
    async def run(box: Outbox, failure: Exception | None) -> None:
        box.put(Tick(UNSTAMPED))
        if failure:
            raise failure

    box = Outbox()
    assert [e async for e in pumped(lambda: run(box, None), box)] == [Tick(UNSTAMPED)]
    group = ExceptionGroup("x", [ValueError(), ExceptionGroup("y", [Unreachable("gone")])])
    box = Outbox()
    facts = pumped(lambda: run(box, group), box)
    assert await anext(facts) == Tick(UNSTAMPED)
    with pytest.raises(Unreachable, match="gone"):
        await anext(facts)


async def test_a_full_outbox_makes_its_writer_wait_and_closing_stops_the_writer() -> None:
    box = Outbox(limit=3)
    written, stopped = [], []

    async def run() -> None:
        try:
            for number in range(100):
                await box.room()
                box.put(Tick(Stamp(number)))
                written.append(number)
        finally:
            stopped.append(True)

    async with aclosing(pumped(run, box)) as events:  # type: ignore[type-var]
        assert (await anext(events)).stamp.at == 0
        assert len(written) <= 4
        assert [(await anext(events)).stamp.at for _ in range(10)] == list(range(1, 11))
    assert stopped == [True]


# -- recorded ----------------------------------------------------------------------------------------------------------

PLACE = Place(OrderId("q-a-1-1-0"), BTC, Side.BUY, Decimal(1), Decimal(100))
CANCEL = Cancel(OrderId("q-a-1-1-0"), BTC)


@pytest.mark.parametrize(
    ("record", "asked", "word"),
    [
        ([PLACE, CANCEL], [PLACE, CANCEL], ""), ([PLACE], [CANCEL], "command 1 at event 7 differs"),
        ([PLACE], [PLACE, CANCEL], "command 2 at event 7 is extra"), ([PLACE, CANCEL], [PLACE], "command 2 is missing"),
    ],
)  # fmt: skip
async def test_a_replay_names_the_first_difference(record: list[Command], asked: list[Command], word: str) -> None:
    venue = RecordedVenue([Tick(Stamp(5, 7))], record)

    async def play() -> None:
        async for _ in venue.events():
            for command in asked:
                await venue.send(command)

    if word:
        with pytest.raises(ReplayDiffers, match=word):
            await play()
    else:
        await play()


# -- simulated ---------------------------------------------------------------------------------------------------------

INSTRUMENT = Instrument(BTC, Currency("BTC"), Currency("USDT"), Decimal("0.01"), Decimal("0.001"))


class ScriptedFeed:
    """Facts at the test's command."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event] = asyncio.Queue()
        self.closed = False

    async def events(self) -> AsyncIterator[Event]:
        while True:
            yield await self.queue.get()

    async def close(self) -> None:
        self.closed = True


def book(bid: str, ask: str) -> BookSnapshot:
    return BookSnapshot(UNSTAMPED, BTC, 1, ((Decimal(bid), Decimal(5)),), ((Decimal(ask), Decimal(5)),))


async def test_simulated_orders_meet_the_feed_and_late_commands_are_released_by_time_alone() -> None:
    clock = asyncio.get_running_loop().time
    frictions = Frictions(MakerTakerFee(), FixedLatency(20 * MS, 20 * MS), FrontQueue(), NoImpact())
    exchange = SimulatedExchange([], frictions, {Currency("USDT"): Decimal(1000)})
    feed = ScriptedFeed()
    venue = SimulatedVenue(feed, exchange, lambda: int(clock() * 1e9))
    async with aclosing(venue.events()) as events:  # type: ignore[type-var]
        await feed.queue.put(Listing(UNSTAMPED, INSTRUMENT))
        await feed.queue.put(book("99", "101"))
        assert isinstance(await anext(events), Listing)
        first = await anext(events)
        assert isinstance(first, BookSnapshot)
        assert first.stamp == UNSTAMPED
        sent = clock()
        await venue.send(Place(OrderId("q-a-1-1-0"), BTC, Side.BUY, Decimal(1), Decimal(101)))
        heard = [await anext(events) for _ in range(3)]  # no further fact of the feed is needed
        assert clock() - sent >= 0.04
        assert {type(event) for event in heard} == {OrderUpdate, Fill}
        assert await venue.settle(1.0)
        balances = await venue.balances()
        assert balances[Currency("BTC")] == 1
        assert balances[Currency("USDT")] == 1000 - 101 - Decimal("0.101")
    await venue.close()
    assert feed.closed


# -- client ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (ExchangeOptions("binanse"), "did you mean .*binance"),
        (ExchangeOptions("rehearsal"), "rehearsal needs exchange.base_url"),
        (ExchangeOptions("binance", "http://192.0.2.1:80"), "plain http is allowed on loopback only"),
        (ExchangeOptions("binance", "ftp://127.0.0.1"), "is not the address of a server"),
        (ExchangeOptions("binance", "http://no-such-host.invalid"), "cannot be resolved"),
        (ExchangeOptions("binance", ca_file=Path("x.pem")), "without exchange.base_url"),
        (ExchangeOptions("binance", "https://127.0.0.1", Path("/no/such.pem")), "there is no file"),
        (ExchangeOptions("rehearsal", "https://192.0.2.1"), "lives on loopback"),
    ],
)
async def test_addresses_that_must_not_be_dialled_are_refused_by_field(options: ExchangeOptions, word: str) -> None:
    with pytest.raises(ConfigError, match=rf"exchange\.(id|base_url|ca_file).*{word}"):
        build_client(options)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [(None, False), ("http://127.0.0.1:9", True), ("http://127.8.8.8", True), ("http://[::1]:9", True), ("http://localhost:9", True),
     ("https://192.0.2.1", False), ("http://0.0.0.0", False)],
)  # fmt: skip
def test_loopback_is_judged_by_the_address(url: str | None, loopback: bool) -> None:
    assert dials_loopback(ExchangeOptions("binance", url)) is loopback


async def test_no_url_of_a_redirected_client_leads_elsewhere() -> None:
    client = build_client(ExchangeOptions("rehearsal", "http://127.0.0.1:7", api_key="k", secret="s"))

    def hosts(tree: Any) -> set[str]:
        return set().union(*map(hosts, tree.values())) if isinstance(tree, dict) else {urlsplit(tree).netloc}

    assert hosts(client.urls["api"]) == {"127.0.0.1:7"}
    assert client.urls["api"]["ws"]["spot"] == "ws://127.0.0.1:7/stream/ws"
    assert client.urls["api"]["ws"]["ws-api"]["spot"] == "ws://127.0.0.1:7/ws-api/v3"
    assert client.urls["api"]["public"] == "http://127.0.0.1:7/api/v3"
    assert type(client).urls is not client.urls
    await close_client(client)


def test_rewriting_keeps_paths_and_names() -> None:
    tree = {"a": "https://api.{hostname}/v5?x=1", "ws": {"b": "wss://ws.okx.com:8443/ws/v5", "n": None, "p": "not a url"}}
    assert rewritten(tree, urlsplit("https://host:1/base")) == {
        "a": "https://host:1/base/v5?x=1", "ws": {"b": "wss://host:1/base/ws/v5", "n": None, "p": "not a url"},
    }  # fmt: skip


def test_keys_are_never_shown_and_a_feed_has_none() -> None:
    options = ExchangeOptions("binance", api_key="topsecret", secret="topsecret", password="topsecret")
    assert "topsecret" not in repr(options)
    assert options.without_keys() == ExchangeOptions("binance")
