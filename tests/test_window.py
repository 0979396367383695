"""The shop window: every name is there, and looking at it loads nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import agents


@pytest.mark.parametrize("name", agents.__all__)
def test_every_name_is_served(name):
    assert getattr(agents, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="SACAgnet"):
        agents.SACAgnet  # noqa: B018


def test_looking_loads_nothing():
    code = "import sys, json, agents; dir(agents); print(json.dumps([m for m in sys.modules if m.startswith(('torch', 'numpy', 'agents.'))]))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert json.loads(found.stdout) == []
