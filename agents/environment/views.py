"""What a portfolio form sees: market columns of the desk's own spec, then the account; and, reserved, what others will fill.

Rows of candles are known at their close and computed once for a whole history; on books the columns come from the running market.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError, DataError
from agents.environment.forms import CROSS_SECTION, SIGNAL, WEIGHTS
from agents.environment.sources import Candles, Source
from agents.market.batch import minute_history
from agents.market.columns import HOUR_COLUMNS, MINUTE_COLUMNS
from agents.market.features import HOUR, VOLATILITY_1H
from agents.market.observation import LARGEST
from agents.market.state import MarketState

Singles = NDArray[np.float32]
Floats = NDArray[np.float64]

HOURLY = (
    "macd_z_8_24", "macd_z_16_48", "macd_z_32_96", "momentum_1d", "momentum_7d", "momentum_30d", "rank_momentum_7d", "volatility_1h",
    "volatility_trend", "drawdown_30d", "rsi_14h", "volume_z", "beta", "history_share",
)  # fmt: skip
MINUTELY = (
    "return_1m", "return_5m", "return_15m", "return_60m", "volatility_1m", "volatility_trend_1m", "volume_z_1m", "ou_score",
    "distance_ema_60m", "range_position_60m", "rank_return_15m", "market_return_15m",
)  # fmt: skip
CROSS = (
    "momentum_1h", "momentum_1d", "momentum_7d", "rsi_14h", "macd_z_8_24", "macd_z_16_48", "range_position_30d", "distance_ema_1d",
    "distance_ema_8d", "volume_z", "volatility_1h_fast", "volatility_trend",
)  # fmt: skip
WINDOW = 30
"""Bars that the cross-section looks back on."""
SHAPES = 3
"""Open, high and low over the close, beside the columns of the cross-section; its last channel is the weight held."""
SIGNALS, CLASSES = 7, 3
"""Signals a symbol (sentiment, fundamentals, their age), and classes of a forecaster with its confidence after them."""
ACCOUNT = 4
"""Cash, drawdown, and the two moments of a differential ratio: zero where none is rewarded."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What forecasters and news will say, by row and symbol; None is zeros. Row t must be known at the close of row t."""

    signals: Singles | None = None
    """[T, N, 7]"""
    forecasts: Singles | None = None
    """[T, N] predicted returns; [T, N, 4] class probabilities and confidence for the form `signal`."""

    def check(self, shape: tuple[int, int], form: str) -> None:
        """Raises DataError for another shape or a number that is none."""
        width = (CLASSES + 1,) if form == SIGNAL else ()
        for name, values, wanted in (("signals", self.signals, (*shape, SIGNALS)), ("forecasts", self.forecasts, (*shape, *width))):
            if values is not None and values.shape != wanted:
                raise DataError(f"{name} have shape {values.shape}: give {wanted}, rows by symbols")
            if values is not None and not np.isfinite(values).all():
                raise DataError(f"{name} hold a NaN or an infinity: give 0 where nothing is known")


class View:
    """Observations of one form over one source, float32 of `shape`."""

    def __init__(self, form: str, source: Source, extras: Extras) -> None:
        self.form, self._n = form, len(source.symbols)
        self._window = form == CROSS_SECTION
        if isinstance(source, Candles):
            extras.check(source.history.close.shape, form)
        elif extras.signals is not None or extras.forecasts is not None or form in (WEIGHTS, CROSS_SECTION, SIGNAL):
            raise ConfigError(f"form {form!r} needs candles: give a candle file or a CandleHistory, not books")
        self._confidence = extras.forecasts[..., CLASSES] if form == SIGNAL and extras.forecasts is not None else None
        self._table = self._rows(source, extras) if isinstance(source, Candles) else None
        size = self._table.shape[1] if self._table is not None else self._n * len(MINUTELY)
        tail = {WEIGHTS: self._n + 1, CROSS_SECTION: 0}.get(form, self._n + ACCOUNT)
        self._head = size
        self.shape = (WINDOW, self._n, len(CROSS) + SHAPES + 1) if form == CROSS_SECTION else (size + tail,)
        self._out = np.zeros(self.shape, np.float32)

    def confidence(self, row: int) -> float:
        """Of the forecast at `row`, in [0, 1]; 1 where nobody forecasts."""
        return 1.0 if self._confidence is None else float(self._confidence[row, 0])

    def _rows(self, source: Candles, extras: Extras) -> Singles:
        """Everything but the account, [T, columns]."""
        history, shape = source.history, source.history.close.shape
        if self.form == WEIGHTS:
            signals = np.zeros((*shape, SIGNALS), np.float32) if extras.signals is None else extras.signals
            forecasts = np.zeros(shape, np.float32) if extras.forecasts is None else extras.forecasts
            return np.concatenate([signals.reshape(len(signals), -1), forecasts], axis=1).astype(np.float32)
        columns = {CROSS_SECTION: CROSS, SIGNAL: HOUR_COLUMNS}.get(self.form, HOURLY)
        blocks = [self._market(source, columns)]
        if self.form == CROSS_SECTION:
            with np.errstate(invalid="ignore"):
                blocks += [(values / history.close - 1.0)[..., None] for values in (history.open, history.high, history.low)]
        if self.form == SIGNAL:
            blocks.append(np.zeros((*shape, CLASSES + 1)) if extras.forecasts is None else extras.forecasts.astype(np.float64))
        table = np.nan_to_num(np.concatenate(blocks, axis=2), nan=0.0)
        return np.clip(table, -LARGEST, LARGEST).astype(np.float32).reshape(len(table), -1)

    def _market(self, source: Candles, columns: tuple[str, ...]) -> Floats:
        history = source.history
        if (features := source.features) is not None:
            return np.asarray(features[:, :, [HOUR_COLUMNS.index(name) for name in columns]], dtype=np.float64)
        if self.form != "exposure" or not history.listed.all():
            raise DataError(
                f"form {self.form!r} on {history.timeframe} candles: take candles of an hour or longer"
                if self.form != "exposure" else f"{history.timeframe} candles with holes: choose a stretch without"
            )  # fmt: skip
        known = np.full(self._n, VOLATILITY_1H * (history.length / HOUR) ** 0.5 * 60**0.5)
        rows = minute_history(history.close, history.high, history.low, np.maximum(history.volume, 0.0), known)
        return np.asarray(rows[:, :, [MINUTE_COLUMNS.index(name) for name in MINUTELY]])

    def observe(
        self, row: int, market: MarketState | None, weights: Floats, drawdown: float, moments: tuple[float, float] = (0.0, 0.0)
    ) -> Singles:
        """What is seen at the close of `row`, or now on books; a fresh array."""
        out = self._out.copy()
        if self._window and self._table is not None:
            first = max(row - WINDOW + 1, 0)
            seen = self._table[first : row + 1].reshape(row + 1 - first, self._n, -1)
            out[WINDOW - len(seen) :, :, :-1] = seen
            out[:, :, -1] = weights
            return out
        n, head = self._n, self._head
        if self._table is not None:
            out[:head] = self._table[row]
        elif market is not None:
            columns = market.minute_columns()[:, [MINUTE_COLUMNS.index(name) for name in MINUTELY]]
            out[:head] = np.clip(np.nan_to_num(columns), -LARGEST, LARGEST).ravel()
        out[head : head + n] = weights
        out[head + n] = 1.0 - weights.sum()
        if self.form != WEIGHTS:
            out[head + n + 1 :] = (drawdown, *moments)
        return out
