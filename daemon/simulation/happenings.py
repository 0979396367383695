"""What befalls a run besides single messages: episodes of trouble, people at the account, deaths of the process. All by the seed."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from agents.core.errors import TradingError
from agents.core.instruments import Side
from daemon.rehearsal import errors, trade_calls
from daemon.rehearsal.protocol import Params
from daemon.simulation.disk import Disk
from daemon.simulation.exchange import Exchange
from daemon.simulation.faults import BY_NAME, Plan
from daemon.simulation.front import Front
from daemon.simulation.judge import Judge
from daemon.simulation.loop import VirtualLoop
from daemon.simulation.machine import Clocks
from daemon.simulation.network import Network
from daemon.simulation.process import Life
from daemon.simulation.timeline import NS, Timeline

TEN_MINUTES_S = 600.0


@dataclass(slots=True)
class Scene:
    """Where things happen."""

    timeline: Timeline
    plan: Plan
    exchange: Exchange
    front: Front
    network: Network
    disk: Disk
    clocks: Clocks
    judge: Judge
    life: Life | None = None
    loop: VirtualLoop | None = None
    disturbed_until: int = 0
    """Until when (ns) nobody can be expected to find out anything."""
    counts: dict[str, int] = field(default_factory=dict)


class Happenings:
    """Draws when what happens, and does it."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self._scene, self._rng = scene, rng
        self._deeds: dict[str, Callable[[float], None]] = {
            "lagging_lookups": self._lag, "unfilled_cancel": self._unfilled, "throttled": self._throttle, "bad_key": self._bad_key,
            "outage": self._outage, "disconnects": self._disconnect, "silence": self._silence, "crossed_books": self._cross,
            "crashes": self._crash, "commit_crashes": self._crash_at_commit, "stops": self._stop, "stalls": self._stall,
            "disk_full": self._fill_disk, "clock": self._set_clock, "operator": self._operator, "owner": self._owner,
        }  # fmt: skip

    def begin(self) -> None:
        """Enter the first of each kind that this seed has."""
        for name in self._deeds:
            if name in self._scene.plan:
                self._enter(name)

    def _enter(self, name: str) -> None:
        rate = self._scene.plan.rate(name)
        if rate:
            self._scene.timeline.after(self._rng.expovariate(rate / TEN_MINUTES_S), lambda: self._happen(name))

    def _happen(self, name: str) -> None:
        if self._scene.plan.calm:
            return
        longest = BY_NAME[name].longest_s
        seconds = self._rng.uniform(0.0, 1.0) ** 2 * longest
        self._scene.counts[name] = self._scene.counts.get(name, 0) + 1
        self._scene.judge.say(f"happens {name} {seconds:.3f}")
        self._deeds[name](seconds)
        self._enter(name)

    def _until(self, seconds: float) -> int:
        return self._scene.timeline.now + round(seconds * NS)

    def _disturb(self, seconds: float) -> int:
        until = self._until(seconds)
        self._scene.disturbed_until = max(self._scene.disturbed_until, until)
        return until

    # -- the exchange and the way there --------------------------------------------------------------------------------

    def _lag(self, seconds: float) -> None:
        self._scene.front.lag(self._until(seconds))

    def _unfilled(self, seconds: float) -> None:
        self._scene.front.unfilled_until = self._until(seconds)

    def _throttle(self, seconds: float) -> None:
        self._scene.front.throttle(self._disturb(seconds), banned=self._rng.random() < 0.3)

    def _bad_key(self, seconds: float) -> None:
        self._scene.front.key_refused_until = self._disturb(seconds)

    def _outage(self, seconds: float) -> None:
        self._scene.front.down_until = self._disturb(seconds)
        self._scene.network.cut()

    def _disconnect(self, seconds: float) -> None:
        self._scene.network.cut()

    def _silence(self, seconds: float) -> None:
        self._scene.front.hush(seconds)

    def _cross(self, seconds: float) -> None:
        self._scene.front.crossed_until = self._until(seconds)

    # -- the process and its machine -----------------------------------------------------------------------------------

    def _crash(self, seconds: float) -> None:
        if self._scene.loop is not None:
            self._scene.loop.crash_after(self._rng.randrange(400))

    def _crash_at_commit(self, seconds: float) -> None:
        self._scene.disk.deadly = self._rng.randrange(1, 20)

    def _stop(self, seconds: float) -> None:
        if (life := self._scene.life) is not None and life.parts is not None:
            life.parts.stop.set()

    def _stall(self, seconds: float) -> None:
        self._disturb(2 * seconds)
        self._scene.timeline.now += round(seconds * NS)

    def _fill_disk(self, seconds: float) -> None:
        self._scene.disk.full = True
        self._scene.timeline.after(seconds, self._empty_disk)

    def _empty_disk(self) -> None:
        self._scene.disk.full = False

    def _set_clock(self, seconds: float) -> None:
        jump = self._rng.choice((300, -300, 900, -900, 2_500, -2_500, 8_000, -8_000, 3_600_000, -3_600_000)) * 1_000_000
        clocks = self._scene.clocks
        if self._rng.random() < 0.7:
            clocks.machine_error += jump
        else:
            clocks.exchange_error += jump // 4 if abs(jump) < 10 * NS else 0
        repair = self._rng.uniform(5.0, 60.0)
        self._disturb(repair)
        self._scene.timeline.after(repair, self._mend_clocks)

    def _mend_clocks(self) -> None:
        self._scene.clocks.machine_error = self._scene.clocks.exchange_error = 0

    # -- people --------------------------------------------------------------------------------------------------------

    def _operator(self, seconds: float) -> None:
        word = self._rng.choice(("halt", "flatten", "cancel_all", "halt"))
        self.say(word)
        if word != "cancel_all":
            self._scene.timeline.after(self._rng.uniform(5.0, 90.0), lambda: self.say("resume"))

    def say(self, word: str) -> None:
        """The operator says it to the session that runs, if one does."""
        scene = self._scene
        if scene.life is None or scene.life.operator is None:
            return
        operator = scene.life.operator
        scene.judge.say(f"operator {word}")
        try:
            getattr(operator, word)({"reason": "drawn"})
        except TradingError:
            return
        if word in ("halt", "flatten"):
            scene.judge.stopped_at = scene.clocks.steady()() if scene.life.parts is None else scene.life.parts.door.now()
        elif word == "resume":
            scene.judge.stopped_at = None

    def _owner(self, seconds: float) -> None:
        """Somebody else's hands on the same account: they know nothing of us, and do not touch our money."""
        rng, exchange = self._rng, self._scene.exchange
        public = rng.choice(list(exchange.markets))
        listing = public.market.instrument
        match rng.choice(("deposit", "withdraw", "gift", "buy", "sell", "rest")):
            case "gift":  # nothing tells where it came from: only the operator can book it
                exchange.account.transfer(rng.choice((listing.base, listing.quote)), Decimal(rng.randrange(1, 500)) / 1000, told=False)
                self._scene.timeline.after(rng.uniform(20.0, 200.0), self._book)
            case "deposit":
                exchange.account.transfer(rng.choice((listing.base, listing.quote)), Decimal(rng.randrange(1, 500)) / 1000)
            case "withdraw":
                exchange.account.transfer(listing.quote, -Decimal(rng.randrange(1, 500)))
            case word:
                self._by_hand(public.market_id, Side.SELL if word == "sell" else Side.BUY, resting=word == "rest")
        exchange.users.flush()

    def _book(self) -> None:
        """The operator looks at the account and books what nothing explains."""
        life = self._scene.life
        if life is not None and life.reconciler is not None:
            self._scene.judge.say("operator reconcile")
            life.reconciler.apply()

    def _by_hand(self, market_id: str, side: Side, *, resting: bool) -> None:
        exchange = self._scene.exchange
        public = exchange.markets.find(market_id)
        reference = public.reference()
        if reference is None:
            return
        listing = public.market.instrument
        quantity = listing.round_quantity(Decimal(self._rng.randrange(20, 200)) / reference)
        if side is Side.SELL:  # nobody sells what we hold: the daemon would have to give it up
            self._scene.judge.truth.update()
            ours = max(self._scene.judge.truth.positions.get(public.symbol, Decimal(0)), Decimal(0))
            free, _ = exchange.matching.balance(listing.base)
            quantity = min(quantity, listing.round_quantity(max(free - 2 * ours, Decimal(0))))
        given = {"symbol": market_id, "side": side.name, "quantity": str(quantity), "newClientOrderId": f"web_{self._rng.getrandbits(40):x}"}
        if resting:
            price = listing.round_price(reference * Decimal("0.97"))
            given |= {"type": "LIMIT", "timeInForce": "GTC", "price": str(price)}
        else:
            given |= {"type": "MARKET"}
        try:
            trade_calls.place(exchange.venue, Params(given))
        except errors.ApiError:
            return

