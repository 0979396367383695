"""A market that never was: correlated coins, clustered volatility, jumps, self-exciting order flow, a book with depth.

Every 100 ms cell of market time has an efficient log price (one factor plus own noise, stochastic volatility, Student-t
jumps), and a transient displacement that order flow pushes and that reverts within half a minute: resting quotes get filled by
noise, and the price comes back often enough that a patient market maker can live. Prints arrive as a Hawkes process in its
cluster form (Hawkes & Oakes 1974), reach into the book by exponential depth (so fill intensity is A exp(-k delta)), and
displayed depth grows with distance. The market is generated in blocks on a fixed grid, so it depends on the seed alone and
not on how it is stepped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from agents.core.events import BookSnapshot, Level, MarketEvent, Stamp, Trade
from agents.core.instruments import NS, Instrument, Side, Symbol
from agents.market import synthetic_history as history_model
from agents.market.synthetic_assets import FACTOR_VOLATILITY, YEAR_S, find_assets, listing
from agents.market.synthetic_history import Floats, MinuteHistory, Row

Ints = NDArray[np.int64]

CELLS = 100
"""Cells of a block: ten seconds of market time."""
HALF_SPREAD = 0.00004
"""Fraction of price; the level grid widens it by half a level on average."""
LEVEL_SPACING = 0.00007
"""Distance of neighbouring levels, as a fraction of price and at least one tick."""
REACH = 0.0003
"""Mean depth, beyond the best price, of the prints that sweep."""
SWEEP_SHARE = 0.35
BRANCHING = 0.5
"""Mean number of prints that one print sets off."""
ECHO_S = 2.0
"""Mean delay of a print that another set off."""
FLOW_PUSH = 0.00004
"""Transient displacement per print of median size."""
TRANSIENT_HALF_LIFE_S = 20.0
TRANSIENT_NOISE = 0.00022
"""Stationary deviation of the displacement without flow."""
LEANING = 500.0
"""How strongly a displaced price calls opposite prints: at 3 bps, 65 % of the newcomers."""
HOME_S = 30 * 86_400.0
"""Relaxation towards the first price: slow enough to look like a random walk, short enough that nothing runs away."""
DEPTH = 4_000.0
"""Notional at the best level of an asset of size 1."""
REFRESH_NS = 20 * NS
"""How long a level keeps its quantity on average."""
SETTLED_BLOCKS = 3
"""Depth grows with the distance from where the price was at most so many blocks ago: resting quantities don't follow ticks."""
TABLE = 4096
_POWERS = 0.5 ** (np.arange(CELLS + 1) * 0.1 / TRANSIENT_HALF_LIFE_S)


@dataclass(slots=True)
class _Flow:
    """Prints in order of time; sides are +1 and -1, `reach` a fraction beyond the best price, `size` a notional."""

    time: Ints
    asset: Ints
    side: Ints
    reach: Floats
    size: Floats


class SyntheticMarket:
    """A seeded market of known coins from `start` (market ns) on, with a past. Raises ConfigError for an unknown symbol."""

    def __init__(
        self,
        symbols: Sequence[str],
        seed: int,
        start: int,
        history_days: int = 120,
        depth_levels: int = 20,
        trade_rate: float = 1.0,
    ) -> None:
        assets = find_assets(symbols)
        self.instruments: dict[Symbol, Instrument] = {Symbol(a.symbol): listing(a) for a in assets}
        self.start = start
        self._cell_ns = NS // 10
        self._symbols = tuple(self.instruments)
        self._past = MinuteHistory(assets, start, history_days, trade_rate, seed)
        self._rng = np.random.default_rng([seed, 1])
        n = len(assets)
        self._beta, self._own = np.array([a.beta for a in assets]), np.array([a.own_volatility for a in assets])
        self._size, self._tick = np.array([a.size for a in assets]), np.array([float(a.tick) for a in assets])
        self._lot = np.array([float(a.lot) for a in assets])
        self._rate = np.full(n, trade_rate)
        self._home = np.log([self._past.last_price(a.symbol) for a in assets])
        self._log_volatility = self._past.log_volatility.copy()
        self._efficient, self._displaced = self._home.copy(), np.zeros(n)
        self._permanent, self._shock, self._shocked_at = np.zeros(n), np.zeros(n), start
        empty = np.empty(0, dtype=np.int64)
        self._pending = (empty, empty, empty)
        """(time, asset, side) of offspring that fall into later blocks."""
        self._levels = np.arange(depth_levels)
        self._spacing = np.maximum(np.rint(LEVEL_SPACING * np.exp(self._home) / self._tick), 1).astype(np.int64)
        self._jitter = (self._rng.random((n, TABLE)) * self._spacing[:, None]).astype(np.int64)
        self._noise = np.exp(0.6 * self._rng.standard_normal((n, TABLE)))
        self._phase = self._rng.integers(0, REFRESH_NS, TABLE)
        self._lot_value = self._lot * np.exp(self._home)
        self._decimals = [(i.tick, i.lot) for i in self.instruments.values()]
        self._prices: list[dict[int, Decimal]] = [{} for _ in assets]
        self._trade_ids = [0] * n
        self._now = self._block = start
        self._next_block()

    def history(self, symbol: Symbol, timeframe: str, end: int | None = None, limit: int = 1000) -> list[Row]:
        """The last `limit` candles before the start of the market that open before `end` (market ns), oldest first."""
        return self._past.rows(symbol, timeframe, end, limit)

    def step(self, to: int) -> list[MarketEvent]:
        """Prints after the last step up to `to` (market ns), then one snapshot a symbol at `to`; empty if time stands still.

        Events are stamped with market time.
        """
        if to <= self._now:
            return []
        events: list[MarketEvent] = []
        while to >= self._block + CELLS * self._cell_ns:
            self._emit(self._block + CELLS * self._cell_ns - 1, events)
            self._block += CELLS * self._cell_ns
            self._next_block()
        self._emit(to, events)
        self._now = to
        self._snapshots(to, events)
        return events

    def absorb(self, symbol: Symbol, side: Side, quantity: Decimal) -> None:
        """Let the market feel an aggressive order of a user: the square-root law, three tenths of it for good."""
        i = self._symbols.index(symbol)
        notional = float(quantity) * float(np.exp(self._efficient[i]))
        push = side.value * 0.0005 * float(np.sqrt(notional / (250_000 * self._size[i])))
        self._shock *= self._fading(self._now)
        self._shocked_at = self._now
        self._shock[i] = np.clip(self._shock[i] + 0.7 * push, -0.02, 0.02)
        self._permanent[i] = np.clip(self._permanent[i] + 0.3 * push, -0.2, 0.2)

    # -- generation ------------------------------------------------------------------------------------------------

    def _next_block(self) -> None:
        """Draw the next ten seconds: prices at the start of each cell (and the last end), and prints."""
        rng, n, dt = self._rng, len(self._symbols), self._cell_ns / NS
        span = CELLS * dt
        keep = 0.5 ** (span / history_model.VOLATILITY_HALF_LIFE_S)
        deviation = history_model.VOLATILITY_OF_LOG
        self._log_volatility *= keep
        self._log_volatility += deviation * np.sqrt(1 - keep * keep) * rng.standard_normal(n + 1)
        level = np.exp(np.clip(self._log_volatility, -1.2, 1.2) - deviation**2 / 2) * history_model.season(self._block)
        self._excited = np.sqrt(level[:n])
        self._flow = self._prints(span)
        scale = np.sqrt(dt / YEAR_S)
        moves = rng.standard_normal((CELLS, n)) * (self._own * level[:n] * scale)
        moves += (rng.standard_normal(CELLS) * (FACTOR_VOLATILITY * level[n] * scale))[:, None] * self._beta
        self._jump(moves, span)
        moves += (self._home - self._efficient) * (dt / HOME_S)
        efficient = np.concatenate([self._efficient[None], self._efficient + np.cumsum(moves, axis=0)])
        displaced = self._displacement()
        self._path = efficient + displaced
        if (self._block - self.start) // (CELLS * self._cell_ns) % SETTLED_BLOCKS == 0:
            self._centre = self._grid(np.arange(n), np.exp(self._path[0]) / self._tick, np.ones(n, dtype=np.int64))
        self._efficient, self._displaced = efficient[-1], displaced[-1]

    def _jump(self, moves: Floats, span: float) -> None:
        rng = self._rng
        chance = history_model.JUMP_RATE_S * span
        hit = rng.random(moves.shape[1] + 1) < chance
        if hit.any():
            size = history_model.JUMP_SIZE * np.clip(rng.standard_t(3, len(hit)), -12, 12) * hit
            moves[rng.integers(0, CELLS)] += size[:-1] * self._own + size[-1] * FACTOR_VOLATILITY * self._beta

    def _displacement(self) -> Floats:
        """Transient displacement at the start of each cell: an AR(1) driven by noise and by signed flow, in closed form."""
        n, flow = len(self._symbols), self._flow
        keep = _POWERS[1]
        noise = 0.8 * self._rng.standard_normal((CELLS, n)) + 0.6 * self._rng.standard_normal((CELLS, 1))  # partly shared
        push = noise * (TRANSIENT_NOISE * np.sqrt(1 - keep * keep) * self._excited)
        cell = (flow.time - self._block) // self._cell_ns
        weight = flow.side * np.sqrt(np.minimum(flow.size / (history_model.MEAN_PRINT * self._size[flow.asset]), 25.0))
        np.add.at(push, (cell, flow.asset), FLOW_PUSH * weight)
        carried = np.concatenate([np.zeros((1, n)), np.cumsum(push / _POWERS[1:, None], axis=0)])
        return np.asarray(np.clip(_POWERS[:, None] * (self._displaced + carried), -0.01, 0.01))

    def _prints(self, span: float) -> _Flow:
        """Immigrants and their offspring within the block; offspring of later blocks wait in `_pending`."""
        rng, n = self._rng, len(self._symbols)
        counts = rng.poisson(self._rate * (1 - BRANCHING) * self._excited * span)
        asset = np.repeat(np.arange(n), counts)
        time = self._block + (rng.random(len(asset)) * (CELLS * self._cell_ns - 1)).astype(np.int64) + 1
        against = np.clip(0.5 - LEANING * self._displaced[asset], 0.1, 0.9)
        side = np.where(rng.random(len(asset)) < against, 1, -1)
        generations = [self._pending, (time, asset, side)]
        while len(time):
            heirs = np.repeat(np.arange(len(time)), rng.poisson(BRANCHING, len(time)))
            delay = (rng.exponential(ECHO_S, len(heirs)) * NS).astype(np.int64) + 1
            flip = np.where(rng.random(len(heirs)) < 0.85, 1, -1)
            time, asset, side = time[heirs] + delay, asset[heirs], side[heirs] * flip
            generations.append((time, asset, side))
        time, asset, side = (np.concatenate(column) for column in zip(*generations, strict=True))
        order = np.argsort(time, kind="stable")
        time, asset, side = time[order], asset[order], side[order]
        inside = int(np.searchsorted(time, self._block + CELLS * self._cell_ns))
        self._pending = (time[inside:], asset[inside:], side[inside:])
        time, asset, side = time[:inside], asset[:inside], side[:inside]
        size = np.exp(history_model.PRINT_SPREAD * rng.standard_normal(inside)) * (history_model.MEAN_PRINT * self._size[asset])
        sweeps = rng.random(inside) < SWEEP_SHARE
        reach = np.where(sweeps, rng.exponential(REACH, inside) * self._excited[asset], 0.0)
        return _Flow(time, asset, side, reach, size)

    # -- telling ---------------------------------------------------------------------------------------------------

    def _emit(self, to: int, events: list[MarketEvent]) -> None:
        """The block's prints after the last ones told, up to `to`."""
        flow = self._flow
        first, last = np.searchsorted(flow.time, (self._now, to), side="right")
        if last <= first:
            return
        part = slice(first, last)
        time, asset, side = flow.time[part], flow.asset[part], flow.side[part]
        middle = np.exp(self._path[(time - self._block) // self._cell_ns, asset] + self._offset(to)[asset])
        touch = middle * (1 + side * (HALF_SPREAD * self._excited[asset] + flow.reach[part])) / self._tick[asset]
        ticks = self._level(asset, self._grid(asset, touch, side))
        lots = np.maximum(np.rint(flow.size[part] / middle / self._lot[asset]), 1).astype(np.int64)
        rows = zip(time.tolist(), asset.tolist(), side.tolist(), ticks.tolist(), lots.tolist(), strict=True)
        for at, i, sign, tick, lot in rows:
            self._trade_ids[i] += 1
            events.append(
                Trade(
                    Stamp(at), self._symbols[i], at, str(self._trade_ids[i]), self._price(i, tick), lot * self._decimals[i][1],
                    Side.BUY if sign > 0 else Side.SELL,
                )
            )  # fmt: skip

    def _snapshots(self, to: int, events: list[MarketEvent]) -> None:
        asset = np.arange(len(self._symbols))
        middle = np.exp(self._path[(to - self._block) // self._cell_ns] + self._offset(to))
        sides: list[list[tuple[Level, ...]]] = []
        for sign in (-1, 1):
            touch = middle * (1 + sign * HALF_SPREAD * self._excited) / self._tick
            grid = self._grid(asset, touch, np.full(len(asset), sign))[:, None] + sign * self._levels
            ticks = self._level(asset[:, None], grid)
            slot = (grid * 2 + (sign > 0)) % TABLE
            epoch = (to + self._phase[slot]) // REFRESH_NS
            noise = self._noise[asset[:, None], (slot * 31 + epoch * 101) % TABLE]
            away = np.abs(grid - self._centre[:, None]) + 1.0
            notional = DEPTH * self._size[:, None] * (0.5 + 0.5 * away**0.8)
            lots = np.maximum(np.rint(notional * noise / self._lot_value[:, None]), 1).astype(np.int64)
            sides.append([self._as_levels(i, t, q) for i, (t, q) in enumerate(zip(ticks.tolist(), lots.tolist(), strict=True))])
        for symbol, bids, asks in zip(self._symbols, *sides, strict=True):
            events.append(BookSnapshot(Stamp(to), symbol, to, bids, asks))

    def _as_levels(self, i: int, ticks: list[int], lots: list[int]) -> tuple[Level, ...]:
        price, lot = self._price, self._decimals[i][1]
        return tuple([(price(i, tick), count * lot) for tick, count in zip(ticks, lots, strict=True) if tick > 0])

    def _grid(self, asset: Ints, touch: Floats, side: Ints) -> Ints:
        """Index of the first level at or beyond `touch` (in ticks): above it for asks (side 1), below for bids."""
        spacing = self._spacing[asset]
        limit = np.where(side > 0, np.ceil(touch), np.floor(touch)).astype(np.int64)
        index = limit // spacing
        short = side * (self._level(asset, index) - limit) < 0
        return np.asarray(index + side * short)

    def _level(self, asset: Ints, index: Ints) -> Ints:
        """Price of a level in ticks: an irregular grid that stays where it is, so that levels persist."""
        return np.asarray(index * self._spacing[asset] + self._jitter[asset, index % TABLE])

    def _price(self, i: int, tick: int) -> Decimal:
        known = self._prices[i]
        if (price := known.get(tick)) is None:
            if len(known) > 20_000:
                known.clear()
            price = known[tick] = tick * self._decimals[i][0]
        return price

    def _offset(self, time: int) -> Floats:
        """What the orders of users did to log prices."""
        return np.asarray(self._permanent + self._shock * self._fading(time))

    def _fading(self, time: int) -> float:
        return float(0.5 ** ((time - self._shocked_at) / (NS * TRANSIENT_HALF_LIFE_S)))
