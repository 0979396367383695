"""The example in docs/environment.md runs as it stands."""

import re
from pathlib import Path

MANUAL = Path(__file__).parents[2] / "docs" / "environment.md"


def test_the_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    exec(compile(code, str(MANUAL), "exec"), {})
    equity = float(capsys.readouterr().out.split()[0])
    assert 80_000 < equity < 120_000
