"""The figures of a report, as plotly draws them. plotly is imported when a figure is asked for, not before."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from agents.core.errors import ConfigError
from agents.jobs.result import Floats, RunResult, Times

POINTS = 2_000
"""Points of a curve in a figure, at most: more than a screen has columns."""
COLOURS = ("#1f5f8b", "#c4622d", "#3d8361", "#7a4b94", "#b09a2f", "#8c3b4a", "#4a4a4a", "#5aa0b8", "#a0522d", "#6b8e23")


def plotly() -> tuple[Any, Any]:
    """(graph_objects, offline). Raises ConfigError, naming the package to install, where plotly is missing."""
    try:
        from plotly import graph_objects, offline  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError("a report needs the package plotly: pip install 'quartet[research]'") from None
    return graph_objects, offline


def figures(result: RunResult) -> dict[str, Any]:
    """Figures by title, in the order of the page. `result` in full; what is drawn is thinned here."""
    step = thin_ns(result)
    seen = result.resample(step)
    times = dates(seen.times)
    return {
        "Equity": _equity(seen, times),
        "Drawdown": _lines(times, {"drawdown": -100.0 * worst(result, step)}, "%", fill="tozeroy"),
        "Exposure by symbol": _stacked(times, seen),
        "Attribution by agent": _lines(times, dict(seen.pnl_curves), "profit"),
        "Costs": _lines(times, {"fees": seen.fees}, "fees paid"),
        "Turnover": _lines(times, {"turnover": seen.turnover}, "notional of all fills"),
        "Constraints that bound": _bars(result.bound),
    }


def thin_ns(result: RunResult) -> int:
    """Spacing that leaves at most about `POINTS` samples."""
    span = int(result.times[-1] - result.times[0]) if len(result.times) else 0
    return max(span // POINTS, 1)


def worst(result: RunResult, step: int) -> Floats:
    """The deepest drawdown within each `step`, so that thinning hides none."""
    starts = np.flatnonzero(np.diff(result.times // step, prepend=np.iinfo(np.int64).min))
    return np.maximum.reduceat(result.drawdown, starts) if len(starts) else np.zeros(0)


def dates(times: Times) -> list[str]:
    """ISO times, UTC."""
    return [datetime.fromtimestamp(at / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S") for at in times.tolist()]


def market(result: RunResult) -> Floats:
    """What the capital would be in equal parts of all symbols, bought when the last of them has a price and held, without costs, [K]."""
    known = np.isfinite(result.marks).all(axis=1) if result.marks.size else np.zeros(0, bool)
    if not known.any():
        return np.full(len(result.times), result.capital)
    first = int(np.argmax(known))
    growth = (result.marks / result.marks[first]).mean(axis=1)
    growth[:first] = 1.0
    return np.asarray(result.capital * growth)


def _equity(seen: RunResult, times: Sequence[str]) -> Any:
    return _lines(times, {"equity": seen.equity, "equal parts held, no costs": market(seen)}, "quote currency")


def _lines(times: Sequence[str], curves: Mapping[str, Floats], label: str, fill: str | None = None) -> Any:
    draw, _ = plotly()
    figure = draw.Figure(layout=_layout(label))
    for number, (name, curve) in enumerate(curves.items()):
        line = {"color": COLOURS[number % len(COLOURS)], "width": 1.5}
        figure.add_trace(draw.Scatter(x=list(times), y=_plain(curve), name=name, mode="lines", line=line, fill=fill))
    return figure


def _stacked(times: Sequence[str], seen: RunResult) -> Any:
    draw, _ = plotly()
    figure = draw.Figure(layout=_layout("% of equity"))
    for number, symbol in enumerate(seen.symbols):
        line = {"color": COLOURS[number % len(COLOURS)], "width": 0.5}
        weights = _plain(100.0 * seen.exposure[:, number])
        figure.add_trace(draw.Scatter(x=list(times), y=weights, name=symbol, mode="lines", line=line, stackgroup="all"))
    return figure


def _bars(bound: Mapping[str, int]) -> Any:
    draw, _ = plotly()
    figure = draw.Figure(layout=_layout("decisions"))
    ordered = sorted(bound.items(), key=lambda item: -item[1])
    figure.add_trace(draw.Bar(x=[name for name, _ in ordered], y=[count for _, count in ordered], marker={"color": COLOURS[0]}))
    return figure


def _layout(label: str) -> dict[str, Any]:
    return {
        "yaxis": {"title": {"text": label}},
        "height": 320,
        "margin": {"l": 60, "r": 20, "t": 20, "b": 40},
        "template": "plotly_white",
        "hovermode": "x unified",
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.12},
    }


def _plain(curve: Floats) -> list[float | None]:
    """Six significant digits are more than a figure shows, and keep the file small."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in curve.tolist()]
