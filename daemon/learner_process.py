"""The learner as a process of its own: experiences in, checked weights out, and no way to touch an order.

Runs on one thread, and its parent puts it at the lowest priority before it loads torch. Reads frames from standard input and
writes frames to standard output. It ends, after saving, when its input ends or its parent dies. What it cannot go on from
(weights that left the ground, a damaged or foreign file) it reports as a fault and exits; its parent starts it again, and it
resumes from the last checkpoint.
"""

import argparse
import asyncio
import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from agents.core.errors import DataError, Diverged, ModelError, TradingError
from agents.learning.fast import fastest_products
from agents.learning.guards import Refused
from agents.learning.learner import AgentSpec, Learner, LearnerConfig, average, found_device
from agents.learning.options import Options
from agents.learning.replay import ReplayBuffer
from agents.learning.sac import SACConfig
from daemon import learner_frames
from daemon.door import MonotonicClock
from daemon.learner_history import History

STATUS_S = 1.0
IDLE_S = 0.25
WRITE_WITHIN_S = 30.0
END_WITHIN_S = 20
SLOWEST = 20
"""Publications start at a third of `publish_every_s` apart and double up to this many times it: weights are a megabyte or two
each and all go into the journal."""
PATIENCE = 3
"""So many refused candidates in a row send the learner back to its last publication, and so many ways back without a
publication in between end the process."""
TQC_QUANTILES = 25
"""Kuznetsov et al. 2020."""
FORMAT = 2
"""Of what lies in a learner's folder."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until the input ends; exit code 0, or 1 after a fault."""
    parser = argparse.ArgumentParser(prog="python -m daemon.learner_process", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="where replay buffers and checkpoints lie")
    state = parser.parse_args().state
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; our parent decides when we end.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    output = os.dup(1)
    os.dup2(2, 1)  # Whatever a library prints must not land among the frames.
    os._exit(asyncio.run(_serve(state, output)))  # All is saved, and torch takes long to be torn down.


async def _serve(state: Path, output: int) -> int:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(output, "wb", 0))
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        first = await learner_frames.read(reader)
        if first is None:
            return 0
        learner = _learner(first, state)
        return await _Work(learner, History(state), first.header["publish_every_s"], reader, writer).run()
    except (TradingError, OSError) as error:
        with suppress(OSError, TimeoutError):
            await _write(writer, learner_frames.pack("fault", {"reason": f"{type(error).__name__}: {error}"}))
        return 1


def _learner(frame: learner_frames.Frame, state: Path) -> Learner:
    if frame.kind != "configure":
        raise DataError(f"the first frame must be configure, not {frame.kind}")
    given = frame.header
    hidden = tuple(given["hidden_sizes"])
    names = ("learning_rate", "batch_size", "gamma", "tau", "alpha", "automatic_entropy_tuning")
    sac = SACConfig(policy_hiddens=hidden, q_hiddens=hidden, **{name: given[name] for name in names})
    specs = [AgentSpec(*spec) for spec in given["specs"]]
    options, accumulate = _options(given["options"], [spec.name for spec in specs])
    config = LearnerConfig(
        sac, given["replay_buffer_size"], given["min_rows"], given["update_to_data"], device=given["device"], options=options,
        accumulate=accumulate,
    )  # fmt: skip
    # Other columns, agents, widths, options or kinds of device learn in a folder of their own: nothing is reshaped, and nothing that was learned is lost.
    plain = accumulate == 1 and all(one == Options() for one in options.values())
    changed = [] if plain else [{name: asdict(one) for name, one in options.items()}, accumulate]
    shape = json.dumps([FORMAT, given["spec"], given["specs"], hidden, found_device(config.device), *changed])
    folder = state / hashlib.sha256(shape.encode()).hexdigest()[:16]
    largest = max(specs, key=lambda one: one.state_dim)
    products = fastest_products(asyncio.get_running_loop().time, largest.state_dim, largest.action_dim, sac)
    return Learner(specs, config, given["seed"], folder, given["spec"], products, _offline(given["offline_data"], specs))


def _options(given: Mapping[str, Any], agents: list[str]) -> tuple[dict[str, Options], int]:
    """What is changed, by agent, and the number of batches an update; only the risk agent is averse to the tail."""
    told = dict(given)
    accumulate, cvar, longest = told.pop("accumulate", 1), told.pop("risk_cvar", 1.0), told.pop("max_gradient_norm", None)
    shared = Options(**told, **({} if longest is None else {"max_gradient_norm": longest}))
    options = dict.fromkeys(agents, shared)
    if cvar < 1 and "risk" in options:
        options["risk"] = replace(shared, cvar=cvar, quantiles=shared.quantiles or TQC_QUANTILES)
    return options, accumulate


def _offline(paths: list[str], specs: list[AgentSpec]) -> dict[str, ReplayBuffer]:
    if not paths:
        return {}
    from agents.jobs.datasets import offline_rings  # It brings polars, which a learner without such files does not need.

    return offline_rings([Path(path) for path in paths], {one.name: (one.state_dim, one.action_dim, one.hash) for one in specs})


class _Work:
    """Takes rows as they come, learns in between, reports every second and publishes when due."""

    def __init__(
        self, learner: Learner, history: History, every_s: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._learner, self._history, self._reader, self._writer = learner, history, reader, writer
        self._clock, self._noted_updates = MonotonicClock(), -1
        self._received, self._refused = 0, 0
        self._error, self._fault, self._withheld = learner.notice, "", ""
        self._refusals = self._reverts = self._ways_back = 0
        self._figures: dict[str, dict[str, float]] = {}
        self._drift: dict[str, float] = {}
        self._ended, self._arrived = asyncio.Event(), asyncio.Event()
        self._interval, self._slowest = every_s / 3, every_s * SLOWEST
        self._publish_at: float | None = None
        self._published_updates = learner.updates
        self._used = (0.0, 0.0)
        """Seconds of a processor that this process had used, and when."""

    async def run(self) -> int:
        """Exit code: 0 after the input's end, 1 after a fault. Raises OSError when the last save fails."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._ended.set)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read())
            await self._until_end()
            reading.cancel()
        signal.alarm(END_WITHIN_S)  # Whatever hangs from here on, nobody is left to end it.
        with suppress(OSError):
            if self._fault:
                await _write(self._writer, learner_frames.pack("fault", {"reason": self._fault}))
                return 1
        with suppress(OSError):
            await self._report()
        self._learner.close()
        return 0

    async def _until_end(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._report()
            if self._learner.version:
                await self._send_weights(self._learner.version, self._learner.payload(), {})
            report_at = loop.time() + STATUS_S
            while not self._ended.is_set():
                await self._learn()
                if self._fault:
                    return
                if loop.time() >= report_at:
                    report_at = loop.time() + STATUS_S
                    self._flush()
                    await self._report()
                await self._publish_if_due(loop.time())
        except OSError:
            pass  # Nobody reads us: the parent is gone or hangs, and what was learned is saved below.

    async def _read(self) -> None:
        """Rows go to their ring as they come; the pipe itself holds the sender back when they come too fast."""
        try:
            while (frame := await learner_frames.read(self._reader)) is not None:
                self._take(frame)
                self._arrived.set()
        except DataError as error:
            self._error = str(error)
        self._ended.set()
        self._arrived.set()

    def _take(self, frame: learner_frames.Frame) -> None:
        rows = int(frame.header.get("rows", 0))
        self._received += rows
        try:
            agent, columns = learner_frames.unpack_experiences(frame)
            self._learner.add(agent, *columns)
        except (DataError, ModelError, OSError) as error:
            self._refused += rows
            self._error = f"rows refused: {error}"

    async def _learn(self) -> None:
        try:
            infos = self._learner.step()
        except Diverged as error:
            self._go_back(str(error))
            return
        if infos is not None:
            self._figures |= infos
            await asyncio.sleep(0)
            return
        self._arrived.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_S):
                await self._arrived.wait()

    async def _publish_if_due(self, now: float) -> None:
        if self._learner.updates == self._published_updates:
            return
        if self._publish_at is None:
            self._publish_at = now + self._interval
        if now < self._publish_at:
            return
        self._interval = min(self._interval * 2, self._slowest)
        self._publish_at = now + self._interval
        try:
            published = self._learner.publish()
        except OSError as error:
            self._error = f"weights not saved and not published: {error}"
            return
        except Diverged as error:
            self._go_back(str(error))
            return
        except Refused as error:
            self._refusals += 1
            self._withheld = str(error)
            if self._refusals % PATIENCE == 0:
                self._go_back(self._withheld)
            return
        self._withheld, self._refusals, self._ways_back = "", 0, 0
        self._published_updates, self._drift = self._learner.updates, published.drift
        await self._send_weights(published.version, published.payload, published.drift)

    def _go_back(self, reason: str) -> None:
        """To what was last published, and on from there with other chance; too often without a publication is a fault."""
        self._withheld = reason
        self._ways_back += 1
        self._reverts += 1
        if self._ways_back > PATIENCE:
            self._fault = f"Diverged: {reason}"
            return
        self._learner.revert()

    async def _send_weights(self, version: int, payload: bytes, drift: Mapping[str, float]) -> None:
        header = {"version": version, "digest": hashlib.sha256(payload).hexdigest(), "spec": self._learner.spec, "drift": dict(drift)}
        await _write(self._writer, learner_frames.pack("weights", header, payload))

    def _flush(self) -> None:
        try:
            self._learner.flush()
        except OSError as error:
            self._error = f"replay buffer not flushed: {error}"

    async def _report(self) -> None:
        header: dict[str, Any] = {
            "updates": self._learner.updates,
            "experiences": self._learner.experiences,
            "published_version": self._learner.version,
            "received": self._received,
            "rows_refused": self._refused,
            "drift": self._drift,
            "error": self._error,
            "withheld": self._withheld,
            "refused_candidates": self._refusals,
            "reverts": self._reverts,
            "agents": self._figures,
            "behind": self._learner.behind,
            "processor_share": self._share(),
        }
        self._note(header)
        await _write(self._writer, learner_frames.pack("status", header | average(self._figures)))

    def _share(self) -> float:
        """How much of a processor this process had since the last report."""
        usage, now = resource.getrusage(resource.RUSAGE_SELF), asyncio.get_running_loop().time()
        used = usage.ru_utime + usage.ru_stime
        (before, then), self._used = self._used, (used, now)
        return (used - before) / max(now - then, 1e-3)

    def _note(self, header: Mapping[str, Any]) -> None:
        """Into the history, where there is something new."""
        if not self._figures or self._learner.updates == self._noted_updates:
            return
        self._noted_updates = self._learner.updates
        named = ("updates", "experiences", "withheld", "reverts", "error", "agents")
        record = {"at": self._clock(), "version": self._learner.version} | {name: header[name] for name in named}
        try:
            self._history.append(record)
        except OSError as error:
            self._error = f"history not written: {error}"


async def _write(writer: asyncio.StreamWriter, frame: bytes) -> None:
    """Send one frame. Raises TimeoutError when nobody reads it, OSError when nobody is left to."""
    writer.write(frame)
    async with asyncio.timeout(WRITE_WITHIN_S):
        await writer.drain()


if __name__ == "__main__":
    main()
