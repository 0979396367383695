"""The story of a decision and of an order, on a journal that the engine really wrote."""

import asyncio
import json
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.core.errors import DataError
from agents.core.events import UNSTAMPED, BookSnapshot, Event, Fill, Flatten, Halt, NewWeights, OrderUpdate, Quote, Resume
from agents.core.instruments import Side, Symbol
from agents.core.orders import Cancel, Place
from agents.desk.decision import Decision, Effects
from agents.desk.limits import Limits
from agents.engine import Engine
from agents.market.observation import SPEC_HASH, Experience
from daemon import opening
from daemon.archive import created
from daemon.drive import drive
from daemon.explain import explain, render
from daemon.journal import JournalReader
from daemon.replay import engine_config
from daemon.store import NAME
from tests.test_one_path import CAPITAL, SYMBOLS, USDT, Session, config
from tests.weights import payload


class Recorded(Session):
    """A session whose rewards are recorded as they are offered to a learner."""

    def __init__(self, folder: Path, seconds: float) -> None:
        super().__init__(folder, seconds)
        tight = config(limits=Limits(position_cap=0.1, max_orders_per_second=4.0))  # so that limits bind and orders are refused
        self.engine = Engine(tight)
        self.journal.describe({"engine": asdict(tight)})
        self.taught: list[Experience] = []

    async def _bring(self) -> None:
        """The market, then weights and an operator's word on the way."""
        for adjustment in opening.fresh(USDT, CAPITAL, {USDT: CAPITAL}):
            self.door.push(adjustment)
        body, digest = payload(1)
        words: dict[int, Event] = {
            1500: NewWeights(UNSTAMPED, 1, digest, SPEC_HASH, body), 2600: Halt(UNSTAMPED, "test"), 2700: Resume(UNSTAMPED, "test"),
            4300: Flatten(UNSTAMPED, "enough"),
        }  # fmt: skip
        count = 0
        async for event in self.venue.events():
            await self.door.put(event)
            count += 1
            if count in words:
                self.door.push(words[count])
        self.door.close()

    async def run(self) -> None:
        def teach(experiences: Any) -> None:
            self.taught += experiences
            self.journal.learn(experiences)

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(self._bring())
            group.create_task(drive(self.door.events(), self.engine, self.journal, self.venue.send, teach, self._note))
        self.journal.close(self.door.last, {})


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorded]:
    folder = tmp_path_factory.mktemp("state")
    made = Recorded(folder, seconds=260)
    asyncio.run(made.run())
    return folder, made


def decisions(made: Session) -> list[Decision]:
    return [effects.decision for effects in made.effects if effects.decision is not None]


def facts(folder: Path) -> list[Event]:
    reader = JournalReader(folder)
    return list(reader.events(reader.session("last")))


def test_every_decision_has_a_story_that_prints(session: tuple[Path, Recorded]) -> None:
    folder, made = session
    for decision in decisions(made)[::7]:
        story = explain(folder, str(decision.number))
        assert json.loads(json.dumps(story)) == story
        page = render(story)
        assert page.startswith(f"Decision {decision.number}, session test-1\n")
        assert all(name in page for name in ("Why\n", "Sent\n", "Learned\n")) and "None" not in page
        assert max(map(len, page.splitlines())) < 150


def test_the_last_decision_has_a_name(session: tuple[Path, Recorded]) -> None:
    folder, made = session
    number = decisions(made)[-1].number
    assert explain(folder, "last") == {**explain(folder, str(number)), "note": ""}, "a name is no number that an order may have, too"


def test_the_market_is_the_one_that_the_engine_saw(session: tuple[Path, Recorded]) -> None:
    folder, _ = session
    events = facts(folder)
    engine = Engine(engine_config(JournalReader(folder).session("last").config["engine"]))
    mids: dict[int, dict[Symbol, Any]] = {}
    books: dict[str, Quote | BookSnapshot] = {}
    ages: dict[int, dict[str, float]] = {}
    for event in events:
        if isinstance(event, Quote | BookSnapshot):
            books[event.symbol] = event
        decision = engine.step(event).decision
        if decision is not None:
            mids[decision.number] = {s: engine.market.book(s).mid for s in SYMBOLS}
            ages[decision.number] = {s: (event.stamp.at - book.stamp.at) / 1e9 for s, book in books.items()}
    assert len(mids) > 100
    for number in list(mids)[::9]:
        seen = explain(folder, str(number))["seen"]["market"]
        assert seen.keys() == set(SYMBOLS)
        for symbol, book in seen.items():
            assert Decimal(book["mid"]) == mids[number][Symbol(symbol)]
            assert book["age_s"] == pytest.approx(ages[number][symbol]) and book["spread_bps"] > 0


def test_wishes_limits_and_refusals_are_those_of_the_decision(session: tuple[Path, Recorded]) -> None:
    folder, made = session
    spoken = [decision for decision in decisions(made) if len(decision.agents) == 4 and decision.safe is not None]
    bound = [decision for decision in decisions(made) if decision.bound]
    refused = [decision for decision in decisions(made) if decision.refusals]
    assert spoken and bound and refused
    for decision in (spoken[-1], bound[-1], refused[-1]):
        story = explain(folder, str(decision.number))
        own = [wish for wish in story["wished"] if not wish["age_s"]]
        assert [(wish["symbol"], tuple(wish["action"])) for wish in own] == [(wish.symbol, tuple(wish.action)) for wish in decision.wishes]
        assert [wish["numbers"] for wish in own] == [wish.numbers() for wish in decision.wishes]
        assert set(decision.agents) <= {wish["agent"] for wish in story["wished"]}
        assert decision.target is not None and decision.safe is not None
        for symbol, weight in story["limited"]["weights"].items():
            assert weight == {"wished": decision.target.weights.get(Symbol(symbol)), "allowed": decision.safe.weights.get(Symbol(symbol))}
        assert [(b["name"], b["symbol"], b["price"]) for b in story["limited"]["bound"]] == [(b.name, b.symbol, b.price) for b in decision.bound]
        assert [row["reason"] for row in story["refused"]] == [refusal.reason for refusal in decision.refusals]
        page = render(story)
        assert all(f"{b.name} of {b.symbol or 'the portfolio'} held back" in page for b in decision.bound)
        assert all(refusal.reason in page for refusal in decision.refusals)


def test_agents_that_did_not_speak_are_heard_as_they_last_spoke(session: tuple[Path, Recorded]) -> None:
    folder, made = session
    # Before and after it the others spoke.
    alone = [decision for decision in decisions(made) if decision.agents == ("market_making",) and decision.number < 40][-1]
    before = [decision for decision in decisions(made) if decision.number < alone.number and "long_term" in decision.agents][-1]
    minute = [decision.number for decision in decisions(made) if "short_term" in decision.agents]
    assert minute[-1] > alone.number
    story = explain(folder, str(alone.number))
    long_term = [wish for wish in story["wished"] if wish["agent"] == "long_term"]
    assert {wish["decision"] for wish in long_term} == {before.number}
    assert {wish["decision"] for wish in story["wished"] if wish["agent"] == "short_term"} == {max(n for n in minute if n < alone.number)}
    assert long_term[0]["age_s"] == (alone.time - before.time) / 1e9 > 0
    assert f"long_term (decision {before.number}, {long_term[0]['age_s']:.0f} s before)" in render(story)


def test_an_order_is_told_from_its_intent_to_its_end(session: tuple[Path, Recorded]) -> None:
    folder, made = session
    events = facts(folder)
    fills = [event for event in events if isinstance(event, Fill)]
    assert {fill.side for fill in fills} == {Side.BUY, Side.SELL}
    for order in {fill.order_id for fill in fills}:
        story = explain(folder, order)
        (life,) = story["sent"]
        decision = next(d for d in decisions(made) if order in dict(created(d.commands)))
        assert (story["order"], story["decision"], life["order"]) == (order, decision.number, order)
        mine = [fill for fill in fills if fill.order_id == order]
        quantity = sum(fill.quantity for fill in mine)
        average = sum(fill.price * fill.quantity for fill in mine) / quantity
        assert Decimal(life["filled"]) == quantity
        assert Decimal(life["average_price"]) == pytest.approx(average, abs=Decimal("1e-7"))
        assert sum(map(Decimal, life["fees"].values())) == sum(fill.fee for fill in mine)
        mid = Decimal(story["seen"]["market"][mine[0].symbol]["mid"])
        worse = mine[0].side.value * (average - mid) / mid * 10_000
        assert life["slippage_bps"] == pytest.approx(float(worse))
        updates = [event for event in events if isinstance(event, OrderUpdate) and event.order_id == order]
        assert [update["state"] for update in life["updates"]] == [update.state.value for update in updates]
        first = min(fact.stamp for fact in (*updates, *mine))
        assert life["answered_ms"] == pytest.approx((first.at - decision.stamp.at) / 1e6) and life["answered_ms"] > 0
        page = render(story)
        assert page.startswith(f"Order {order} of decision {decision.number}, ") and f"filled {life['filled']} at" in page


def test_an_order_may_be_asked_for_by_the_exchanges_name(session: tuple[Path, Recorded], tmp_path: Path) -> None:
    folder, _ = session
    shutil.copytree(folder, tmp_path / "state")
    update = next(event for event in facts(folder) if isinstance(event, OrderUpdate) and event.venue_order_id)
    with closing(sqlite3.connect(tmp_path / "state" / NAME)) as other:
        query = "UPDATE facts SET body = replace(body, ?, ?) WHERE order_id = ? AND kind = 'OrderUpdate'"
        other.execute(query, (f'"{update.venue_order_id}"', '"EX-77"', update.order_id))
        other.commit()
    story = explain(tmp_path / "state", "EX-77")
    assert (story["order"], story["sent"][0]["venue_order"]) == (update.order_id, "EX-77")
    with pytest.raises(DataError, match=r"no decision or order 'EX-78'; the nearest are EX-77"):
        explain(tmp_path / "state", "EX-78")


def test_a_fill_that_two_sessions_tell_counts_once(session: tuple[Path, Recorded], tmp_path: Path) -> None:
    folder, _ = session
    shutil.copytree(folder, tmp_path / "state")
    order = next(event.order_id for event in facts(folder) if isinstance(event, Fill))
    with closing(sqlite3.connect(tmp_path / "state" / NAME)) as other:
        again = "INSERT INTO facts SELECT epoch + 1, seq, at, kind, body, order_id FROM facts WHERE order_id = ? AND kind = 'Fill'"
        assert other.execute(again, (order,)).rowcount > 0
        other.commit()
    (once,), (twice,) = explain(folder, order)["sent"], explain(tmp_path / "state", order)["sent"]
    assert twice == once


def test_a_cancel_is_in_the_story_of_both_decisions(session: tuple[Path, Recorded]) -> None:
    folder, made = session
    cancelling = next(d for d in decisions(made) if any(isinstance(c, Cancel) for c in d.commands))
    order = next(c.order_id for c in cancelling.commands if isinstance(c, Cancel))
    assert order in explain(folder, str(cancelling.number))["cancels"]
    (life,) = explain(folder, order)["sent"]
    assert cancelling.number in [later["decision"] for later in life["later"]]
    assert re.search(rf"cancel asked for by decision {cancelling.number} [0-9.,]+ s later", render(explain(folder, order)))


def test_what_was_learned_is_what_the_rewards_said(session: tuple[Path, Recorded]) -> None:
    folder, made = session
    checked = 0
    for decision in decisions(made)[::3]:
        story = explain(folder, str(decision.number))
        for lesson in story["learned"]:
            if lesson["decision"] == decision.number:
                taught = [e for e in made.taught if e.agent == lesson["agent"] and e.time == decision.time]
                assert lesson["rewards"] == {e.symbol or "": pytest.approx(float(e.reward)) for e in taught}
                assert (lesson["version"], lesson["elapsed"]) == (taught[0].version, pytest.approx(float(taught[0].elapsed)))
                checked += 1
    assert checked > 10
    first, last = explain(folder, "1"), explain(folder, str([d for d in decisions(made) if d.safe is not None][-1].number))
    assert (first["weights"]["then"], first["weights"]["now"], first["weights"]["since"]) == (0, 1, 1)
    assert (last["weights"]["then"], last["weights"]["since"]) == (1, 0)
    assert "decided with weights version 0; 1 newer came in since, now version 1" in render(first)


def test_the_kill_path_names_the_word_behind_it(session: tuple[Path, Recorded]) -> None:
    folder, made = session
    halted = [d for d in decisions(made) if d.safe is None]
    assert halted
    story = explain(folder, str(halted[0].number))
    assert story["because"]["word"] == "halt" and story["because"]["reason"] == "test" and story["wished"] == []
    assert story["weights"]["then"] is None and "decided with weights" not in render(story)
    assert "the kill path, after halt (test)" in render(story)


def test_names_that_do_not_exist_are_answered_with_near_ones(session: tuple[Path, Recorded]) -> None:
    folder, made = session
    last = decisions(made)[-1].number
    order = next(c.order_id for d in decisions(made) for c in d.commands if isinstance(c, Place))
    with pytest.raises(DataError, match=rf"session test-1 has no decision {last + 999}: it has decisions 1 to {last}"):
        explain(folder, str(last + 999))
    with pytest.raises(DataError, match=rf"no decision or order '{order}x'; the nearest are .*{order}"):
        explain(folder, f"{order}x")
    with pytest.raises(DataError, match=r"no session 'other'.*test-1"):
        explain(folder, "other:1")
    with pytest.raises(DataError, match=r"no journal in"):
        explain(folder / "nowhere", "1")
    assert explain(folder, "2") == explain(folder, "2", "1")
    assert explain(folder, "test-1:2")["wished"] == explain(folder, "2")["wished"]


def test_a_journal_of_the_first_version_can_be_explained(tmp_path: Path, session: tuple[Path, Recorded]) -> None:
    from tests.daemon.test_journal_damage import first_version

    first_version(tmp_path / "state")
    reader = JournalReader(tmp_path / "state")
    number, _, record = next(row for row in reader.decisions(1) if row[2]["orders"])
    story = explain(tmp_path / "state", str(number))
    assert [life["order"] for life in story["sent"]] == [name for name in record["orders"] if name not in story["cancels"]]
    assert story["learned"] == [] and story["seen"]["market"] == {} and render(story)
    assert explain(tmp_path / "state", story["sent"][0]["order"])["sent"][0]["updates"]


def test_explaining_does_not_disturb_a_running_session(tmp_path: Path) -> None:
    made = Recorded(tmp_path, seconds=60)
    stories: list[dict[str, Any]] = []

    def note(event: Event, effects: Effects) -> None:
        Session._note(made, event, effects)
        decided = decisions(made)
        if len(decided) > 20 and len(stories) < 3 and effects.decision is not None:
            stories.append(explain(tmp_path, str(decided[-15].number)))

    made._note = note  # type: ignore[method-assign]
    asyncio.run(made.run())
    assert len(stories) == 3 and all(story["sent"] or story["cancels"] or story["wished"] for story in stories)
    assert explain(tmp_path, str(stories[0]["decision"]))["sent"] != []


@pytest.mark.parametrize("what", ["9" * 30, "9" * 5000, f"test:{'9' * 30}", "x" * 100_000, "\x00", "\ud800", "", "../../etc/passwd", "'; drop table", "²"])
def test_whatever_is_asked_for_is_answered_by_a_sentence(session: tuple[Path, Recorded], what: str) -> None:
    with pytest.raises(DataError):
        explain(session[0], what)
