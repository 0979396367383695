"""The learner learns in a process of its own, and its death, silence or nonsense is nobody's trouble but its own."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from agents.core.events import UNSTAMPED, NewWeights
from agents.jobs.datasets import write_transitions
from agents.market.observation import Experience
from agents.serving.actors import Actors
from daemon import learner_history
from daemon.learner import FIRST_TO_GO, NICENESS, LearnerClient, LearnerOptions, starving
from daemon.learner_frames import Frame
from daemon.learner_process import _learner

SPECS = (("risk", 6, 2, "r"), ("short_term", 8, 4, "s"))
WITHIN_S = 180.0


def options(state: Path, **changed: Any) -> LearnerOptions:
    small: dict[str, Any] = {
        "hidden_sizes": (16, 16), "batch_size": 32, "min_rows": 16, "replay_buffer_size": 5000, "publish_every_s": 0.3,
        "first_backoff_s": 0.05, "learning_rate": 1e-2,
    }  # fmt: skip
    return LearnerOptions(state, SPECS, "spec", **small | changed)


def rows(count: int, agent: str = "risk", state: int = 6, action: int = 2) -> list[Experience]:
    rng = np.random.default_rng(count)
    made = []
    for at in range(count):
        before, after = rng.standard_normal((2, state), np.float32)
        act = np.tanh(rng.standard_normal(action, np.float32))
        made.append(Experience(before, act, float(-np.abs(act).sum()), after, False, agent, None, at))
    return made


class Session:
    """What stands where the trading side does: it offers rows and takes weights."""

    def __init__(self, given: LearnerOptions) -> None:
        self.weights: asyncio.Queue[NewWeights] = asyncio.Queue()
        self.client = LearnerClient(given, self.weights.put, lambda: 1)

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition(self.client.status):
                await asyncio.sleep(0.01)

    async def next_weights(self) -> NewWeights:
        async with asyncio.timeout(WITHIN_S):
            return await self.weights.get()


@asynccontextmanager
async def running(given: LearnerOptions) -> AsyncIterator[Session]:
    session = Session(given)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(session.client.run())
        yield session
        await session.client.stop(WITHIN_S)
        async with asyncio.timeout(WITHIN_S):
            await task


async def test_rows_become_weights_that_are_checked(tmp_path):
    async with running(options(tmp_path)) as session:
        session.client.offer(rows(40))
        event = await session.next_weights()
        assert event.stamp == UNSTAMPED
        assert event.digest == hashlib.sha256(event.payload).hexdigest()
        actors = Actors.from_payload(event.payload, "spec")
        assert (actors.version, event.version, event.spec) == (1, 1, "spec")
        assert actors.act("risk", np.ones((1, 6), np.float32)).any()
        assert not actors.act("short_term", np.ones((1, 8), np.float32)).any()
        child = psutil.Process(session.client.status["pid"])
        assert (child.nice(), os.sched_getscheduler(child.pid)) == (NICENESS, os.SCHED_BATCH)
        assert not {name for name in child.environ() if "KEY" in name or "SECRET" in name}
        await session.until(lambda status: status["experiences"] == 40 and status["critic_loss"] is not None)
        status = session.client.status
        assert status["state"] in ("learning", "waiting")
        assert {"critic_loss", "actor_loss", "alpha", "entropy"} <= status.keys()
        assert status["processor_share"] > 0
        assert status["updates"] <= 4 * status["experiences"]
    assert (session.client.status["state"], session.client.status["error"], session.client.status["lost"]) == ("off", "", 0)
    assert not psutil.pid_exists(child.pid)


async def test_a_killed_learner_comes_back_where_it_was(tmp_path):
    async with running(options(tmp_path, update_to_data=0.5)) as session:
        session.client.offer(rows(40))
        await session.until(lambda status: status["updates"] == 20)
        last = await session.next_weights()
        while last.version < session.client.status["version"] or not session.weights.empty():
            last = await session.next_weights()
        # Nothing is left to learn, and the last publication has saved all of it.
        await session.until(lambda status: status["state"] == "waiting")
        first_pid = session.client.status["pid"]
        os.kill(first_pid, signal.SIGKILL)
        await session.until(lambda status: status["restarts"] == 1)
        session.client.offer(rows(10))
        await session.until(lambda status: status["pid"] != first_pid and status["experiences"] == 50)
        assert "code -9" in session.client.status["error"] or session.client.status["error"] == ""
        await session.until(lambda status: status["updates"] == 25)
        following = await session.next_weights()
        assert following.version > last.version
        assert session.client.status["restarts"] == 1
        assert session.client.status["lost"] == 0


async def test_rows_wait_in_a_bounded_queue_and_the_oldest_give_way(tmp_path):
    client = Session(options(tmp_path, queue_rows=30)).client
    client.offer(rows(50))
    client.offer(rows(7))
    assert (client.status["queued"], client.status["dropped"]) == (30, 27)


async def test_the_next_session_goes_on_from_the_last_unless_it_is_damaged(tmp_path):
    async with running(options(tmp_path)) as session:
        session.client.offer(rows(40))
        await session.next_weights()
    version, updates = session.client.status["version"], session.client.status["updates"]
    async with running(options(tmp_path)) as session:
        event = await session.next_weights()
        assert event.version == version
        await session.until(lambda status: status["updates"] >= updates)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for record in ("checkpoint.json", "previous.json"):
        (folder / record).write_text("{")
    async with running(options(tmp_path)) as session:
        await session.until(lambda status: status["restarts"] >= 1)
        assert "damaged" in session.client.status["error"]
    assert (folder / "checkpoint.json").read_text() == "{"


def script(body: str) -> tuple[str, ...]:
    """A stand-in for the learner process that misbehaves."""
    lines = ("import sys, time, hashlib", "from daemon import learner_frames as f", "out = sys.stdout.buffer", body, "out.flush()")
    return (sys.executable, "-c", "\n".join(lines))


async def test_a_silent_learner_is_killed_and_started_again(tmp_path):
    async with running(options(tmp_path, command=script("time.sleep(600)"), start_s=0.3)) as session:
        await session.until(lambda status: status["restarts"] == 1)
        assert "said nothing" in session.client.status["error"]
        pid = session.client.status["pid"]
        await session.until(lambda status: status["pid"] != pid)
        await session.client.stop(0.1)


async def test_a_learner_that_hangs_is_started_again_where_it_was_and_serving_goes_on(tmp_path):
    async with running(options(tmp_path, silence_s=1.5, update_to_data=0.5)) as session:
        session.client.offer(rows(40))
        await session.until(lambda status: status["updates"] == 20 and status["state"] == "waiting")
        last = await session.next_weights()
        os.kill(session.client.status["pid"], signal.SIGSTOP)
        await session.until(lambda status: status["restarts"] == 1)
        assert session.client.status["error"] == "the learner said nothing for 1.5 s"
        session.client.offer(rows(10))
        await session.until(lambda status: status["updates"] == 25)
        while (following := await session.next_weights()).version <= last.version:
            pass
        Actors.from_payload(following.payload, "spec")


@pytest.mark.parametrize(("state", "used_s", "expected"), [("R", 0.1, True), ("D", 8.9, True), ("R", 9.1, False), ("S", 0.0, False), ("T", 0.0, False), ("", 0.0, False)])
def test_a_hungry_process_is_not_a_hung_one(state, used_s, expected):
    assert starving(state, used_s, 180.0) is expected


STARVED = """
def report(share, behind):
    out.write(f.pack("status", {"updates": 1, "processor_share": share, "behind": behind}))
for _ in range(9):
    report(0.01, 7)
report(0.3, 7)
for _ in range(10):
    report(0.01, 7)
out.flush()
time.sleep(600)
"""


async def test_a_starving_learner_is_said_and_not_killed(tmp_path):
    async with running(options(tmp_path, command=script(STARVED))) as session:
        await session.until(lambda status: bool(status["starved"]))
        assert session.client.status["starved"] == "it gets 1.0% of a processor, and 7 updates wait"
        assert session.client._thin_reports == 10
        assert session.client.status["restarts"] == 0
        session.client._note({"updates": 1, "processor_share": 0.01, "behind": 0})
        assert session.client.status["starved"] == ""
        await session.client.stop(0.1)


async def test_nonsense_ends_the_learner_and_never_the_session(tmp_path):
    async with running(options(tmp_path, command=script("print('Hello, I am a library that prints')"))) as session:
        await session.until(lambda status: status["restarts"] >= 2)
        assert "cannot be read" in session.client.status["error"]


async def test_where_memory_runs_out_the_learner_goes_and_not_we(tmp_path):
    async with running(options(tmp_path, command=script("import sys; sys.stdin.read()"))) as session:
        await session.until(lambda status: status["pid"] is not None)
        theirs, ours = (int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (session.client.status["pid"], os.getpid()))
    assert theirs == FIRST_TO_GO > ours


async def test_a_crash_says_its_last_words(tmp_path):
    async with running(options(tmp_path, command=script("raise SystemExit('no such luck')"))) as session:
        await session.until(lambda status: status["restarts"] >= 1)
        assert session.client.status["error"] == "the learner process ended with code 1 (no such luck)"


async def test_a_learner_that_cannot_be_started_is_tried_again(tmp_path):
    async with running(options(tmp_path, command=(str(tmp_path / "absent"),))) as session:
        await session.until(lambda status: status["restarts"] >= 2)
        assert "could not be started" in session.client.status["error"]


BAD_WEIGHTS = """
import json, safetensors.numpy, numpy as np
def weights(value, spec="spec", sizes=(("risk", 6, 2), ("short_term", 8, 4))):
    tensors = {}
    for name, state, action in sizes:
        shapes = {"0.weight": (5, state), "0.bias": (5,)} | {f"{h}.{k}": s for h in ("mean", "log_std")
                  for k, s in (("weight", (action, 5)), ("bias", (action,)))}
        tensors |= {f"{name}.{k}": np.full(s, value, np.float32) for k, s in shapes.items()}
    return safetensors.numpy.save(tensors, {"quartet-actors-1": json.dumps({"version": 3, "spec": spec})})
def send(body, digest=None):
    out.write(f.pack("weights", {"digest": digest or hashlib.sha256(body).hexdigest()}, body))
send(weights(0.1), "0" * 64)
send(weights(float("nan")))
send(weights(0.1, "other"))
send(weights(0.1, sizes=(("risk", 6, 2),)))
send(weights(0.1, sizes=(("risk", 6, 2), ("short_term", 9, 4))))
send(b"\\x80\\x04not a pickle that anyone would open")
send(weights(0.5))
send(weights(0.5))
out.flush()
time.sleep(600)
"""


async def test_unfit_weights_never_become_an_event(tmp_path):
    async with running(options(tmp_path, command=script(BAD_WEIGHTS))) as session:
        event = await session.next_weights()
        assert Actors.from_payload(event.payload, "spec").act("risk", np.zeros((1, 6), np.float32)).any()
        assert session.client.status["weights_refused"] == 6
        assert session.client.status["version"] == 3
        assert session.weights.empty()
        await session.client.stop(0.1)


PARENT = """
import asyncio, sys
from pathlib import Path
from daemon import learner_history
from daemon.learner import LearnerClient, LearnerOptions
async def main():
    client = LearnerClient(LearnerOptions(Path(sys.argv[1]), (("risk", 6, 2, ""),), "spec", replay_buffer_size=10), lambda event: None, lambda: 0)
    async with asyncio.TaskGroup() as group:
        group.create_task(client.run())
        while not client.status["updates"] and client.status["state"] in ("off", "starting"):
            await asyncio.sleep(0.01)
        print(client.status["pid"], flush=True)
asyncio.run(main())
"""


def test_the_learner_ends_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    psutil.wait_procs([child], timeout=WITHIN_S)
    assert not child.is_running()


STRICT = """
from agents.learning.guards import Guards
Guards.__init__.__defaults__ = (0.25, 5.0, 0.5, 10.0, 0.95)
from daemon.learner_process import main
main()
"""


async def test_an_unfit_candidate_is_withheld_and_the_learner_goes_back(tmp_path):
    command = (sys.executable, "-c", STRICT)
    async with running(options(tmp_path, command=command, publish_every_s=0.01)) as session:
        session.client.offer(rows(400))
        await session.until(lambda status: status["reverts"] >= 1)
        assert "risk candidate was refused" in session.client.status["withheld"]
        assert "entropy has collapsed" in session.client.status["withheld"]
        assert session.client.status["refused_candidates"] >= 3
        assert session.weights.empty()
        # Nothing it learns is ever fit, so in the end the process gives up and is started again.
        await session.until(lambda status: status["restarts"] >= 1)
        assert session.client.status["error"].startswith("Diverged: the risk candidate was refused")
        await session.client.stop(0.1)


async def test_what_was_reported_is_in_the_history(tmp_path):
    async with running(options(tmp_path)) as session:
        session.client.offer(rows(40))
        await session.until(lambda status: status["updates"] == 160)
    last = learner_history.read(tmp_path)[-1]
    assert (last["updates"], last["experiences"]) == (160, 40)
    assert {"reward", "entropy", "alpha", "q_spread", "td_error", "action_saturation", "effective_rank"} <= set(last["agents"]["risk"])


async def test_offline_rows_and_options_are_the_processs_too(tmp_path):
    states = np.random.default_rng(0).standard_normal((50, 6))
    path = tmp_path / "x.npz"
    columns = {"state": states, "action": np.zeros((50, 2)), "reward": np.full(50, 100.0), "next_state": states, "done": np.zeros(50)}
    write_transitions(path, "risk", "r", columns)
    changed = {"offline_data": (str(path),), "options": {"risk_cvar": 0.5, "max_gradient_norm": 1.0, "accumulate": 2}}
    async with running(options(tmp_path / "state", **changed)) as session:
        session.client.offer(rows(40))
        event = await session.next_weights()
        assert Actors.from_payload(event.payload, "spec").act("risk", np.ones((1, 6), np.float32)).any()
        await session.until(lambda status: bool(status["agents"]))
        assert session.client.status["agents"]["risk"]["reward"] > 20
    assert session.client.status["error"] == ""


async def test_options_learn_in_a_folder_of_their_own(tmp_path):
    given = options(tmp_path)
    for changed, folders in (({}, 1), ({"layer_norm": True}, 2), ({}, 2), ({"accumulate": 2}, 3)):
        told = {name: getattr(given, name) for name in given.__slots__} | {"options": changed}
        learner = _learner(Frame("configure", told, b""), tmp_path)
        learner.close()
        assert len(list(tmp_path.iterdir())) == folders
