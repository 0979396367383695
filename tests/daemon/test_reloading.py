"""What a running session takes over of a configuration that changed, and what it refuses by name."""

import json
from pathlib import Path

import pytest

from agents.core.errors import TradingError
from agents.core.events import Event, Reload, Stamp
from agents.desk.limits import Limits
from agents.engine import Engine
from daemon.reloading import Reloader
from daemon.service import Manager, Service
from daemon.settings import Settings
from daemon.sources import load
from daemon.wiring import engine_config, limits_of


def settings(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return load(file, {}, {})


def reloader(tmp_path: Path) -> tuple[Reloader, list[Event]]:
    """One that reads `config.yaml` of the folder again, over the defaults."""
    pushed: list[Event] = []
    service = Service(Manager(), lambda: 0, dict)
    return Reloader(Settings(), lambda: load(tmp_path / "config.yaml", {}, {}), pushed.append, limits_of, service), pushed


async def test_limits_are_taken_over_as_a_fact_and_the_rest_is_refused_by_name(tmp_path):
    chosen, pushed = reloader(tmp_path)
    settings(tmp_path, "risk: {position_cap: 0.1, gross: 0.5}\nhttp: {max_data_age_s: 7}\ncapital: {allocation: 5}\ninstance: other\n")
    answer = chosen.reload({"reason": "calmer"})
    assert answer == {
        "accepted": "reload", "applied": ["risk.position_cap", "risk.gross", "http.max_data_age_s"],
        "refused": ["instance", "capital.allocation"], "note": "refused ones need a restart",
    }  # fmt: skip
    assert (chosen.settings.risk.position_cap, chosen.settings.http.max_data_age_s, chosen.settings.instance) == (0.1, 7, "main")
    (event,) = pushed
    assert isinstance(event, Reload)
    assert Limits(**json.loads(event.limits)) == limits_of(chosen.settings)


async def test_nothing_changes_where_the_file_is_wrong(tmp_path):
    chosen, pushed = reloader(tmp_path)
    for text in ("risk: {position_cap: 7}", "risk: {drawdown_warn: 0.5}", "no: such", ":"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(TradingError, match="not reloaded, the old configuration stays in force: "):
            chosen.reload({})
        chosen.on_hangup()
    assert (pushed, chosen.settings) == ([], Settings())


async def test_an_unchanged_file_changes_nothing(tmp_path):
    chosen, pushed = reloader(tmp_path)
    settings(tmp_path, "risk: {position_cap: 0.2}")
    assert chosen.reload({}) == {"accepted": "reload", "applied": [], "refused": []}
    assert pushed == []


def test_the_engine_takes_the_new_limits_and_keeps_the_old_ones_where_they_cannot_be_read():
    engine = Engine(engine_config(Settings(), ("BTC/USDT",), 1, 0.0))  # type: ignore[arg-type]
    wanted = Limits(position_cap=0.05)
    engine.step(Reload(Stamp(1, 1), "", json.dumps({"position_cap": 0.05})))
    assert engine.config.limits == wanted
    for number, text in enumerate(('{"position_cap": 7}', "{", '{"unknown": 1}', "[]"), start=2):
        engine.step(Reload(Stamp(number, number), "", text))
    assert engine.config.limits == wanted
    assert sum(count for name, count in engine.problems.items() if name.startswith("limits_refused")) == 4
    engine.step(Reload(Stamp(9, 9), "nothing"))
    assert engine.config.limits == wanted
