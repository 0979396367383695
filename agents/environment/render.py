"""The picture of an episode: equity, weights and prices so far, by matplotlib where there is one, as a line of text where not."""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError
from agents.core.instruments import Symbol

Pixels = NDArray[np.uint8]
SIZE, DOTS = (8.0, 6.0), 80
"""Inches and dots an inch: 640 by 480."""
KEPT = 2_000
"""Points of each curve; older ones are thinned out, every second."""


class Canvas:
    """Curves of one episode. Raises ConfigError where matplotlib is missing."""

    def __init__(self, symbols: tuple[Symbol, ...]) -> None:
        try:
            self._figures = importlib.import_module("matplotlib.figure")
            self._agg = importlib.import_module("matplotlib.backends.backend_agg")
        except ImportError:
            raise ConfigError("rendering needs the package matplotlib: pip install 'quartet[research]'") from None
        self.symbols = symbols
        self._window: Any = None
        self.clear()

    def clear(self) -> None:
        """A new episode."""
        self._times: list[int] = []
        self._equity: list[float] = []
        self._weights: list[NDArray[np.float64]] = []
        self._prices: list[NDArray[np.float64]] = []

    def note(self, info: dict[str, Any]) -> None:
        """Take what one step told."""
        curves: tuple[list[Any], ...] = (self._times, self._equity, self._weights, self._prices)
        for curve, name in zip(curves, ("time", "equity", "weights", "marks"), strict=True):
            curve.append(info[name])
            if len(curve) > KEPT:
                del curve[1::2]

    def pixels(self) -> Pixels:
        """The figure, uint8 [height, width, 3]."""
        figure = self._figures.Figure(figsize=SIZE, dpi=DOTS)
        canvas = self._agg.FigureCanvasAgg(figure)
        self._paint(figure)
        canvas.draw()
        return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]

    def _paint(self, figure: Any) -> None:
        top, middle, bottom = figure.subplots(3, 1, sharex=True)
        times = np.array(self._times, dtype=np.int64).astype("datetime64[ns]")
        top.plot(times, self._equity, color="black")
        top.set_ylabel("equity")
        if self._weights:
            weights, prices = np.array(self._weights), np.array(self._prices)
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = prices / prices[0]
            for column, symbol in enumerate(self.symbols):
                middle.plot(times, weights[:, column], label=str(symbol))
                bottom.plot(times, relative[:, column])
            middle.legend(loc="upper left", fontsize=6, ncols=5)
        middle.set_ylabel("weights")
        bottom.set_ylabel("prices")
        figure.autofmt_xdate()

    def show(self) -> None:
        """On a display a window that follows the episode, elsewhere one line of text."""
        plots = self._screen()
        if plots is None:
            importlib.import_module("rich").print(self.line())
            return
        if self._window is None:
            plots.ion()
            self._window = plots.figure(figsize=SIZE)
        self._window.clear()
        self._paint(self._window)
        self._window.canvas.draw_idle()
        self._window.canvas.flush_events()

    def _screen(self) -> Any:
        """matplotlib's window system, or None without a display."""
        try:
            plots = importlib.import_module("matplotlib.pyplot")
            headless = str(plots.get_backend()).lower() in ("agg", "pdf", "svg", "ps", "template", "cairo", "inline")
        except ImportError:
            return None
        return None if headless else plots

    def line(self) -> str:
        """The latest moment in words."""
        when = str(np.datetime64(self._times[-1], "ns").astype("datetime64[s]")).replace("T", " ")
        held = ", ".join(f"{s} {w:.1%}" for s, w in zip(self.symbols, self._weights[-1].tolist(), strict=True) if abs(w) > 5e-4)
        return f"{when}  equity {self._equity[-1]:,.2f}  {held or 'in cash'}"

    def close(self) -> None:
        """Take the window away."""
        if self._window is not None:
            importlib.import_module("matplotlib.pyplot").close(self._window)
            self._window = None
