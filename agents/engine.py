"""The straight line. One fact in, commands out; no clock, no I/O, no chance that is not in its state."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from agents.core.errors import ConfigError, ModelError, NotFinite
from agents.core.events import (
    MARKET_EVENTS,
    Adjustment,
    Adopted,
    CancelAll,
    Event,
    FeedGap,
    Fill,
    Flatten,
    Halt,
    Leased,
    NewWeights,
    OrderUpdate,
    Reconciled,
    Reload,
    Resume,
    RiskRestored,
    Stamp,
    Tick,
)
from agents.core.instruments import NS, Currency, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import Cancel, Command, OrderState, Place
from agents.desk import safety
from agents.desk.attribution import Attribution
from agents.desk.budgets import NO_ALLOWANCES, DayBudgets
from agents.desk.cadence import Cadence, Day
from agents.desk.coordinator import Evidence, make_coordinator
from agents.desk.council import Council
from agents.desk.decision import NOTHING, Decision, Effects, EngineConfig, Sitting
from agents.desk.gate import Allowance, is_stop
from agents.desk.limits import FLATTEN, Limits, RiskState
from agents.desk.planner import plan
from agents.desk.projection import SafeTarget, project
from agents.desk.protection import Need, Protection, resting
from agents.desk.rewards import CADENCES_NS, NO_FAULTS, RewardBook
from agents.desk.sheet import PlanContext, PlanMemory
from agents.desk.stops import Stops
from agents.desk.wishes import MARKET_MAKING, ORDER, PORTFOLIO, LongTermWish, StandingWishes
from agents.market.observation import ACTION_SIZES, SPEC_HASH, STATE_SIZES, Context, Observation, observe
from agents.market.state import MarketState
from agents.serving.actors import Actors

_FLOW = frozenset((*MARKET_EVENTS, Tick))
"""What concerns neither the account nor the desk."""
_NOT_OURS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What no border may hold up."""


class Engine:
    """The trading desk as one synchronous function of the facts."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.symbols = tuple(Symbol(s) for s in config.symbols)
        self.market = MarketState(self.symbols, stale_after_ns=int(config.stale_after_s * NS))
        self.ledger = Ledger(Currency(config.quote))
        self.standing = StandingWishes()
        self.stops, self.protection = Stops(), Protection(config.stop_limit_orders)
        self.attribution = Attribution(Currency(config.quote))
        self.rewards = RewardBook(config.rewards, {**CADENCES_NS, MARKET_MAKING: int(config.market_making_cadence_s * NS)})
        self.actors = Actors.prior({a: (STATE_SIZES[a], ACTION_SIZES[a]) for a in ORDER}, config.hidden_sizes, SPEC_HASH)
        self.weights_version = 0
        self.halted = False
        self.flattening = False
        self.leased = True
        """Whether this daemon, of several on the account, may trade."""
        self._cancel_all = self._without_stops = False
        self.risk = RiskState()
        self.risk.model.prepare(config.limits.risk_params())
        self.problems: dict[str, int] = {}
        """What went wrong inside the desk, by name: refused weights, agents and decisions that failed."""
        self.failed = 0
        """Turns of agents that ended in an error of theirs."""
        self._council, self._cadence = Council(config), Cadence(config)
        self.coordinator, self._budgets = make_coordinator(config.coordinator), DayBudgets(config.coordinator.budgets)
        self._number = 0
        self._next_plan = 0
        self._requote_ns = int(config.requote_after_s * NS)
        self._memory = PlanMemory()
        self._day = Day()

    # -- the line --------------------------------------------------------------------------------------------------

    def step(self, event: Event) -> Effects:
        """Take one fact; return what follows from it. Never raises for bad data: that is refused and counted."""
        self.market.apply(event)
        swapped = type(event) not in _FLOW and self._account(event)
        warm = self.halted or self._cancel_all or not self.leased or self._cadence.warm(event.stamp.at, self.market, self.ledger)
        due = self._cadence.due(self.market) if warm and not self._cancel_all else ()
        if not warm or (not due and event.stamp.at < self._next_plan):
            return Effects(swapped=swapped) if swapped else NOTHING
        return self._decide(event.stamp, due, swapped)

    def _account(self, event: Event) -> bool:
        """What is no mere flow of the market concerns the account or the desk; whether new weights serve from now on."""
        fills = self.ledger.fill_count
        self.ledger.apply(event)
        return self._listen(event, fresh=self.ledger.fill_count > fills)

    def _listen(self, event: Event, fresh: bool) -> bool:
        match event:
            case Fill() if fresh:
                order = self.ledger.orders.get(event.order_id)
                self.attribution.apply(event, order.place.shares if order else (), self._marks())
                if order is not None and is_stop(order.place):
                    self.stops.fire(event.symbol, self.market.now)
                if self.ledger.instruments[event.symbol].stop_orders:
                    self._next_plan = 0
            case Adopted(place=place):
                if place.trigger_price is not None:
                    self.stops.adopt(place.symbol, float(place.trigger_price))
            case Adjustment():
                self.attribution.carry(event)
            case NewWeights():
                return self._swap(event)
            case Halt():
                self.halted, self._next_plan = True, 0
                self.rewards.forget()
            case Flatten():
                self.halted, self.flattening, self._next_plan = True, True, 0
                self.rewards.forget()
            case Resume():
                self.halted = self.flattening = self._without_stops = False
                self.risk.release()
            case Reconciled(differences=differences):
                self.risk.reconciled, self._next_plan = not differences, 0
                if differences:
                    self.rewards.fault()
            case FeedGap():
                self.rewards.fault(event.symbol)
            case OrderUpdate():
                if event.state is OrderState.UNKNOWN or (event.state is OrderState.REJECTED and event.reason == "throttled"):
                    self.rewards.fault(event.symbol)
                if event.state.done and (ended := self.ledger.orders.get(event.order_id)) is not None and is_stop(ended.place):
                    self._next_plan = 0
            case Leased(held=held):
                self.leased, self._next_plan = held, 0
                if not held:
                    self.rewards.forget()
            case RiskRestored():
                self.risk.restore(event.peak_equity, event.capital, event.drawdown, event.rung)
            case Reload(limits=limits) if limits:
                self._take_limits(limits)
            case CancelAll():
                self._cancel_all, self._without_stops, self._next_plan = True, self.halted, 0
            case _:
                pass
        return False

    def _take_limits(self, text: str) -> None:
        """The operator's new limits; what cannot be read leaves the old ones in force."""
        try:
            self.config = replace(self.config, limits=Limits(**json.loads(text)))
        except (ConfigError, TypeError, ValueError) as error:
            self._count(f"limits_refused_{type(error).__name__}")
        else:
            self._next_plan = 0

    def _swap(self, event: NewWeights) -> bool:
        try:
            self.actors = Actors.from_payload(event.payload, SPEC_HASH)
        except ModelError as error:
            self._count(f"weights_refused_{type(error).__name__}")
            return False
        self.weights_version = event.version
        return True

    def _decide(self, stamp: Stamp, due: tuple[str, ...], swapped: bool) -> Effects:
        self._next_plan = stamp.at + self._requote_ns
        if self.halted or self._cancel_all or not self.leased:
            return self._protect(stamp, swapped)
        try:
            return self._think(stamp, due, swapped)
        except _NOT_OURS:
            raise
        except BaseException as error:  # noqa: BLE001
            # Whatever an agent, a feature or the solver throws (a panic of the solver's Rust is no Exception) is a mistake of ours:
            # nothing was recorded, so nothing was sent, and the way out of positions must not depend on the one in.
            self._count(f"decision_failed_{type(error).__name__}")
            return self._retreat(stamp, swapped)

    def _think(self, stamp: Stamp, due: tuple[str, ...], swapped: bool) -> Effects:
        sitting = self._convene(stamp, due, swapped)
        if sitting is None:
            return Effects(swapped=swapped)
        for agent in due:
            self._hear(agent, sitting)
        return self._conclude(sitting)

    def _convene(self, stamp: Stamp, due: tuple[str, ...], swapped: bool) -> Sitting | None:
        """Take stock before anybody speaks; None while there is nothing to decide about."""
        symbols = tuple(s for s in self.symbols if s in self.ledger.instruments and self.market.mark(s) is not None)
        marks, equity = self._marks(), self._value()
        if not symbols or equity is None or not self.ledger.capital:
            return None
        self.risk.mark(float(equity), float(self.ledger.capital), self.config.limits)
        today, inventory = self._today(marks), self.attribution.inventory(marks, equity)
        self.risk.turnover_day = today[1] / float(equity) if equity > 0 else 0.0
        self.risk.fees_day = today[2] / float(equity) if equity > 0 else 0.0
        self.stops.watch(self.market, self.ledger, resting(self.ledger))
        faults = self._faults(symbols) if due else NO_FAULTS
        return Sitting(stamp, due, swapped, symbols, marks, equity, today, inventory, faults, self.failed)

    def _conclude(self, sitting: Sitting) -> Effects:
        """All have spoken: their wishes become one safe target, and that becomes commands."""
        stamp, due, marks, equity = sitting.stamp, sitting.due, sitting.marks, sitting.equity
        evidence = Evidence(self.attribution, marks, equity)
        joint = self.coordinator.coordinate(self.standing, sitting.symbols, self.market.now, sitting.inventory, evidence)
        joint = self.stops.cut(joint, self._stoppable())
        left = self._budgets.left(self.market.now, self.attribution, marks, equity)
        target, cuts = self._budgets.cut(joint, left, self.attribution, marks, equity, self.ledger.instruments, self.config.limits)
        self.risk.halted = self.failed > sitting.failed  # an agent failed: what the others want may only reduce in this step
        safe = project(target, self.market, self.ledger, self.config.limits, self.risk)
        self.risk.halted = False
        if len(due) > (MARKET_MAKING in due):
            self._cross_inside(safe, marks, equity)
        context = self._plan_context(stamp, self._budgets.allowances(left, self.ledger))
        planned = plan(safe, self.market, self.ledger, self.config.limits, context)
        commands = _cancels_first([*planned.commands, *self._guard(context, planned.needs, planned.commands)])
        if not (due or commands):
            return Effects(swapped=sitting.swapped)
        digests = {agent: seen.digest() for agent, seen in sitting.observations.items()}
        decision = self._settle(
            Decision(
                self._number + 1, stamp, self.market.now, due, commands, (*planned.refusals, *self.protection.refused), digests,
                (self.weights_version, self.actors.digest), tuple(sitting.wishes), joint, safe, float(equity), self.risk.drawdown,
                cuts, self.coordinator.trusted(),
            )
        )  # fmt: skip
        return Effects(decision.commands, tuple(sitting.experiences), decision, sitting.swapped)

    def _protect(self, stamp: Stamp, swapped: bool) -> Effects:
        """Halted: cancel everything but the stops; flattening: everything, and sell what is held. Needs no agent and no solver.

        Without the lease nothing is placed, not even what protects; the stops that rest stay.
        """
        everything, self._cancel_all = self._cancel_all, False
        if not self.leased:
            return self._act_alone(stamp, [*safety.cancel_all(self.ledger, keep_stops=not everything)], swapped)
        context = self._plan_context(stamp)
        if self.flattening:
            return self._act_alone(stamp, safety.wind_down(self.market, self.ledger, self.config.limits, context), swapped)
        keep = self.config.keep_stops and not self._without_stops and not everything
        commands: list[Command] = [*safety.cancel_all(self.ledger, keep)]
        if keep:
            commands += self._stand_guard(context, commands, self._stoppable())
        return self._act_alone(stamp, commands, swapped)

    def _retreat(self, stamp: Stamp, swapped: bool) -> Effects:
        """Nobody could decide: take every order away that is no stop, and sell what the ladder or a stop wants sold."""
        context = self._plan_context(stamp)
        if self.risk.rung == FLATTEN:
            return self._act_alone(stamp, safety.wind_down(self.market, self.ledger, self.config.limits, context), swapped)
        cancels: list[Command] = [*safety.cancel_all(self.ledger, keep_stops=True)]
        return self._act_alone(stamp, [*cancels, *self._stand_guard(context, cancels, frozenset(self.symbols))], swapped)

    def _act_alone(self, stamp: Stamp, commands: list[Command], swapped: bool) -> Effects:
        """Commands that no agent asked for, as a decision of their own."""
        if not commands:
            return Effects(swapped=swapped)
        decision = self._settle(Decision(self._number + 1, stamp, self.market.now, (), _cancels_first(commands)))
        return Effects(decision.commands, (), decision, swapped)

    def _stand_guard(self, context: PlanContext, cancels: list[Command], watched: frozenset[Symbol]) -> list[Command]:
        """Stops without a plan: follow the levels of `watched` symbols, sell where one was hit, keep the orders on the exchange fit."""
        self.stops.watch(self.market, self.ledger, resting(self.ledger), watched)
        hits = self.stops.hits() & watched
        sells = safety.flatten(self.market, self.ledger, self.config.limits, context, only=hits)
        needs = {symbol: Need(sell=self.ledger.position(symbol)) for symbol in hits}
        return [*sells, *self._guard(context, needs, [*cancels, *sells])]

    def _guard(self, context: PlanContext, needs: Mapping[Symbol, Need], planned: Sequence[Command]) -> list[Command]:
        levels, hits = self.stops.prices(), self.stops.hits()
        return self.protection.guard(self.market, self.ledger, self.config.limits, context, levels, hits, needs, planned)

    def _stoppable(self) -> frozenset[Symbol]:
        """Symbols whose stops can rest on the exchange."""
        return frozenset(symbol for symbol, instrument in self.ledger.instruments.items() if instrument.stop_orders)

    def _settle(self, decision: Decision) -> Decision:
        """From here on the decision exists: its number is taken, and its commands are exposure."""
        self._number = decision.number
        for command in decision.commands:
            self.ledger.record(command, decision.stamp)
            if not isinstance(command, Cancel) and (mark := self.market.mark(command.symbol)) is not None:
                self.attribution.ask(command.order_id if isinstance(command, Place) else command.new_order_id, mark)
        return decision

    def _plan_context(self, stamp: Stamp, allowances: Mapping[str, Allowance] = NO_ALLOWANCES) -> PlanContext:
        return PlanContext(
            decision=self._number + 1,
            instance=self.config.instance,
            epoch=self.config.epoch,
            at=stamp.at,
            memory=self._memory,
            attribution=self.attribution,
            halted=self.halted,
            allowances=allowances,
            requote_after_ns=self._requote_ns,
        )

    def _cross_inside(self, safe: SafeTarget, marks: Mapping[Symbol, Decimal], equity: Decimal) -> None:
        """Opposite wishes trade between sub-accounts at the mid, whether or not anything is left for the venue."""
        for symbol, contributions in safe.contributions.items():
            if symbol in marks:
                self.attribution.wished_trades(symbol, contributions, safe.weights[symbol], equity, marks[symbol])

    def _hear(self, agent: str, sitting: Sitting) -> None:
        """One due agent looks, acts and wishes; it sees the wishes of those before it.

        An agent that fails loses its turn, and its standing wish expires; the others are heard.
        """
        try:
            seen = self._look(agent, sitting)
            self._speak(agent, seen, self._council.act(agent, self.actors, seen.matrix), sitting)
        except NotFinite:
            self._count(f"observation_not_finite_{agent}")
        except Exception as error:  # noqa: BLE001  any mistake of one agent's code: it must not silence the other three
            self._count(f"agent_failed_{agent}_{type(error).__name__}")
            self.failed += 1

    def _look(self, agent: str, sitting: Sitting) -> Observation:
        """What the agent sees at this point of the sitting."""
        moments = self.rewards.moments(
            agent, self.market.now, ledger=self.ledger, attribution=self.attribution, marks=sitting.marks, equity=sitting.equity,
            faults=sitting.faults,
        )  # fmt: skip
        context = self._context(float(sitting.equity), sitting.today, moments)
        return observe(agent, self.market, self.ledger, sitting.symbols, context)

    def _speak(self, agent: str, seen: Observation, actions: npt.NDArray[np.float32], sitting: Sitting) -> None:
        """The agent's actions become wishes; its previous decision is judged by what came of it."""
        wanted = self._council.wish(agent, seen, actions, sitting.inventory)
        self.standing.post(wanted)
        for wish in wanted:
            if isinstance(wish, LongTermWish):
                self.stops.wish(wish)
        sitting.experiences += self.rewards.on_decision(
            agent, seen, actions, wanted, ledger=self.ledger, attribution=self.attribution, symbols=sitting.symbols,
            marks=sitting.marks, equity=sitting.equity, drawdown=self.risk.drawdown, version=self.weights_version, faults=sitting.faults,
        )  # fmt: skip
        sitting.observations[agent] = seen
        sitting.wishes += wanted

    def _faults(self, symbols: tuple[Symbol, ...]) -> frozenset[Symbol]:
        """Where what is seen now cannot be believed: symbols whose data is in trouble, PORTFOLIO while the account is unreconciled."""
        account = () if self.risk.reconciled else (PORTFOLIO,)
        return self.risk.unreconciled.union((s for s in symbols if self.market.trouble(s)), account)

    def _today(self, marks: Mapping[Symbol, Decimal]) -> tuple[float, float, float]:
        """(turnover, buys, fees) in quote since the market day began."""
        ledger = self.ledger
        return self._day.since(self.market.now, (float(ledger.turnover), float(ledger.bought), float(self._fees(marks))))

    def _context(self, equity: float, today: tuple[float, float, float], moments: tuple[float, float]) -> Context:
        turnover, _, fees = today
        return Context(
            equity=equity,
            peak_equity=self.risk.peak_equity,
            wishes=self.standing.numbers(self.market.now),
            stops=self.stops.levels(self.market.now),
            turnover_day=turnover / equity if equity > 0 else 0.0,
            fees_paid_day=fees / equity if equity > 0 else 0.0,
            risk={},
            moments=moments,
        )

    # -- the account -----------------------------------------------------------------------------------------------

    def held(self) -> dict[Symbol, str]:
        """Who holds the stop of each position: `exchange`, `daemon`, or `none`."""
        levels, halted = self.stops.prices(), self.halted
        return {s: self.protection.holder(s, self.ledger, levels, halted) for s in self.ledger.symbols() if self.ledger.position(s) > 0}

    def flat(self) -> bool:
        """No live order, and nothing held that the exchange would take an order for."""
        return safety.is_flat(self.market, self.ledger, self.config.limits)

    def dust(self) -> dict[Symbol, Decimal]:
        """Positions in base units that are too small to be sold: flattening leaves them."""
        return safety.dust(self.market, self.ledger, self.config.limits)

    def _marks(self) -> dict[Symbol, Decimal]:
        return {s: mark for s in self.symbols if (mark := self.market.mark(s)) is not None}

    def _value(self) -> Decimal | None:
        try:
            return self.ledger.equity(self._marks())
        except KeyError:
            self._count("position_without_mark")
            return None

    def equity(self) -> float | None:
        """Marked equity in quote; None while a position has no mark."""
        value = self._value()
        return None if value is None else float(value)

    def priced(self, currency: Currency) -> bool:
        """Whether an amount of this currency can be told in quote: the quote itself, or the base of a traded symbol."""
        return currency == self.ledger.quote or Symbol(f"{currency}/{self.ledger.quote}") in self._marks()

    def fees_in_quote(self) -> Decimal:
        """All fees ever paid, at present marks; fees in a currency without a mark count as zero."""
        return self._fees(self._marks())

    def _fees(self, marks: Mapping[Symbol, Decimal]) -> Decimal:
        quote = self.ledger.quote
        return sum(
            (fee if c == quote else fee * marks.get(Symbol(f"{c}/{quote}"), Decimal(0)) for c, fee in self.ledger.fees.items()),
            Decimal(0),
        )

    def profits(self) -> dict[str, float]:
        """Profit by agent in quote; they sum to the account's."""
        try:
            return {agent: float(profit) for agent, profit in self.attribution.pnl(self._marks()).items()}
        except KeyError:
            return {}

    def _count(self, problem: str) -> None:
        self.problems[problem] = self.problems.get(problem, 0) + 1


def _cancels_first(commands: Sequence[Command]) -> tuple[Command, ...]:
    return tuple(sorted(commands, key=lambda command: not isinstance(command, Cancel)))
