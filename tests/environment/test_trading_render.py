"""The picture: pixels without a display, a line of text where a window cannot be, and no matplotlib at all."""

import builtins
import importlib

import numpy as np
import pytest

from agents.core.errors import ConfigError
from agents.environment.trading import TradingEnvironment
from tests.environment.trading_world import noise, walk


def test_pixels_show_what_happened():
    env = TradingEnvironment(walk(3, 40), render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    for action in noise(env, 10):
        env.step(action)
    later = env.render()
    assert first.shape == later.shape == (480, 640, 3)
    assert first.dtype == np.uint8
    assert (first != later).any()
    assert later.std() > 5
    assert np.array_equal(later, env.render())
    env.close()


def test_a_human_without_a_display_is_told_in_words(capsys, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    import matplotlib

    matplotlib.use("Agg")
    env = TradingEnvironment(walk(2, 40), render_mode="human")
    env.reset(seed=0)
    env.step(np.array([1.0, -1.0], np.float32))
    assert env.render() is None
    spoken = capsys.readouterr().out
    assert "in cash" in spoken
    assert env.symbols[0] in spoken.splitlines()[-1]
    env.close()


def test_without_a_mode_nothing_is_drawn():
    env = TradingEnvironment(walk(2, 40))
    env.reset(seed=0)
    assert env.render() is None


def test_long_episodes_keep_a_bounded_picture():
    env = TradingEnvironment(walk(1, 40), render_mode="rgb_array")
    _, info = env.reset(seed=0)
    for _ in range(5_000):
        env._canvas.note(info)
    assert len(env._canvas._times) <= 2_001
    assert env.render().shape == (480, 640, 3)


def test_without_matplotlib_the_way_to_it_is_named(monkeypatch):
    def refuse(name: str, *rest: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return importlib.__import__(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    assert builtins.__import__ is not refuse
    with pytest.raises(ConfigError, match=r"quartet\[research\]"):
        TradingEnvironment(walk(1, 40), render_mode="human")
