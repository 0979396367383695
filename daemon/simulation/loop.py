"""An event loop on virtual time: nothing sleeps, nothing leaves the process, and the seed chooses the order where nobody promises one.

What is kept: callbacks of `call_soon` run in their order, timers in order of their times, arrivals from the world in order of theirs.
What the seed chooses: the order in which tasks take their steps within one turn of the loop, how arrivals and timers that are due
at the same turn interleave, and how long each step takes. A loop can be abandoned between any two steps, as a killed process is.
"""

import asyncio
import contextvars
import heapq
import random
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, Unpack

from daemon.simulation.timeline import NS, Timeline

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Context = contextvars.Context | None

STEP_NS = 15_000
"""Virtual time that one step takes, on average; so that time passes while a task computes."""
MIXED = 0.35
"""Share of turns in which the tasks' order is drawn."""


class Crashed(SystemExit):
    """The simulated process ends here, without a word: asyncio lets this pass everything, as it does with a real exit."""


class Stuck(RuntimeError):
    """Nothing is ready and nothing will be: the daemon waits for ever."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs coroutines on a timeline; `rng` orders what has no order."""

    _active = False

    def __init__(self, timeline: Timeline, rng: random.Random) -> None:
        super().__init__()
        self._timeline, self._rng = timeline, rng
        self._steps: deque[tuple[asyncio.Handle, bool]] = deque()
        """Handles, and whether each is the step of a task."""
        self._timers: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._entered = 0
        self._left: int | None = None
        self._generators: list[Any] = []
        self.taken = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self.troubles: list[dict[str, Any]] = []
        """What asyncio would have logged: exceptions in callbacks, exceptions that nobody asked for."""

    def __del__(self) -> None:
        """Nothing is held: a loop that is dropped leaves nothing open."""

    # -- running -------------------------------------------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run until `main` ends; its result or its exception. Raises Crashed and Stuck."""
        task: asyncio.Task[T] = asyncio.Task(main, loop=self)
        self.tasks.append(task)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._generators.append, finalizer=self._finalize)
        asyncio._set_running_loop(self)
        self._active = True
        try:
            while not task.done():
                self._turn()
            return task.result()
        finally:
            self._active = False
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def crash_after(self, steps: int) -> None:
        """End the process after so many more steps, wherever that is."""
        self._left = steps

    def abandon(self) -> None:
        """Keep what a killed process left from being cleaned up: no `finally` of it may run."""
        self.close()
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # silence: it is destroyed on purpose
        self._steps.clear()
        self._timers.clear()

    def _turn(self) -> None:
        timeline, ready, timers = self._timeline, self._steps, self._timers
        if not ready:
            due = [when for when in (timers[0][0] if timers else None, timeline.due) if when is not None]
            if not due:
                raise Stuck("nothing is ready and nothing will be")
            timeline.now = max(timeline.now, min(due))
        self._gather()
        batch = [ready.popleft() for _ in range(len(ready))]
        if len(batch) > 1 and self._rng.random() < MIXED:
            batch = self._mixed(batch)
        for handle, _ in batch:
            if handle.cancelled():
                continue
            self.taken += 1
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    raise Crashed(f"killed at {timeline.seconds:.3f} s, step {self.taken}")
            handle._run()
            timeline.now += STEP_NS

    def _gather(self) -> None:
        """Move what is due into the ready queue: arrivals and timers each in their order, interleaved by the seed."""
        timeline, timers = self._timeline, self._timers
        arrivals: deque[asyncio.Handle] = deque()
        fired: deque[asyncio.Handle] = deque()
        while (action := timeline.take()) is not None:
            arrivals.append(asyncio.Handle(action, (), self))
        while timers and timers[0][0] <= timeline.now:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                fired.append(handle)
        while arrivals and fired:
            source = arrivals if self._rng.random() < 0.5 else fired
            self._steps.append((source.popleft(), False))
        self._steps.extend((handle, False) for handle in (*arrivals, *fired))

    def _mixed(self, batch: list[tuple[asyncio.Handle, bool]]) -> list[tuple[asyncio.Handle, bool]]:
        """The steps of tasks in another order, everything else where it was."""
        places = [place for place, (_, step) in enumerate(batch) if step]
        if len(places) > 1:
            shuffled = [batch[place] for place in places]
            self._rng.shuffle(shuffled)
            for place, entry in zip(places, shuffled, strict=True):
                batch[place] = entry
        return batch

    def _finalize(self, generator: Any) -> None:
        if not self.is_closed():
            self.call_soon(self.create_task, generator.aclose())

    # -- what asyncio asks of a loop -----------------------------------------------------------------------------------

    def time(self) -> float:
        return self._timeline.now / NS

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.is_closed():
            self._steps.append((handle, isinstance(getattr(callback, "__self__", None), asyncio.Task)))
        return handle

    def call_soon_threadsafe(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.is_closed():
            self._entered += 1
            heapq.heappush(self._timers, (-int(-when * NS // 1), self._entered, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""

    def create_task(self, coro: Any, *, name: Any = None, context: contextvars.Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        if len(self.tasks) > 4096:
            self.tasks = [known for known in self.tasks if not known.done()]
        return task

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """There are no threads: the call is made here and now."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits the future
            future.set_exception(error)
        return future

    def is_running(self) -> bool:
        return self._active

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.troubles.append(context)
