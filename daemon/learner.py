"""The learner process as the session sees it: rows go in without waiting, checked weights come out, and it may die at will.

Nothing here can hold up trading: rows wait in a bounded queue whose oldest give way, and the process is started again with
back-off whenever it ends, hangs or talks nonsense.
"""

import asyncio
import hashlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from agents.core.errors import DataError, ModelError
from agents.core.events import UNSTAMPED, NewWeights
from agents.market.observation import Experience
from agents.serving.actors import Actors
from daemon import learner_frames

log = structlog.get_logger()

KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
"""What the learner inherits of our environment: never the exchange's keys."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
EXIT_S = 15.0
"""From the end of a process's output to its own, which takes long when it gets no processor."""
NICENESS = 10
"""Low, and SCHED_BATCH, whose waking up interrupts nobody: a tenth of a busy core, all of an idle one. At 19, or under SCHED_IDLE, a
busy machine lets it starve for minutes before its first weights, and trading was not seen to be disturbed less (docs/performance.md)."""
FIRST_TO_GO = 600
"""Where memory runs out, the kernel is to take the learner and not the process that trades."""
STARVED_SHARE = 0.05
"""Less of a processor than this, with work waiting, is no learning worth the name."""
LOOK_S = 20.0
"""Between two looks at a process that says nothing."""
STARVED_REPORTS = 10
"""So many thin reports in a row, each at least a second after the one before."""
HEALTHY_S = 60.0
"""A process that lived so long starts the back-off anew."""


@dataclass(frozen=True, slots=True)
class LearnerOptions:
    """What the learner process is told. From `learning_rate` on, the names are those of the section reinforcement_learning.

    `reward_scale` is not among them: rewards are scaled where they are made (agents/desk/rewards/).
    """

    state: Path
    """Folder for replay buffers and checkpoints."""
    specs: tuple[tuple[str, int, int, str], ...]
    """(agent, state size, action size, hash of its columns)."""
    spec: str
    """Hash over all observation specs; weights of another one are refused."""
    learning_rate: float = 3e-4
    batch_size: int = 256
    replay_buffer_size: int = 1_000_000
    gamma: float = 0.99
    tau: float = 0.005
    alpha: float = 0.2
    automatic_entropy_tuning: bool = True
    hidden_sizes: tuple[int, ...] = (256, 256)
    update_to_data: float = 4.0
    min_rows: int = 32
    publish_every_s: float = 15.0
    seed: int = 0
    device: str = "cpu"
    offline_data: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    queue_rows: int = 8192
    """Rows that wait for a process that is busy or being restarted; the oldest give way."""
    start_s: float = 180.0
    """A process that has said nothing for so long after its start hangs: it loads torch first, at a low priority."""
    silence_s: float = 60.0
    """The same of one that has spoken before: it reports every second, but for the longest save."""
    first_backoff_s: float = 0.5
    longest_backoff_s: float = 60.0
    command: tuple[str, ...] = (sys.executable, "-m", "daemon.learner_process")
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the process must know besides: the password of a Redis that it goes through."""


class LearnerClient:
    """Supervises the learner process. `deliver` gets each new NewWeights, unstamped; `clock` gives nanoseconds for `heard_at`."""

    def __init__(
        self,
        options: LearnerOptions,
        deliver: Callable[[NewWeights], Awaitable[None] | None],
        clock: Callable[[], int],
    ) -> None:
        self._options, self._deliver, self._clock = options, deliver, clock
        self._queue: deque[Experience] = deque()
        self._wake, self._stopping, self._ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._process: Process | None = None
        self._last_digest = ""
        self._heard, self._hung, self._thin_reports = asyncio.Event(), "", 0
        self._sent = 0
        self._received_before = 0
        self._words: deque[str] = deque(maxlen=20)
        self._code = 0
        self.status: dict[str, Any] = {
            "state": "off", "pid": None, "restarts": 0, "updates": 0, "experiences": 0, "version": 0, "critic_loss": None,
            "actor_loss": None, "alpha": None, "entropy": None, "queued": 0, "dropped": 0, "lost": 0, "rows_refused": 0,
            "weights_refused": 0, "heard_at": 0, "error": "", "drift": {}, "agents": {},
            "withheld": "", "refused_candidates": 0, "reverts": 0, "behind": 0, "processor_share": None, "starved": "",
        }  # fmt: skip

    def offer(self, experiences: Sequence[Experience]) -> None:
        """Queue rows for the learner; never waits. When the queue is full the oldest are dropped and counted."""
        self._queue.extend(experiences)
        while len(self._queue) > self._options.queue_rows:
            self._queue.popleft()
            self.status["dropped"] += 1
        self.status["queued"] = len(self._queue)
        self._wake.set()

    async def run(self) -> None:
        """Keep a learner process alive until `stop`. Never raises for what the process does."""
        loop = asyncio.get_running_loop()
        wait_s = self._options.first_backoff_s
        try:
            while not self._stopping.is_set():
                started = loop.time()
                reason = await self._life()
                if self._stopping.is_set():
                    self._say_how_it_ended(reason)
                    break
                if loop.time() - started > HEALTHY_S:
                    wait_s = self._options.first_backoff_s
                self.status |= {"state": "restarting", "error": reason, "restarts": self.status["restarts"] + 1}
                log.warning("learner_ended", reason=reason, restart_in_s=wait_s, restarts=self.status["restarts"])
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._stopping.wait()
                wait_s = min(wait_s * 2, self._options.longest_backoff_s)
        finally:
            self.status |= {"state": "off", "pid": None}
            self._ended.set()

    async def stop(self, timeout: float = 10.0) -> None:
        """Let the learner take what is queued, save and end; after `timeout` seconds it is killed."""
        self._stopping.set()
        self._wake.set()
        if self._process is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            log.warning("learner_killed", reason="it did not end in time", timeout_s=timeout)
            if self._process is not None:
                _kill(self._process)

    async def _life(self) -> str:
        """One process from start to end; why it ended."""
        try:
            process = await self._start()
        except OSError as error:
            return f"the learner could not be started: {error}"
        self._process, reason = process, ""
        try:
            async with asyncio.TaskGroup() as group:
                feeding, listening = group.create_task(self._feed(process)), group.create_task(self._listen(process))
                watching = group.create_task(self._watch(process))
                reason = await self._converse(process)
                feeding.cancel()
                watching.cancel()
                with suppress(TimeoutError):
                    async with asyncio.timeout(EXIT_S):
                        await process.wait()
                        await listening
                listening.cancel()
        finally:
            _kill(process)
            self._code = await process.wait()
            self._account()
            self._process = None
        words = f" ({self._words[-1]})" if self._code and self._words else ""
        return reason or f"the learner process ended with code {self._code}{words}"

    def _say_how_it_ended(self, reason: str) -> None:
        if self._code:
            self.status["error"] = reason
            log.warning("learner_ended", reason=reason, restarts=self.status["restarts"])

    async def _start(self) -> Process:
        options = self._options
        options.state.mkdir(parents=True, exist_ok=True)
        root = str(Path(__file__).parents[1])
        environment = {name: os.environ[name] for name in KEPT if name in os.environ} | dict.fromkeys(THREADS, "1") | dict(options.environment)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH", ""))))
        process = await asyncio.create_subprocess_exec(
            *options.command, "--state", str(options.state.absolute()), stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment,
        )  # fmt: skip
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
            if sys.platform == "linux":
                os.sched_setscheduler(process.pid, os.SCHED_BATCH, os.sched_param(0))
        with suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text(f"{FIRST_TO_GO}")
        self._words.clear()
        self._heard.clear()
        self._hung, self._thin_reports = "", 0
        self._sent = self._received_before = 0
        self.status |= {"state": "starting", "pid": process.pid}
        return process

    def _configure(self) -> bytes:
        ours = ("state", "queue_rows", "start_s", "silence_s", "first_backoff_s", "longest_backoff_s", "command", "environment")
        told = {name: getattr(self._options, name) for name in self._options.__slots__ if name not in ours}
        return learner_frames.pack("configure", told)

    async def _feed(self, process: Process) -> None:
        """Send what is queued; close the process's input when stopping, which asks it to save and end."""
        stream = process.stdin
        assert stream is not None
        with suppress(ConnectionError):  # It died; _converse notices and says why.
            stream.write(self._configure())
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    rows = [self._queue.popleft() for _ in range(min(len(self._queue), learner_frames.ROWS_PER_FRAME))]
                    self._sent += len(rows)
                    self.status["queued"] = len(self._queue)
                    stream.write(learner_frames.pack_experiences(rows))
                    await stream.drain()
                if self._stopping.is_set():
                    stream.close()
                    return

    async def _listen(self, process: Process) -> None:
        """Keep the last words of standard error: they say why a process died."""
        assert process.stderr is not None
        while not process.stderr.at_eof():
            with suppress(ValueError):  # Longer than the stream's limit: left out.
                if words := (await process.stderr.readline()).decode(errors="replace").strip():
                    self._words.append(words[:500])

    async def _converse(self, process: Process) -> str:
        """Take frames until the process ends, hangs or talks nonsense; why, or empty when it just ended."""
        assert process.stdout is not None
        reason = ""
        while True:
            try:
                frame = await learner_frames.read(process.stdout)  # _watch ends the process that says nothing, and so this.
            except DataError as error:
                _kill(process)
                return self._hung or reason or f"the learner's output cannot be read: {error}"
            if frame is None:
                return self._hung or reason
            self._heard.set()
            self.status["heard_at"] = self._clock()
            match frame.kind:
                case "status":
                    self._note(frame.header)
                case "weights":
                    await self._take(frame)
                case "fault":
                    reason = str(frame.header.get("reason", "the learner gave up"))
                case _:
                    _kill(process)
                    return f"the learner sent a frame of unknown kind {frame.kind!r}"

    async def _watch(self, process: Process) -> None:
        """Kill a process that says nothing for too long. One that only gets no processor is waited for, and that is said."""
        longest, silent_s, before = self._options.start_s, 0.0, 0.0
        while True:
            look_s = min(longest, LOOK_S)
            try:
                async with asyncio.timeout(look_s):
                    await self._heard.wait()
                self._heard.clear()
                longest, silent_s, before = self._options.silence_s, 0.0, _processor(process.pid)[1]
            except TimeoutError:
                silent_s += look_s
                state, after = _processor(process.pid)
                if starving(state, after - before, silent_s):
                    self._say_starved(f"it had {after - before:.1f} s of a processor in {silent_s:g} s")
                elif silent_s >= longest:
                    self._hung = f"the learner said nothing for {longest:g} s"
                    _kill(process)
                    return

    def _say_starved(self, words: str) -> None:
        if words and not self.status["starved"]:
            log.warning("learner_starved", reason=words, updates=self.status["updates"])
        elif self.status["starved"] and not words:
            log.info("learner_fed", updates=self.status["updates"])
        self.status["starved"] = words

    def _note(self, header: dict[str, Any]) -> None:
        was, now = self.status["updates"], header.get("updates", 0)
        self._received_before = int(header.get("received", 0))
        header.pop("received", None)
        version = header.pop("published_version", 0)
        if self.status["state"] == "starting" and self.status["restarts"]:
            log.info("learner_back", updates=now, version=version)
        if (withheld := str(header.get("withheld", ""))) != self.status["withheld"]:
            if not withheld:
                log.info("weights_released", updates=now)
            elif not self.status["withheld"]:
                log.warning("weights_withheld", reason=withheld, updates=now)
        self.status |= header | {"state": "learning" if now != was else "waiting"}
        share = header.get("processor_share")
        thin = isinstance(share, float) and share < STARVED_SHARE and header.get("behind", 0) > 0
        self._thin_reports = self._thin_reports + 1 if thin else 0
        if not thin:
            self._say_starved("")
        elif self._thin_reports >= STARVED_REPORTS:
            self._say_starved(f"it gets {share:.1%} of a processor, and {header['behind']} updates wait")

    async def _take(self, frame: learner_frames.Frame) -> None:
        """Weights become an event only when their bytes are what was hashed, they fit the specs, and all are finite."""
        digest = hashlib.sha256(frame.body).hexdigest()
        if digest == self._last_digest:
            return
        try:
            if digest != frame.header.get("digest"):
                raise ModelError("their SHA-256 is not what the learner said")
            actors = Actors.from_payload(frame.body, self._options.spec)
            wanted = {agent: (state, action) for agent, state, action, _ in self._options.specs}
            if actors.sizes != wanted:
                raise ModelError(f"their sizes are {actors.sizes}, not {wanted}")
        except ModelError as error:
            self.status["weights_refused"] += 1
            self.status["error"] = f"weights refused: {error}"
            log.error("weights_refused", reason=str(error))
            return
        self._last_digest = digest
        self.status["version"] = actors.version
        log.info("weights", version=actors.version, digest=digest[:12], drift=frame.header.get("drift"))
        waiting = self._deliver(NewWeights(UNSTAMPED, actors.version, digest, self._options.spec, frame.body))
        if waiting is not None:
            await waiting

    def _account(self) -> None:
        """Rows on their way to a process that died: it may have kept some of them, so this is an upper bound."""
        self.status["lost"] += max(0, self._sent - self._received_before)


class NoLearner:
    """What stands in a learner's place where nobody decides: there is nothing to learn from."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {"state": "off", "pid": None, "restarts": 0, "updates": 0, "experiences": 0, "version": 0}

    def offer(self, experiences: Sequence[Experience]) -> None:
        """Nobody decides, so nothing comes."""

    async def run(self) -> None:
        """Nothing to do."""

    async def stop(self, timeout: float = 0.0) -> None:
        """Nothing to end."""


def starving(state: str, used_s: float, silence_s: float) -> bool:
    """Whether a silent process would run if it could: it is runnable or reads its files (R, D), and was hardly let run. A hung one sleeps, or spins."""
    return state in ("R", "D") and used_s < STARVED_SHARE * silence_s


def _processor(pid: int) -> tuple[str, float]:
    """State letter of a process and the seconds of a processor that it has used; ("", 0) where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return "", 0.0


def _kill(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
