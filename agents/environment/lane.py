"""A portfolio played on candles without events: the rooms' own arithmetic in whole numbers, some twenty times as fast.

What the rooms do between two candles for orders that take at once and never rest is short enough to be written down: project, plan,
walk the imagined book, pay, mark. This file says the same in integers and floats, so that fills, fees and equity are those of
`Rooms` to the last digit; a test plays both on the same candles. Where a float cannot tell on which side of a lot or a tick a
number lies, Decimal decides as it does there. Where the bound on the sum of weights or the day's turnover binds, the rooms ask an
interior-point solver that is right to 1e-9, and the lane solves the same program exactly: there the two may differ by a few lots.
What is not the case that it knows (holes, resting orders, limits on the tail, another style) belongs to the rooms: `fits` says so.
"""

from decimal import ROUND_CEILING, Decimal
from math import ceil, sqrt

import numpy as np

from agents.core.instruments import Symbol
from agents.desk.decision import EngineConfig
from agents.desk.limits import CALM, FLATTEN, WARN, RiskState
from agents.desk.program import FEASIBLE
from agents.desk.projection import BINDS
from agents.desk.question import TINY
from agents.desk.sheet import VOLUME_BARS
from agents.desk.wishes import Style
from agents.environment.grid import NEAR, lay, places_of
from agents.environment.outcomes import Filled, Floats, Played
from agents.environment.sources import Candles
from agents.market.features import DAY
from agents.market.frictions import CandleBook, Frictions, SquareRootImpact

NOTHING_TAKEN = (0, 0)
Order = tuple[int, int, int, int]
"""Row, side, lots, and how far it may reach in ticks."""


class _Market:
    """What the lane must know of one symbol: grids and filters as whole numbers and floats."""

    __slots__ = (
        "cost", "fee", "fee_d", "fee_n", "index", "instrument", "largest_lots", "least_base", "legal", "lot", "min_notional", "most_notional",
        "symbol", "tick", "traded_unit", "unit",
    )  # fmt: skip

    def __init__(self, index: int, lane: "Lane") -> None:
        instrument, grid, limits = lane.instruments[index], lane.grid, lane.config.limits
        self.index, self.instrument, self.symbol = index, instrument, instrument.symbol
        tick_places, lot_places = places_of(instrument.tick), places_of(instrument.lot)
        self.tick, self.lot = float(instrument.tick), float(instrument.lot)
        self.unit = 10 ** (grid.places - grid.price_places - lot_places)
        """Money of one lot at a close of 1."""
        self.traded_unit = 10 ** (grid.places - tick_places - lot_places)
        """Money of one lot at a price of one tick."""
        self.legal = float(instrument.min_notional)
        self.min_notional = max(self.legal, limits.min_order_notional)
        self.least_base = float(max(instrument.min_quantity, instrument.lot))
        self.largest_lots = float(instrument.max_quantity / instrument.lot)
        self.most_notional = float(instrument.max_notional)
        self.fee = float(instrument.taker_fee)
        self.cost = max(self.fee, 0.0) if limits.turnover_cost_bps is None else limits.turnover_cost_bps * 1e-4
        self.fee_n, self.fee_d = lane.frictions.fee.rate(instrument, False).as_integer_ratio()


class Lane:
    """The same face as `Rooms`, for what `fits`."""

    def __init__(self, source: Candles, config: EngineConfig, style: Style, capital: Decimal, frictions: Frictions, warmup: int) -> None:
        self.source, self.config, self.frictions, self.warmup = source, config, frictions, warmup
        self.symbols, self.instruments = source.symbols, source.instruments
        self.capital, self.share = capital, style.participation
        candles, impact = frictions.candles, frictions.impact
        self._book = candles if isinstance(candles, CandleBook) else CandleBook()
        self._impact = float(impact.coefficient) if isinstance(impact, SquareRootImpact) else 0.0
        limits = config.limits
        reach = min(Decimal(repr(limits.slippage)), Decimal(repr(limits.price_collar)))
        self.grid = lay(source.history, source.instruments, self._book, reach)
        self._scale = 10**self.grid.places
        self._dust = self._scale // 10**8
        """Money of one step of the fee grid."""
        self._markets = [_Market(index, self) for index in range(len(self.symbols))]
        self._closings: list[int] = source.history.closings.tolist()
        self.risk = RiskState()

    # -- questions ---------------------------------------------------------------------------------------------------------

    @property
    def equity(self) -> float:
        """Marked equity in quote."""
        return self._equity

    @property
    def drawdown(self) -> float:
        """From the peak, as a fraction."""
        return self.risk.drawdown

    @property
    def now(self) -> int:
        """Market time in ns."""
        return int(self._closings[self._row])

    def marks(self) -> Floats:
        """Mark prices, [n]."""
        marks: Floats = self.grid.marks[self._row].copy()
        return marks

    def weights(self) -> Floats:
        """Held now, [n], fractions of equity."""
        return np.asarray(np.array(self._worth) / self._equity)

    # -- play --------------------------------------------------------------------------------------------------------------

    def reset(self, seed: int, row: int) -> bool:
        """Open the account at the close of `row`."""
        del seed
        self._row, self._first = row, max(row - self.warmup, 0)
        self._lots: list[int] = [0] * len(self.symbols)
        self._cash: int = int(self.capital * self._scale)
        self._taken: list[dict[tuple[int, int], tuple[int, int]]] = [{} for _ in self.symbols]
        self._equity: float = self._cash / self._scale
        self._worth = [0.0] * len(self.symbols)
        """Of each position in quote."""
        self._bought: int = 0
        self._day, self._bought_before = -1, 0.0
        self.risk = RiskState()
        self.risk.mark(self._equity, float(self.capital), self.config.limits)
        return True

    def play(self, wish: Floats) -> Played:
        """Wish for weights [n] at this close, and live to the next."""
        scale, row, equity, grid, markets = self._scale, self._row, self._equity, self.grid, self._markets
        before, was_worth = list(self._lots), self._worth
        held = [value / equity for value in was_worth]
        weights, total, bound = self._project(wish.tolist(), held)
        prices = grid.marks[row].tolist()
        orders = self._plan(weights, total, held, prices)
        spent, slipped = [0] * len(held), [0.0] * len(held)
        fills: list[Filled] = []
        turnover = 0
        if orders:
            shown, books = grid.shown[row].tolist(), (grid.bids[row].tolist(), grid.asks[row].tolist())
            for order in orders:
                turnover += self._execute(order, shown[order[0]], books, prices[order[0]], spent, slipped, fills)
        kept, profit, worth, money = [], [], [], self._cash
        for n, was, old, close, new, paid, price, market in zip(
            self._lots, before, was_worth, grid.closes[row], grid.closes[row + 1], spent, prices, markets, strict=True
        ):
            kept.append(n * market.lot * price / equity)
            value = n * new * market.unit
            money += value
            worth.append(value / scale)
            profit.append((value - was * close * market.unit - paid) / scale if n or old else 0.0)
        self._row, self._equity, self._worth = row + 1, money / scale, worth
        self.risk.mark(self._equity, self.risk.capital, self.config.limits)
        return Played(
            equity=self._equity, weights=np.array(worth) / self._equity, held=np.array(kept), profit=np.array(profit),
            costs=np.array(slipped), returns=grid.marks[row + 1] / grid.marks[row] - 1.0,
            elapsed_ns=self._closings[row + 1] - self._closings[row], turnover=turnover / scale / equity, fills=fills, bound=bound,
            terminated=self.risk.rung == FLATTEN or self._equity <= 0, truncated=row + 2 >= len(self._closings),
        )  # fmt: skip

    def _today(self) -> float:
        """Increases of this market day over equity."""
        bought, day = self._bought / self._scale, self.now // DAY
        if day != self._day:
            self._day, self._bought_before = day, bought
        return float((bought - self._bought_before) / self._equity)

    def _project(self, wish: list[float], held: list[float]) -> tuple[list[float], float, tuple[tuple[str, Symbol | None], ...]]:
        """(safe weights, bound on their sum, what bound): the program of `agents.desk.program` with one joint line, by hand."""
        limits, rung, tracking = self.config.limits, self.risk.rung, self.config.limits.tracking
        multiplier = limits.reduced_gross if rung == "reduce" else 1.0
        total, name = min(
            ((1 - limits.cash_buffer, "cash_buffer"), (limits.gross * multiplier, "gross"), (limits.net, "net")), key=lambda each: each[0]
        )
        committed, left = sum(held), max(limits.turnover_day - self._today(), 0.0)
        line, room = (name, total - committed) if total - committed <= left else ("turnover", left)
        closed = rung not in (CALM, WARN)
        shut = closed or committed > total or room <= TINY
        kept = line if shut and (committed > total or room <= TINY) else "no_new_risk" if closed else "position_cap"
        cap, rise = limits.position_cap, 0.0
        weights, bound = list[float](), list[tuple[str, Symbol | None]]()
        for asked, has, market in zip(wish, held, self._markets, strict=True):
            wanted = asked if asked > 0.0 else 0.0
            step, cost = wanted - has, market.cost
            slack = cost / tracking
            free = has + (step - slack if step > slack else step + slack if step < -slack else 0.0)
            most = has if shut and has < cap else cap
            weight = (most if free > most else free) if free > 0.0 else 0.0
            weights.append(weight)
            if weight > has:
                rise += weight - has
            if tracking * (wanted - most) - (cost if most >= has else -cost) > BINDS:
                bound.append((kept if most < cap else "position_cap", market.symbol))
        if committed > total:
            if sum(weights) > total + FEASIBLE:
                weights = self._lowered(wish, [0.0] * len(held), weights, 1.0, total)
                bound.append((line, None))
        elif rise > room + FEASIBLE:
            floor = [min(weight, has) for weight, has in zip(weights, held, strict=True)]
            weights = self._lowered(wish, floor, weights, -1.0, sum(floor) + room)
            bound.append((line, None))
        return weights, total, tuple(bound)

    def _lowered(self, wish: list[float], low: list[float], high: list[float], sign: float, bound: float) -> list[float]:
        """`clip(w* + sign c / D - v, low, high)` with the least v >= 0 at which the sum is at most `bound`: exact, the sum is a chain of lines."""
        tracking = self.config.limits.tracking
        aims = [max(w, 0.0) + sign * market.cost / tracking for w, market in zip(wish, self._markets, strict=True)]
        bends: list[tuple[float, int]] = []
        for aim, floor, top in zip(aims, low, high, strict=True):
            if top > floor and aim > floor:
                bends += [(aim - top if aim > top else 0.0, 1), (aim - floor, -1)]
        level, slope, total = 0.0, 0, sum(high)
        for at, change in sorted(bends):
            drop = slope * (at - level)
            if slope and total - drop <= bound:
                break
            total, level, slope = total - drop, at, slope + change
        if slope:
            level += (total - bound) / slope
        return [min(max(aim - level, floor), top) for aim, floor, top in zip(aims, low, high, strict=True)]

    def _plan(self, weights: list[float], total: float, held: list[float], marks: list[float]) -> list[Order]:
        """Orders, sells first: what `agents.desk.planner` sends for this style."""
        limits, equity, row = self.config.limits, self._equity, self._row
        sells, buys = [], []
        for weight, mark, lots, market in zip(weights, marks, self._lots, self._markets, strict=True):
            value, least = weight * equity, market.least_base * mark
            wanted = value >= least and value >= market.min_notional
            need = value / mark / market.lot - lots if wanted else float(-lots)
            if need >= 1.0:
                buys.append((need, wanted, weight, mark, lots, market))
            elif need <= -1.0:
                sells.append((need, wanted, weight, mark, lots, market))
        closed = self.risk.rung not in (CALM, WARN)
        if not sells and (closed or not buys):
            return []
        volumes = self._volumes()
        reach = self.grid.least[row].tolist(), self.grid.most[row].tolist()
        room, cash = (total - sum(held)) * equity, self._cash / self._scale - limits.cash_buffer * equity
        largest, cap, orders = limits.max_order_notional * equity, limits.position_cap * equity, list[Order]()
        for need, wanted, weight, mark, lots, market in sells if closed else (*sells, *buys):
            side, gap, lot = need > 0, abs(need), market.lot
            ticks = reach[side][market.index]
            price = ticks * market.tick
            worth, smallest = price * lot, market.least_base * price
            if smallest < market.min_notional:
                smallest = market.min_notional
            if gap * worth < smallest:
                continue
            least = float(ceil(smallest / price / lot))
            recent = volumes[market.index] * self.share / lot
            allowance = 1e30 if closed else recent if recent > least else least
            most = max(largest, 2 * market.legal, 2 * market.least_base * mark)
            single = most / worth
            share = min(allowance, single if single > least else least, market.largest_lots, market.most_notional / worth)
            if gap - share < least:
                share = gap
            wide = gap if gap < share else share
            if side:
                value = min(cap - lots * lot * mark, room, most) / (price if price > mark else mark)
                spendable = cash / (price * (1.0 + market.fee))
                wide = max(min(wide, (value if value < spendable else spendable) / lot), 0.0)
            elif wide > lots:
                wide = float(lots)
            if not wanted and wide == lots:
                quantity = lots
            elif abs(wide - round(wide)) <= NEAR * equity / (mark * lot):
                quantity = self._exact(market, side, weight, ticks, orders, total)
            else:
                quantity = int(wide)
            if allowance < least or quantity < least:
                continue
            orders.append((market.index, 1 if side else -1, quantity, ticks))
            if side:
                room -= quantity * lot * (price if price > mark else mark)
                cash -= quantity * worth * (1.0 + market.fee)
        return orders

    def _volumes(self) -> list[float]:
        """Mean recent volume of each symbol as the planner knows it: of bars since the first that the account's market has seen."""
        row, first = self._row, self._first
        if row - first >= VOLUME_BARS - 1:
            recent = self.grid.volumes[row]
        else:
            recent = self.source.history.volume[first : row + 1].mean(axis=0)
        return [float(volume) for volume in recent]

    def _exact(self, market: _Market, side: bool, weight: float, ticks: int, orders: list[Order], total: float) -> int:
        """The same quantity in Decimal, where a float lies too near to a lot to tell; in lots."""
        limits, instrument, scale = self.config.limits, market.instrument, Decimal(self._scale)
        closes = self.grid.closes[self._row]
        marks = [Decimal(close).scaleb(-self.grid.price_places) for close in closes]
        held = [lots * m.instrument.lot * mark for lots, m, mark in zip(self._lots, self._markets, marks, strict=True)]
        mark, position, lot = marks[market.index], self._lots[market.index] * instrument.lot, instrument.lot
        cash = Decimal(self._cash) / scale
        equity, price = cash + sum(held), ticks * instrument.tick
        floor_notional = Decimal(repr(limits.min_order_notional))
        value = Decimal(repr(weight)) * equity
        smallest_mark = max(instrument.min_notional, max(instrument.min_quantity, lot) * mark)
        wanted = value / mark if value >= max(smallest_mark, floor_notional) else Decimal(0)
        gap = abs(wanted - position)
        smallest = max(instrument.min_notional, max(instrument.min_quantity, lot) * price, floor_notional)
        least = (smallest / price / lot).to_integral_value(ROUND_CEILING) * lot
        most = max(Decimal(repr(limits.max_order_notional)) * equity, 2 * smallest_mark)
        free = not side and self.risk.rung not in (CALM, WARN)
        share = max(Decimal(repr(self._volumes()[market.index] * self.share)), least) if not free else instrument.max_quantity
        share = min(share, max(most / price, least), instrument.max_quantity, instrument.max_notional / price)
        allowed = position
        if side:
            room, spendable = Decimal(repr(total)) * equity - sum(held), cash - Decimal(repr(limits.cash_buffer)) * equity
            for row, other, lots, other_ticks in orders:
                if other > 0:
                    i = self.instruments[row]
                    quantity, paid = lots * i.lot, other_ticks * i.tick
                    room -= quantity * max(paid, marks[row])
                    spendable -= quantity * paid * (1 + i.taker_fee)
            worth = min(Decimal(repr(limits.position_cap)) * equity - held[market.index], room, most)
            allowed = min(worth / max(price, mark), spendable / (price * (1 + instrument.taker_fee)))
        if gap - share < least:
            share = gap
        return int(max(min(gap, share, allowed), Decimal(0)) / lot)

    # -- the exchange ------------------------------------------------------------------------------------------------------

    def _execute(
        self, order: Order, shown: int, books: tuple[list[list[int]], list[list[int]]], mark: float, spent: list[int], slipped: list[float],
        fills: list[Filled],
    ) -> int:  # fmt: skip
        """Walk the book, pay, and say what was traded, in money. What finds nothing expires."""
        index, side, lots, limit = order
        market = self._markets[index]
        fee_n, fee_d, unit, scale = market.fee_n, market.fee_d, market.traded_unit, self._scale
        if shown <= 0 or (side > 0 and not self._affordable(lots * limit * unit, fee_n, fee_d)):
            return 0
        levels = books[side > 0][index]
        depth = shown * (len(levels) if levels[-1] > 0 else sum(level > 0 for level in levels))
        taken = self._taken[index]
        if taken:
            taken = self._still_taken(index, shown, books)
        worse = self._impact * sqrt(lots / depth) if self._impact else 0.0
        notional = fees = done = 0
        wanted, step, new = lots, fee_d * self._dust, tuple.__new__  # the named tuple without its detour through a lambda
        for level in levels:
            if level <= 0:
                break
            if worse:
                moved = level * (1.0 + side * worse)
                nearest = round(moved)
                if abs(moved - nearest) <= NEAR * 10 * level or nearest < 2:
                    paid = self._worsened(market, level, side, wanted, depth)
                else:
                    paid = ceil(moved) if side > 0 else int(moved)
            else:
                paid = level
            if (paid - limit) * side > 0:
                break
            was = taken.get((-side, level), NOTHING_TAKEN)
            free = min(shown - was[0], lots)
            if free <= 0:
                continue
            lots -= free
            done += free
            notional += paid * free * unit
            due = -(-notional * fee_n // step) * self._dust
            fee, fees = (due - fees) / scale, due
            taken[-side, level] = (free + was[0], was[1] or shown)
            quantity, price = side * free * market.lot, paid * market.tick
            fills.append(new(Filled, (market.symbol, quantity, price, fee)))
            slipped[index] += quantity * (price - mark) + fee
            if lots <= 0:
                break
        self._lots[index] += side * done
        spent[index] += side * notional + fees
        self._cash -= side * notional + fees
        if side > 0:
            self._bought += notional
        return notional

    def _affordable(self, notional: int, fee_n: int, fee_d: int) -> bool:
        """Whether the account can lock what a buy might cost, as the exchange asks before it looks at the book."""
        lock = notional * (fee_d + max(fee_n, 0)) + (self._dust * fee_d if fee_n > 0 else 0)
        return lock <= self._cash * fee_d

    def _still_taken(
        self, index: int, shown: int, books: tuple[list[list[int]], list[list[int]]]
    ) -> dict[tuple[int, int], tuple[int, int]]:
        """What earlier orders took of levels that show the same price and quantity still."""
        there = {1: books[0][index], -1: books[1][index]}
        taken = {key: was for key, was in self._taken[index].items() if was[1] == shown and key[1] in there[key[0]]}
        self._taken[index] = taken
        return taken

    def _worsened(self, market: _Market, level: int, side: int, lots: int, depth: int) -> int:
        """A level's price after impact in Decimal, where a float lies too near to a tick to tell; in ticks, rounded against us."""
        fraction = self.frictions.impact.fraction(Decimal(lots), Decimal(depth))
        exact = market.instrument.round_price(level * market.instrument.tick * (1 + side * fraction), "up" if side > 0 else "down")
        return max(int(exact / market.instrument.tick), 1)
