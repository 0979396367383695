"""The whole daemon under faults: seeds that once failed and a few more, the same run twice, every temper of the learner."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.core.errors import ConfigError
from daemon.simulation.faults import BY_NAME
from daemon.simulation.learner import TEMPERS
from daemon.simulation.run import Options, simulate_seed
from daemon.simulation.simulate import again, render, simulate
from tests.simulation.mutations import MUTATIONS, in_a_process

ROOT = Path(__file__).parents[2]
CORPUS = [line.split(" - ")[0].split() for line in (Path(__file__).parent / "corpus.txt").read_text().splitlines() if line[:1].isdigit()]


@pytest.mark.parametrize(("seed", "minutes", "faults"), CORPUS, ids=[line[0] for line in CORPUS])
def test_seeds_that_once_failed(seed: str, minutes: str, faults: str):
    report, _ = simulate_seed(Options(int(seed), float(minutes), faults))
    assert report["broken"] == [], again(int(seed), faults, float(minutes))


@pytest.mark.parametrize("seed", range(301, 304))
def test_some_more_seeds(seed: int):
    report, _ = simulate_seed(Options(seed, 0.7))
    assert report["broken"] == [], again(seed, "all", 0.7)
    assert report["events"] > 100


def digest_elsewhere(seed: int, salt: str) -> str:
    script = (
        "import sys; from daemon.simulation.run import Options, simulate_seed;"
        f"simulate_seed(Options({seed + 1}, 0.1)); print(simulate_seed(Options({seed}, 0.3))[0]['digest'])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": salt, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120, check=True)
    return done.stdout.strip()


def test_the_same_seed_is_the_same_run_in_every_process():
    first, again_here = (simulate_seed(Options(9, 0.3))[0]["digest"] for _ in range(2))
    assert first == again_here == digest_elsewhere(9, "77")
    assert first != simulate_seed(Options(10, 0.3))[0]["digest"]


def test_whatever_the_learner_does_nothing_breaks():
    reports = [simulate_seed(Options(5, 0.2, learner=temper))[0] for temper in TEMPERS]
    assert [report["broken"] for report in reports] == [[], [], [], []]
    assert [report["learner"] for report in reports] == list(TEMPERS)


@pytest.mark.parametrize("name", ["send_before_commit", "weights_unchecked"])
def test_a_break_is_noticed(name: str):
    found = in_a_process(name, 1, 2, 1.0)
    assert found["noticed"], found


def test_every_invariant_has_a_break_that_shows_that_it_is_watched():
    assert {name for mutation in MUTATIONS for name in mutation.caught_by} == {f"I{number}" for number in range(1, 9)}


def test_the_summary_says_what_broke_and_how_to_see_it_again(tmp_path: Path):
    told: list[int] = []
    summary = simulate(41, 2, "none", 0.1, progress=lambda report: told.append(report["seed"]), trace=tmp_path / "trace.log")
    assert told == [41, 42] and summary["failed"] == [] and summary["lives"] == 2
    assert "no invariant broken" in render(summary)
    assert '"BookSnapshot"' in (tmp_path / "trace.log").read_text()
    json.dumps(summary)
    summary["failed"] = [{"seed": 41, "broken": [{"invariant": "I3", "at_s": 1.5, "what": "twice"}], "again": again(41, "none", 0.1)}]
    assert "seed 41 broke I3 at 1.5 s: twice" in render(summary)
    assert "quartet simulate --seeds 1 --first-seed 41 --faults none --minutes 0.1 --trace" in render(summary)


def test_a_fault_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="there is no fault 'gremlins'"):
        simulate(1, 1, "crashes,gremlins")


def test_each_fault_alone_leaves_the_account_whole():
    report, _ = simulate_seed(Options(17, 0.3, ",".join(name for name in BY_NAME if name not in ("bad_key", "disk_full"))))
    assert report["broken"] == []
