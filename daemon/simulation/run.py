"""One seed from beginning to end: a world is made, the daemon lives in it, dies in it and comes back, and the judge looks on."""

import asyncio
import gc
import logging
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import structlog

from agents.core.errors import ReplayDiffers, TradingError
from agents.core.events import Event
from agents.core.instruments import Symbol
from agents.engine import Engine
from daemon.replay import replay
from daemon.simulation.chance import Chance
from daemon.simulation.disk import Disk, let_go
from daemon.simulation.exchange import Exchange
from daemon.simulation.faults import Plan, named
from daemon.simulation.front import Front
from daemon.simulation.happenings import Happenings, Scene
from daemon.simulation.judge import Judge, State, state_of
from daemon.simulation.learner import TEMPERS
from daemon.simulation.loop import Crashed, Stuck, VirtualLoop
from daemon.simulation.machine import Clients, Clocks, simulated_machine
from daemon.simulation.network import Network
from daemon.simulation.process import INSTANCE, Life, Machine
from daemon.simulation.timeline import Timeline

TICK_S = 0.25
CHECK_S = 1.0
CHECKS_A_SWEEP = 60
"""Garbage is collected after so many checks, and at no other time."""
CALM_S = 60.0
"""At the end nothing goes wrong for so long: time for everything that may be late."""
SPEEDS = (1.0, 10.0, 30.0)
PRINTS_A_SECOND = 2.0
RESTART_S = (0.5, 8.0)
"""Between the end of one process and the start of the next."""
_ADDRESSES = count(10_000)


@dataclass(frozen=True, slots=True)
class Options:
    """What to simulate. `learner` fixes the learner's temper, which the seed draws otherwise."""

    seed: int
    minutes: float = 10.0
    faults: str = "all"
    learner: str = ""
    trace: bool = False


class Run:
    """One seed's world."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options = options
        chance = self._chance = Chance(options.seed)
        rng = chance.stream("world")
        asked = named(options.faults)
        self._plan = Plan(asked, chance.stream("plan"), all_of_them=options.faults not in ("all", ""))
        self._timeline = timeline = Timeline()
        self._clocks = clocks = Clocks(timeline)
        symbols = ("BTC/USDT",) if rng.random() < 0.75 else ("BTC/USDT", "ETH/USDT")
        self._speed = rng.choice(SPEEDS)
        balances = {"USDT": Decimal(50_000), "BTC": Decimal(rng.choice((0, 1))), "ETH": Decimal(rng.choice((0, 5)))}
        self._exchange = Exchange(symbols, options.seed, clocks.exchange, self._speed, PRINTS_A_SECOND, {
            name: amount for name, amount in balances.items() if name == "USDT" or f"{name}/USDT" in symbols
        })  # fmt: skip
        self._front = Front(timeline, self._exchange, self._plan, chance.stream("front"))
        self._network = Network(timeline, self._front, self._front)
        self._disk = Disk(chance.stream("disk"))
        self._judge = Judge(timeline, self._exchange, INSTANCE)
        self._judge.trace = [] if options.trace else None
        self._judge.on_breach = self._end_at_once
        self._disk.committed = self._judge.durable
        self._front.on_order = self._judge.arrived
        self._front.tell = self._judge.say
        self._scene = Scene(timeline, self._plan, self._exchange, self._front, self._network, self._disk, clocks, self._judge)
        self._happenings = Happenings(self._scene, chance.stream("happenings"))
        self._machine = Machine(
            folder, self._disk, clocks, Clients(self._network.session), tuple(Symbol(s) for s in symbols),
            f"http://127.0.0.1:{next(_ADDRESSES)}", seed=options.seed, cadence_s=max(5.0, self._speed),
            orders_over=rng.choice(("auto", "auto", "rest")), sell_without_record=rng.random() < 0.5,
            stops=rng.random() < 0.75,
        )  # fmt: skip
        self._temper = options.learner or (rng.choice(TEMPERS) if "learner" in self._plan else "lively")
        self._pauses = chance.stream("restarts")
        self._kept: list[Any] = []
        self._lives: list[str] = []
        self._over = False
        self._last_tick = self._checks = 0

    def go(self) -> dict[str, Any]:
        """Run it; the report as plain JSON values."""
        self._timeline.after(TICK_S, self._tick)
        self._timeline.after(CHECK_S, self._check)
        self._timeline.after(self._options.minutes * 60.0, self._calm)
        self._happenings.begin()
        while not self._over and not self._judge.broken:
            self._live()
        return self._report()

    @property
    def trace(self) -> list[str]:
        """The event log, where it was asked for."""
        return self._judge.trace or []

    def forget(self) -> None:
        """Let go of the dead."""
        self._kept.clear()

    # -- lives ---------------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        scene, number = self._scene, len(self._lives)
        loop = VirtualLoop(self._timeline, self._chance.stream(f"loop {number}"))
        life = Life(self._machine, self._judge.step, self._chance.stream(f"learner {number}"), self._temper)
        scene.loop, scene.life = loop, life
        self._judge.say(f"life {number}")
        how = "stopped"
        try:
            loop.run(life.live(lambda _: None))
        except Crashed as crash:
            how = f"crashed: {crash}"
        except Stuck as stuck:
            how = "stuck"
            self._judge.breach("I1", f"the daemon waits for ever: {stuck}")
        except TradingError as error:
            how = f"{type(error).__name__}: {error}"
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever else ends a session is a defect, and is reported as one
            how = f"{type(error).__name__}: {error}"
            self._judge.breach("X", f"the session ended by {how}, at {_place(error)}"[:600])
        self._lives.append(how[:300])
        self._judge.say(f"ended {how.partition(':')[0]}")
        scene.loop = scene.life = None
        kept = self._judge.kept
        self._bury(loop, life)
        if life.journal is not None and not self._judge.broken:
            self._look_back(life, kept)
        if how == "stopped" and self._plan.calm:
            self._over = True
            if life.parts is not None and not self._judge.broken:
                self._judge.final(life.parts.engine)
        if not self._over and not self._judge.broken:
            pause = VirtualLoop(self._timeline, self._chance.stream(f"pause {number}"))
            scene.loop = None
            pause.run(asyncio.sleep(self._pauses.uniform(*RESTART_S)))

    def _bury(self, loop: VirtualLoop, life: Life) -> None:
        loop.abandon()
        self._network.kill()
        self._judge.died()
        self._disk.deadly = 0
        if life.journal is not None:
            let_go(life.journal)
        self._kept += [loop, life]

    def _look_back(self, life: Life, kept: tuple[int, State] | None) -> None:
        """I6 and I7: the record of the life that has just ended gives the same decisions and the same state again."""
        assert life.journal is not None
        again: list[State] = []

        def watch(event: Event, engine: Engine) -> None:
            if kept is not None and event.stamp.seq == kept[0]:
                again.append(state_of(engine))

        try:
            found = replay(self._machine.folder, str(life.journal.epoch), watch)
        except (TradingError, ReplayDiffers) as error:
            self._judge.breach("I7", f"session {life.journal.name} cannot be replayed: {error}"[:500])
            return
        if not found["equal"]:
            self._judge.breach("I7", f"session {life.journal.name}: {found['first_difference']}"[:500])
        elif kept is not None and again and again[0] != kept[1]:
            parts = [f"{now} instead of {was}" for was, now in zip(kept[1], again[0], strict=True) if was != now]
            self._judge.breach("I6", f"session {life.journal.name} after fact {kept[0]}: {'; '.join(parts)}"[:500])

    def _end_at_once(self) -> None:
        if self._scene.loop is not None:
            self._scene.loop.crash_after(0)

    # -- the world goes on ---------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._timeline.now
        self._exchange.tick(now - self._last_tick)
        self._last_tick = now
        self._timeline.after(TICK_S, self._tick)

    def _check(self) -> None:
        life = self._scene.life
        parts = life.parts if life is not None else None
        clear = parts is not None and parts.status.ready and self._timeline.now > self._scene.disturbed_until
        self._judge.check(parts.engine if parts is not None else None, CHECK_S if clear else 0.0)
        self._checks += 1
        if self._checks % CHECKS_A_SWEEP == 0:
            gc.collect()
        self._timeline.after(CHECK_S, self._check)

    def _calm(self) -> None:
        self._judge.say("calm")
        self._plan.calm = True
        self._front.calm()
        self._disk.full, self._disk.deadly = False, 0
        self._clocks.machine_error = self._clocks.exchange_error = 0
        self._timeline.after(CALM_S, self._stop)

    def _stop(self) -> None:
        life = self._scene.life
        if life is None or life.parts is None:
            self._timeline.after(5.0, self._stop)  # a session is just starting
            return
        self._judge.say("stop")
        life.parts.stop.set()

    def _report(self) -> dict[str, Any]:
        happened = {**self._scene.counts}
        for name, times in self._front.happened.items():
            happened[name] = happened.get(name, 0) + times
        return {
            "seed": self._options.seed, "minutes": self._options.minutes, "faults": self._plan.names, "learner": self._temper,
            "symbols": list(self._machine.symbols), "speed": self._speed, "digest": self._judge.digest,
            "broken": [breach.row() for breach in self._judge.broken[:5]], "lives": self._lives, "events": self._judge.events,
            "commands": self._judge.commands, "requests": self._front.requests, "fills": len(self._judge.truth.trades),
            "happened": dict(sorted(happened.items())), "simulated_s": round(self._timeline.seconds, 1),
        }  # fmt: skip


@contextmanager
def quiet() -> Iterator[None]:
    """No log of the simulated sessions, and no complaints of the dead."""
    unraisable, structured, disabled = sys.unraisablehook, structlog.get_config(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False)
    sys.unraisablehook = lambda _: None
    collects = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()  # what the collector finds may run code: it runs when the simulation says so
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # coroutines of the dead that were never awaited
        try:
            yield
        finally:
            gc.unfreeze()
            gc.collect()
            if collects:
                gc.enable()
            sys.unraisablehook = unraisable
            structlog.configure(**structured)
            logging.disable(disabled)


def _place(error: BaseException) -> str:
    """Where it was raised: the last frames, innermost first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def simulate_seed(options: Options) -> tuple[dict[str, Any], list[str]]:
    """The report of one seed, and its trace where asked for. Raises ConfigError for faults that are not in the catalogue."""
    shared = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(prefix="quartet-", dir=shared if shared.is_dir() else None) as folder,
        quiet(),
    ):
        run = Run(options, Path(folder))
        with simulated_machine(run._clocks, options.seed):
            report = run.go()
        trace = run.trace
        run.forget()
        del run
    return report, trace

