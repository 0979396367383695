"""The house keeps its rules, and each rule notices when it is broken."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import architecture as rules

ROOT = Path(__file__).parents[1]
HOUSE = rules.read(ROOT)


def table(**rows: str) -> dict[str, frozenset[str]]:
    return {name.replace("__", "."): frozenset(text.split()) for name, text in rows.items()}


# What a floor may import of our own, beside itself.
FLOORS = table(
    agents="agents.core agents.market agents.models agents.serving agents.learning agents.desk agents.engine agents.environment agents.system",
    agents__core="",
    agents__market="agents.core",
    agents__models="agents.core.errors",
    agents__serving="agents.core agents.market.observation",
    agents__learning="agents.models agents.core.errors",
    agents__desk="agents.core agents.market agents.serving",
    agents__engine="agents.core agents.market agents.serving agents.desk",
    agents__environment="agents.core agents.market agents.models agents.serving agents.learning agents.desk agents.engine",
    agents__system="agents.core agents.market agents.models agents.serving agents.learning agents.desk agents.engine agents.environment",
    agents__jobs="agents.core agents.market agents.models agents.serving agents.learning agents.desk agents.engine agents.environment agents.system",
    daemon="agents.core agents.market agents.serving agents.desk agents.engine agents.jobs"
    " daemon.venues daemon.publish daemon.rehearsal daemon.simulation",
    daemon__venues="agents.core agents.market daemon.door daemon.errors daemon.settings",
    daemon__publish="agents.core daemon.errors",
    daemon__rehearsal="agents.core agents.market daemon.door daemon.errors daemon.logs",
    daemon__simulation="agents.core agents.market agents.serving agents.desk agents.engine daemon",
    daemon__learner_process="agents.core agents.learning agents.models agents.serving agents.market agents.jobs daemon.errors daemon.logs daemon.door"
    " daemon.learner_frames daemon.learner_history",
)

PURE = (
    "__future__ abc base64 bisect collections contextlib copy dataclasses decimal enum fractions functools hashlib heapq itertools json math"
    " operator re statistics string struct types typing zlib"
)
FILES = "os pathlib mmap fcntl tempfile shutil io"
NETWORKED = "aiohttp yarl multidict ssl socket urllib hmac secrets"
SHELL = PURE + " asyncio contextvars gc importlib ipaddress logging platform resource signal stat sys time datetime difflib argparse weakref " + FILES

# What a floor may import from outside.
FOREIGN = table(
    agents=PURE + " importlib",
    agents__core=PURE,
    agents__market=PURE + " numpy",
    agents__market__history=PURE + " numpy pathlib",
    agents__market__tape=PURE + " numpy polars pyarrow zstandard orjson datetime " + FILES,
    agents__models=PURE + " torch",
    agents__serving=PURE + " numpy safetensors onnxruntime",
    agents__learning=PURE + " numpy torch gymnasium safetensors pathlib",
    agents__learning__replay=PURE + " numpy torch " + FILES,
    agents__learning__checkpoint=PURE + " numpy torch safetensors " + FILES,
    agents__desk=PURE + " numpy scipy clarabel sklearn",
    agents__engine=PURE + " numpy",
    agents__environment=PURE + " numpy gymnasium pettingzoo importlib pathlib matplotlib rich",
    agents__system=PURE + " numpy torch gymnasium pathlib",
    agents__jobs=PURE + " numpy scipy arch polars plotly rich safetensors datetime html importlib platform torch " + FILES,
    daemon=SHELL + " apprise numpy orjson structlog pydantic pydantic_core pydantic_settings yaml typer rich sqlalchemy alembic sqlite3 zstandard ctypes " + NETWORKED,
    daemon__venues=SHELL + " ccxt orjson structlog numpy " + NETWORKED,
    daemon__publish=SHELL + " aiomqtt concurrent fastapi hmac paho prometheus_client pydantic orjson redis socket ssl starlette structlog uvicorn",
    daemon__rehearsal=SHELL + " orjson structlog numpy " + NETWORKED,
    daemon__learner_process=SHELL + " numpy torch orjson structlog ctypes",
    daemon__simulation=SHELL + " random concurrent contextvars multiprocessing sqlite3 traceback warnings numpy orjson safetensors structlog ccxt aiohttp yarl",
    daemon__learner_bridge=SHELL + " redis",
    daemon__learner_far=SHELL + " redis structlog",
    daemon__learner_view=SHELL + " rich matplotlib",
    daemon__doctor=SHELL + " ccxt orjson sqlalchemy sqlite3",
    daemon__drill=SHELL + " aiohttp ccxt orjson structlog yaml",
    daemon__watchdog=SHELL + " orjson structlog subprocess",
    daemon__watchdog_process=SHELL + " ccxt orjson",
)

MAY_READ_A_CLOCK = frozenset({"daemon.door"})
MAY_KNOW_MODES = frozenset({"daemon.session", "daemon.cli.trading", "daemon.cli.steering", "daemon.cli.care", "daemon.settings"})
MAY_OPEN_FILES = frozenset({"agents.market.tape", "agents.learning.replay", "agents.learning.checkpoint", "agents.jobs"})
RESEARCH = frozenset({"daemon.cli.evaluation", "daemon.cli.lookahead", "daemon.cli.training", "daemon.cli.ablation"})
"""Commands that train and judge, in processes that never trade: they import their rooms when they are called."""
MAY_AWAIT = frozenset({"agents.system.get_action"})  # kept as the users know it


def test_imports_go_down_only():
    assert rules.floors(HOUSE, FLOORS) == []


def test_each_floor_imports_only_what_its_row_allows():
    assert rules.foreign(HOUSE, FOREIGN) == []


def test_no_circles_hidden_ones_included():
    assert rules.cycles(HOUSE) == []


def test_the_clock_is_read_at_the_door_only():
    assert rules.clocks(HOUSE, MAY_READ_A_CLOCK) == []


def test_modes_are_known_where_objects_are_wired_only():
    assert rules.modes(HOUSE, MAY_KNOW_MODES) == []


def test_every_task_belongs_to_a_group():
    assert rules.bare_tasks(HOUSE) == []


def test_what_decides_is_pure():
    assert rules.impure(HOUSE, MAY_OPEN_FILES, MAY_AWAIT) == []


def test_types_live_on_the_right_floor():
    assert rules.deferred_types(HOUSE) == []


@pytest.mark.parametrize("start", ["daemon.cli", "daemon.session", "daemon.replay", "daemon.rehearsal.server"])
def test_no_path_from_the_trading_process_to_torch(start):
    reached = rules.reach(HOUSE, (start,), closed=frozenset({"daemon.learner_process", "agents"}) | RESEARCH)
    assert start in HOUSE
    assert {name: by for name, by in reached.items() if name.split(".")[0] in ("torch", "gymnasium")} == {}


def test_the_trading_process_runs_without_torch():
    script = "import sys, daemon.cli, daemon.session, daemon.replay; print([m for m in ('torch', 'gymnasium') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# ---- each rule notices


def planted(folder: Path, **files: str) -> rules.House:
    """A house of its own: `agents__core__events="import asyncio"`."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return rules.read(folder)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"agents__core__events": "from agents.market import book", "agents__market__book": ""}, "agents.core.events:1: must not import agents.market.book"),
        ({"agents__desk__risk": "def f():\n    import agents.learning.sac", "agents__learning__sac": ""}, "agents.desk.risk:2: must not import agents.learning.sac"),
        ({"agents__market__book": "from . import bars"}, "agents.market.book:1: relative import"),
        ({"agents__core__events": "from daemon.door import Door"}, "agents.core.events:1: must not import daemon.door"),
        ({"agents__learning__sac": "from agents.core.ledger import Ledger"}, "agents.learning.sac:1: must not import agents.core.ledger"),
        ({"daemon__publish__http": "from daemon.session import trade"}, "daemon.publish.http:1: must not import daemon.session"),
        ({"daemon__drive": "from agents.learning import sac", "agents__learning__sac": ""}, "daemon.drive:1: must not import agents.learning.sac"),
    ],
)  # fmt: skip
def test_notices_an_import_upwards(tmp_path, files, sentence):
    assert rules.floors(planted(tmp_path, **files), FLOORS) == [sentence]


def test_notices_a_module_on_no_floor(tmp_path):
    assert rules.floors(planted(tmp_path, agents__core__x=""), table(daemon="")) == ["agents.core.x: stands on no floor"]


@pytest.mark.parametrize(
    ("module", "text", "name"),
    [
        ("agents__core__events", "import asyncio", "asyncio"),
        ("agents__market__features", "import random", "random"),
        ("agents__market__book", "from polars import DataFrame", "polars"),
        ("agents__desk__risk", "def f():\n    import torch", "torch"),
        ("agents__serving__actors", "import torch.nn", "torch.nn"),
        ("agents__engine", "import os", "os"),
        ("daemon__drive", "import torch", "torch"),
        ("daemon__venues__parse", "import sqlalchemy", "sqlalchemy"),
    ],
)
def test_notices_a_foreign_import(tmp_path, module, text, name):
    (sentence,) = rules.foreign(planted(tmp_path, **{module: text}), FOREIGN)
    assert sentence.endswith(f"must not import {name}")


@pytest.mark.parametrize(
    "files",
    [
        {"daemon__a": "import daemon.b", "daemon__b": "import daemon.a"},
        {"daemon__a": "from daemon import b", "daemon__b": "def f():\n    from daemon.c import x", "daemon__c": "from daemon.a import y"},
        {"daemon__a": "import importlib\nx = importlib.import_module('daemon.b')", "daemon__b": "import daemon.a"},
        {"daemon__a": "WINDOW = {'x': 'daemon.b'}\nfrom importlib import import_module\nimport_module(WINDOW['x'])", "daemon__b": "import daemon.a"},
    ],
)  # fmt: skip
def test_notices_a_circle(tmp_path, files):
    (sentence,) = rules.cycles(planted(tmp_path, **files))
    assert all(name.replace("__", ".") in sentence for name in files)


def test_a_diamond_is_no_circle(tmp_path):
    house = planted(tmp_path, daemon__a="import daemon.b, daemon.c", daemon__b="import daemon.d", daemon__c="import daemon.d", daemon__d="")
    assert rules.cycles(house) == []


@pytest.mark.parametrize(
    "text",
    [
        "import time\nx = time.time()",
        "import time\nclock = time.perf_counter",
        "from time import monotonic_ns",
        "import datetime\nx = datetime.datetime.now()",
        "from datetime import datetime\ndef f():\n    return datetime.utcnow()",
        "from datetime import date\nx = date.today()",
    ],
)
def test_notices_a_clock(tmp_path, text):
    house = planted(tmp_path, daemon__drive=text, daemon__door=text)
    assert len(found := rules.clocks(house, MAY_READ_A_CLOCK)) == 1
    assert found[0].startswith("daemon.drive:")


def test_the_loop_clock_is_allowed(tmp_path):
    assert rules.clocks(planted(tmp_path, daemon__drive="x = loop.time()"), MAY_READ_A_CLOCK) == []


@pytest.mark.parametrize(
    "text",
    ["if x == 'paper': pass", "match x:\n    case 'live':\n        pass", "if settings.is_live: pass", "if paper_mode: pass", "if self.settings.mode in other: pass"],
)
def test_notices_a_mode(tmp_path, text):
    house = planted(tmp_path, daemon__drive=text, daemon__session=text)
    found = rules.modes(house, MAY_KNOW_MODES)
    assert found
    assert all(sentence.startswith("daemon.drive:") for sentence in found)


def test_a_word_in_a_sentence_is_no_mode(tmp_path):
    house = planted(tmp_path, daemon__drive='"""Live and paper."""\nif order.live: raise Error("no live orders")')
    assert rules.modes(house, MAY_KNOW_MODES) == []


@pytest.mark.parametrize(
    "text",
    [
        "asyncio.create_task(work())",
        "asyncio.get_running_loop().create_task(work())",
        "loop.create_task(work())",
        "asyncio.ensure_future(work())",
        "async with asyncio.TaskGroup() as group:\n        self.loop.create_task(work())",
    ],
)
def test_notices_a_bare_task(tmp_path, text):
    assert len(rules.bare_tasks(planted(tmp_path, daemon__drive=f"async def f():\n    {text}\n"))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "async def f():\n    async with asyncio.TaskGroup() as group:\n        group.create_task(work())",
        "def f(tasks: asyncio.TaskGroup):\n    tasks.create_task(work())",
        "class A:\n    def __init__(self, tasks: asyncio.TaskGroup):\n        self._group = tasks\n    def f(self):\n        self._group.create_task(work())",
    ],
)
def test_a_task_of_a_group_is_fine(tmp_path, text):
    assert rules.bare_tasks(planted(tmp_path, daemon__drive=text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "async def f(): pass",
        "import os\nx = os.environ['A']",
        "import numpy as np\nnp.random.seed(1)",
        "import numpy as np\nx = np.random.default_rng()",
        "import torch\ntorch.manual_seed(1)",
        "x = open('a')",
        "x = path.read_text()",
        "import numpy as np\nx = np.memmap('a')",
        "import torch\nx = torch.load('a')",
    ],
)
def test_notices_what_is_impure(tmp_path, text):
    assert len(rules.impure(planted(tmp_path, agents__desk__risk=text, daemon__drive=text), MAY_OPEN_FILES, MAY_AWAIT)) == 1


def test_what_is_pure_passes(tmp_path):
    text = (
        "import numpy as np\ndef f(rng: np.random.Generator):\n    return np.random.default_rng(7), book.open, bar.open\n"
        "def g():\n    with torch.random.fork_rng(devices=[]):\n        torch.manual_seed(1)\n"
    )
    house = planted(tmp_path, agents__desk__risk=text, agents__market__tape="x = open('a')", agents__system="async def get_action(): pass")
    assert rules.impure(house, MAY_OPEN_FILES, MAY_AWAIT) == []


def test_notices_a_deferred_type(tmp_path):
    house = planted(tmp_path, agents__desk__risk="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass")
    assert rules.deferred_types(house) == ["agents.desk.risk:2: TYPE_CHECKING"]


def test_follows_imports_to_the_end(tmp_path):
    house = planted(tmp_path, daemon__a="def f():\n    from daemon import b", daemon__b="import torch", daemon__c="import torch")
    assert rules.reach(house, ("daemon.a",))["torch"] == "daemon.b"
    assert "torch" not in rules.reach(house, ("daemon.a",), closed=frozenset({"daemon.b"}))
