"""Features of one symbol's book and prints, updated with every message in plain floats; columns are made when they are asked for."""

from collections import deque
from math import exp, log, log1p, sqrt

import numpy as np
import numpy.typing as npt

from agents.core.instruments import NS
from agents.market.book import Book

Floats = npt.NDArray[np.float64]

TAU_5, TAU_30, TAU_60 = 5.0, 30.0, 60.0
TAU_OFI, TAU_MICRO, TAU_VOLATILITY, TAU_TOXICITY, TAU_INTENSITY = 10.0, 5.0, 90.0, 1800.0, 600.0
MARKOUT_S = 5.0
MARKOUT_RATE, MARKOUT_PRIOR = 0.02, 20.0
"""Weight of the newest print's mark-out, and how many prints of no adverse selection it starts from."""
PENDING = 512
LONGEST_WINDOW_S = 30.0
"""Excursions over a longer silence say nothing of intensity."""
SAMPLE_PRIOR = 20.0
"""Seconds that the minute bars' volatility counts for."""
GRID = np.array([0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0]) * 1e-4
"""Distances from the mid, as fractions, at which fills are counted."""
INTENSITY_A, INTENSITY_K, INTENSITY_PRIOR = 0.1, 2000.0, 20.0
"""Fills a second at the mid and their decay while nothing was seen; how many windows that belief counts for."""
HALF_SPREAD = 5e-4
"""Half-spread assumed without a book: 5 bps, that of a small coin on a large exchange."""


class Flow:
    """Running sums of one symbol. Times are market nanoseconds, decays exponential in market seconds."""

    __slots__ = (
        "_ten_log",
        "_ten_time",
        "ask",
        "ask_size",
        "bid",
        "bid_size",
        "book_time",
        "buys",
        "depth",
        "hits",
        "last_price",
        "markout",
        "markout_count",
        "micro",
        "mid",
        "ofi",
        "pending",
        "samples",
        "seconds",
        "sells",
        "signed_5",
        "signed_30",
        "signed_60",
        "spread",
        "spread_weight",
        "square",
        "square_10",
        "square_10_weight",
        "square_weight",
        "total_5",
        "total_30",
        "total_60",
        "tox_mean",
        "tox_var",
        "tox_weight",
        "trade_time",
        "window_down",
        "window_mid",
        "window_start",
        "window_time",
        "window_up",
        "window_weight",
    )  # fmt: skip

    def __init__(self) -> None:
        self.bid = self.bid_size = self.ask = self.ask_size = self.mid = self.last_price = 0.0
        self.book_time = self.trade_time = 0
        self.signed_5 = self.signed_30 = self.signed_60 = self.total_5 = self.total_30 = self.total_60 = 0.0
        self.buys = self.sells = 0.0
        self.ofi = self.depth = self.micro = self.spread = self.spread_weight = 0.0
        self.seconds = 0.0
        self.square = self.square_weight = self.square_10 = self.square_10_weight = 0.0
        self.tox_mean = self.tox_var = self.tox_weight = 0.0
        self.markout, self.markout_count = 0.0, 0.0
        self.pending: deque[tuple[int, float, float]] = deque()
        self.samples: deque[tuple[int, float]] = deque(maxlen=64)
        self.window_start, self.window_mid, self.window_up, self.window_down = 0, 0.0, 0.0, 0.0
        self.window_weight = self.window_time = 0.0
        self.hits = np.zeros(len(GRID))
        self._ten_time, self._ten_log = 0, 0.0

    # -- facts -----------------------------------------------------------------------------------------------------

    def on_trade(self, time: int, price: float, quantity: float, sign: int) -> None:
        """One print; `sign` is the aggressor's, +1 bought. `time` never steps back."""
        elapsed = (time - self.trade_time) / NS
        if elapsed > 0:
            keep_5, keep_30, keep_60 = exp(-elapsed / TAU_5), exp(-elapsed / TAU_30), exp(-elapsed / TAU_60)
            self.signed_5 *= keep_5
            self.total_5 *= keep_5
            self.signed_30 *= keep_30
            self.total_30 *= keep_30
            self.signed_60 *= keep_60
            self.total_60 *= keep_60
            self.buys *= keep_60
            self.sells *= keep_60
            self.trade_time = time
        notional = price * quantity
        signed = sign * notional
        self.signed_5 += signed
        self.total_5 += notional
        self.signed_30 += signed
        self.total_30 += notional
        self.signed_60 += signed
        self.total_60 += notional
        self.last_price = price
        if sign > 0:
            self.buys += 1.0
        else:
            self.sells += 1.0
        if (mid := self.mid) > 0.0:
            if self.window_mid > 0.0:
                move = price / self.window_mid - 1.0
                if sign > 0:
                    if move > self.window_up:
                        self.window_up = move
                elif -move > self.window_down:
                    self.window_down = -move
            if len(self.pending) < PENDING:
                self.pending.append((time + int(MARKOUT_S * NS), sign, mid))

    def on_book(self, time: int, bid: float, bid_size: float, ask: float, ask_size: float) -> None:
        """The best levels after one sound book message; sizes in base units. `time` never steps back."""
        elapsed = (time - self.book_time) / NS if self.book_time else 0.0
        mid = 0.5 * (bid + ask)
        if self.mid > 0.0:
            flow = 0.0
            if bid >= self.bid:
                flow += bid_size
            if bid <= self.bid:
                flow -= self.bid_size
            if ask <= self.ask:
                flow -= ask_size
            if ask >= self.ask:
                flow += self.ask_size
            keep = exp(-elapsed / TAU_OFI)
            self.ofi = self.ofi * keep + flow
            self.depth += (1.0 - keep) * (0.5 * (bid_size + ask_size) - self.depth)
            decay = 1.0 - exp(-elapsed / TAU_60)
            self.spread_weight += decay * (1.0 - self.spread_weight)
            if self.spread_weight > 0.0:  # the spread that stood since the last message
                self.spread += decay / self.spread_weight * (0.5 * (self.ask - self.bid) / self.mid - self.spread)
            micro = (self.bid * self.ask_size + self.ask * self.bid_size) / (self.bid_size + self.ask_size) / self.mid - 1.0
            self.micro += (1.0 - exp(-elapsed / TAU_MICRO)) * (micro - self.micro)
        else:
            self.depth = 0.5 * (bid_size + ask_size)
        self.bid, self.bid_size, self.ask, self.ask_size, self.mid, self.book_time = bid, bid_size, ask, ask_size, mid, time
        pending = self.pending
        while pending and pending[0][0] <= time:
            _, sign, then = pending.popleft()
            self.markout_count += 1.0
            self.markout += max(MARKOUT_RATE, 1.0 / (self.markout_count + MARKOUT_PRIOR)) * (sign * (mid / then - 1.0) - self.markout)
        if time - self.window_start >= NS:
            self._sample(time, mid)

    def _sample(self, time: int, mid: float) -> None:
        """A window of a second or more ends: volatility, fill distances, toxicity."""
        level = log(mid)
        if self.window_mid > 0.0:
            elapsed = (time - self.window_start) / NS
            move = level - self.samples[-1][1]
            self.seconds += elapsed
            decay = 1.0 - exp(-elapsed / TAU_VOLATILITY)
            self.square_weight += decay * (1.0 - self.square_weight)
            self.square += decay / self.square_weight * (move * move / elapsed - self.square)
            if elapsed <= LONGEST_WINDOW_S:
                self._count(elapsed)
            self._toxicity(elapsed)
        self.samples.append((time, level))
        if not self._ten_time:
            self._ten_time, self._ten_log = time, level
        elif time - self._ten_time >= 10 * NS:
            elapsed = (time - self._ten_time) / NS
            decay = 1.0 - exp(-elapsed / (4 * TAU_VOLATILITY))
            self.square_10_weight += decay * (1.0 - self.square_10_weight)
            self.square_10 += decay / self.square_10_weight * ((level - self._ten_log) ** 2 / elapsed - self.square_10)
            self._ten_time, self._ten_log = time, level
        self.window_start, self.window_mid, self.window_up, self.window_down = time, mid, -1.0, -1.0

    def _count(self, elapsed: float) -> None:
        keep = exp(-elapsed / TAU_INTENSITY)
        self.window_weight = self.window_weight * keep + 2.0
        self.window_time = self.window_time * keep + 2.0 * elapsed
        self.hits *= keep
        for reach in (self.window_up, self.window_down):
            if reach >= 0.0:
                self.hits[: int(GRID.searchsorted(reach, side="right"))] += 1.0

    def _toxicity(self, elapsed: float) -> None:
        value = abs(self.signed_60) / self.total_60 if self.total_60 > 0.0 else 0.0
        decay = 1.0 - exp(-elapsed / TAU_TOXICITY)
        self.tox_weight += decay * (1.0 - self.tox_weight)
        gain = decay / self.tox_weight
        delta = value - self.tox_mean
        self.tox_mean += gain * delta
        self.tox_var += gain * (delta * delta * (1.0 - gain) - self.tox_var)

    # -- questions -------------------------------------------------------------------------------------------------

    @property
    def half_spread(self) -> float:
        """Half of the present spread over the mid; `HALF_SPREAD` without a book."""
        return 0.5 * (self.ask - self.bid) / self.mid if self.mid > 0.0 else HALF_SPREAD

    def adverse(self) -> float:
        """Expected loss of a maker's fill after five seconds, fraction of price, >= 0, from all prints."""
        return max(self.markout, 0.0)

    def volatility_1s(self, fallback: float) -> float:
        """Deviation of the mid per sqrt(second), drawn towards `fallback` while there are few seconds."""
        seconds = self.seconds
        return sqrt((self.square * seconds + fallback * fallback * SAMPLE_PRIOR) / (seconds + SAMPLE_PRIOR))

    def columns(self, book: Book, now: int, at: int, fallback: float) -> tuple[float, ...]:
        """FLOW_COLUMNS at market time `now`, stamp time `at`; `fallback` is the minute bars' volatility per sqrt(second)."""
        spread = self.half_spread
        keep = exp(-max(now - self.trade_time, 0) / NS / TAU_60)
        depth = self.top_depth(book, 5)
        offset = self._micro_offset()
        keep_ofi = exp(-max(now - self.book_time, 0) / NS / TAU_OFI)
        toxicity = abs(self.signed_60) / self.total_60 if self.total_60 > 0.0 else 0.0
        return (
            spread, self.spread if self.spread_weight > 0.0 else spread, self.volatility_1s(fallback), offset,
            self.signed_60 / self.total_60 if self.total_60 > 0.0 else 0.0,
            max(-10.0, min(10.0, self.signed_60 * keep / depth)) if depth > 0.0 else 0.0,
            (self.buys + self.sells) * keep / TAU_60,
            max(-10.0, min(10.0, self.ofi * keep_ofi / self.depth)) if self.depth > 0.0 else 0.0,
            max(-8.0, min(8.0, (toxicity - self.tox_mean) / sqrt(self.tox_var + 0.01))) if self.tox_weight > 0.0 else 0.0,
            self.adverse(), self.last_price / self.mid - 1.0 if self.mid > 0.0 and self.last_price > 0.0 else 0.0,
            min(max(at - book.stamp_at, 0) / NS, 3600.0) if book.stamp_at else 3600.0, 1.0 if book.trouble(at) is None else 0.0,
        )  # fmt: skip

    def depths(self, book: Book, now: int, tick: float, fallback: float) -> tuple[float, ...]:
        """DEPTH_COLUMNS after the two of intensity, which `intensity` makes for all symbols at once."""
        bids, asks, mid = _side(book.bid_prices, book.bid_sizes), _side(book.ask_prices, book.ask_sizes), self.mid
        if mid <= 0.0:
            return (0.0,) * 41
        imbalance, bid_far, ask_far, bid_sums, ask_sums = [], [], [], [], []
        for count in (1, 2, 3, 4, 5, 10):
            bid, ask = bids[1][min(count, len(bids[1])) - 1], asks[1][min(count, len(asks[1])) - 1]
            imbalance.append((bid - ask) / (bid + ask))
            bid_sums.append(log1p(bid * mid))
            ask_sums.append(log1p(ask * mid))
            if count > 1:
                bid_far.append(1.0 - bids[0][min(count, len(bids[0])) - 1] / mid)
                ask_far.append(asks[0][min(count, len(asks[0])) - 1] / mid - 1.0)
        keep = exp(-max(now - self.trade_time, 0) / NS / TAU_60)
        trades = self.buys + self.sells
        seconds = self.seconds if self.square_10_weight > 0.0 else 0.0
        slow = sqrt((self.square_10 * seconds + fallback * fallback * 10 * SAMPLE_PRIOR) / (seconds + 10 * SAMPLE_PRIOR))
        return (
            *imbalance, *bid_far, *ask_far, *bid_sums, *ask_sums,
            tick / mid, (self.ask - self.bid) / tick if tick > 0.0 else 0.0,
            self._since(now, 1), self._since(now, 5), self._since(now, 30),
            self.signed_5 / self.total_5 if self.total_5 > 1e-9 else 0.0, self.signed_30 / self.total_30 if self.total_30 > 1e-9 else 0.0,
            self.buys * keep / TAU_60, self.sells * keep / TAU_60, log1p(self.total_60 / trades) if trades > 1e-9 else 0.0,
            log1p(self.total_60 * keep / TAU_60), self._micro_offset() - self.micro, slow,
        )  # fmt: skip

    def top_depth(self, book: Book, levels: int) -> float:
        """Quote notional displayed on the best `levels` of both sides."""
        return (sum(book.bid_sizes[:levels]) + sum(book.ask_sizes[:levels])) * self.mid

    def _micro_offset(self) -> float:
        if self.mid <= 0.0:
            return 0.0
        return (self.bid * self.ask_size + self.ask * self.bid_size) / (self.bid_size + self.ask_size) / self.mid - 1.0

    def _since(self, now: int, seconds: int) -> float:
        """Log return of the mid over about the last `seconds`; 0 while unknown."""
        for time, level in reversed(self.samples):
            if time <= now - seconds * NS:
                return log(self.mid) - level
        return 0.0


def _side(prices: list[float], sizes: list[float]) -> tuple[list[float], list[float]]:
    """(prices, cumulative sizes) of the best ten levels."""
    total, sums = 0.0, []
    for size in sizes[:10]:
        total += size
        sums.append(total)
    return prices, sums


def intensity(hits: Floats, weight: Floats, time: Floats) -> tuple[Floats, Floats]:
    """(A, k) of the fill rate A exp(-k distance), each [N], from excursions of trade prices over short windows.

    `hits` [N, GRID] are windows in which a resting order at that distance would have been reached, of `weight` [N] windows lasting
    `time` [N] seconds in all. P(reached in T) = 1 - exp(-A exp(-k d) T); a weighted line through log rates (Gueant, Lehalle,
    Fernandez-Tapia 2013, section 5, with the delta-method variance of each point). A is per second, k per unit of distance.
    """
    length = np.where(weight > 0, time / np.maximum(weight, 1e-300), 1.0)[:, None]
    prior = -np.expm1(-INTENSITY_A * np.exp(-INTENSITY_K * GRID) * length)
    count = weight[:, None] + INTENSITY_PRIOR
    share = np.clip((hits + INTENSITY_PRIOR * prior) / count, 1e-6, 0.999)
    survival = np.log1p(-share)
    rate = np.log(-survival / length)
    points = count * (1 - share) * survival * survival / share
    total = points.sum(1, keepdims=True)
    mean_x, mean_y = (points * GRID).sum(1, keepdims=True) / total, (points * rate).sum(1, keepdims=True) / total
    centred = GRID - mean_x
    slope = (points * centred * (rate - mean_y)).sum(1) / (points * centred * centred).sum(1)
    k = np.clip(-slope, 20.0, 1e5)
    a = np.clip(np.exp(np.clip(mean_y[:, 0] + k * mean_x[:, 0], -20.0, 10.0)), 1e-4, 1e3)
    return a, k
