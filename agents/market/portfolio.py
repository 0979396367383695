"""What the risk agent sees: one row for the whole book."""

import numpy as np
import numpy.typing as npt

from agents.market.columns import FLOW_COLUMNS, HOUR_COLUMNS, MINUTE_COLUMNS, PORTFOLIO_COLUMNS
from agents.market.features import effective_bets
from agents.market.holdings import Holdings

Floats = npt.NDArray[np.float64]

Z_95, TAIL_95 = 1.6449, 2.0627
"""Quantile of the normal distribution, and the mean beyond it."""
SCENARIOS = 168
"""Hours looked back on for the historical tail: a week, so that a calm or wild regime shows."""
HOURS_PER_YEAR = 8760.0
_H = {name: number for number, name in enumerate(HOUR_COLUMNS)}
_M = {name: number for number, name in enumerate(MINUTE_COLUMNS)}
_F = {name: number for number, name in enumerate(FLOW_COLUMNS)}


def portfolio(view: Holdings) -> Floats:
    """PORTFOLIO_COLUMNS, [1, columns]. Values in `context.risk` replace those of the same name."""
    if not view.symbols:
        return np.zeros((1, len(PORTFOLIO_COLUMNS)))
    position, account = view.position(), view.account()[0]
    numbers = {**_risk(view), **_exposure(view, position, account), **_wishes(view), **_market(view, position)}
    for name, value in view.context.risk.items():
        if name in numbers:
            numbers[name] = float(value)
    return np.array([[numbers[name] for name in PORTFOLIO_COLUMNS]])


def _risk(view: Holdings) -> dict[str, float]:
    """Variance of the positions now; Gaussian tails of one day beside those of the last week's hours."""
    weights, matrix = view.weights, view.market.correlation(view.symbols)
    deviation = view.market.volatility_1h()[view.rows]
    hourly = _deviation(weights * deviation, matrix)
    daily = hourly * 24**0.5
    gross = float(np.abs(weights).sum())
    returns = view.market.returns_1h(view.symbols, SCENARIOS) @ weights
    tail = np.sort(returns)[: max(1, len(returns) // 20)] if len(returns) else np.zeros(1)
    square = float((weights * weights).sum())
    others = max(len(weights) - 1, 1)
    return {
        "portfolio_volatility": hourly * HOURS_PER_YEAR**0.5,
        "var_95": Z_95 * daily,
        "cvar_95": TAIL_95 * daily,
        "var_95_history": max(-float(tail[-1]), 0.0) * 24**0.5,
        "cvar_95_history": max(-float(tail.mean()), 0.0) * 24**0.5,
        "concentration": square / gross**2 if gross > 0 else 0.0,
        "largest_weight": float(np.abs(weights).max()),
        "position_count": float((weights != 0).sum()),
        "effective_bets": float(effective_bets(matrix)),
        "correlation_top": float(np.linalg.eigvalsh(matrix)[-1]) / len(weights),
        "correlation_mean": float((matrix.sum() - len(weights)) / (len(weights) * others)),
        "diversification": float(np.abs(weights) @ deviation) / hourly if hourly > 0 else 1.0,
    }


def _exposure(view: Holdings, position: Floats, account: Floats) -> dict[str, float]:
    cash, gross, drawdown, turnover, fees = account.tolist()
    buying, selling = float(position[:, 1].sum()), float(position[:, 2].sum())
    weight = np.abs(view.weights)
    held = float(weight.sum())
    return {
        "drawdown": drawdown,
        "gross": gross,
        "net": float(view.weights.sum()),
        "cash_weight": cash,
        "working_buy_weight": buying,
        "working_sell_weight": selling,
        "headroom_gross": 1.0 - gross - buying,
        "headroom_cash": cash - buying,
        "turnover_day": turnover,
        "fees_day": fees,
        "unrealised_return": float(view.weights @ position[:, 3]),
        "stop_distance_mean": float(weight @ view.stop()[:, 0]) / held if held > 0 else 0.0,
    }


def _wishes(view: Holdings) -> dict[str, float]:
    """The joint wish of the long- and the short-term agent, before any limit."""
    wish = view.wished("long_term", "weight") + view.wished("short_term", "weight")
    deviation = view.market.volatility_1h()[view.rows]
    return {
        "wish_gross": float(np.abs(wish).sum()),
        "wish_net": float(wish.sum()),
        "wish_distance": float(np.abs(wish - view.weights).sum()),
        "wished_volatility": _deviation(wish * deviation, view.market.correlation(view.symbols)) * HOURS_PER_YEAR**0.5,
        "quote_gross": float((view.wished("market_making", "bid_size") + view.wished("market_making", "ask_size")).sum()),
    }


def _market(view: Holdings, position: Floats) -> dict[str, float]:
    hours = view.market.hour_columns()[view.rows].mean(0)
    minutes = view.market.minute_columns()[view.rows].mean(0)
    flows = view.market.flow_columns(view.rows.tolist()).mean(0)
    weight = np.abs(view.weights)
    untrusted = np.array([view.market.trouble(symbol) is not None for symbol in view.symbols])
    return {
        "portfolio_beta": float(view.weights @ view.market.hour_columns()[view.rows, _H["beta"]]),
        "market_volatility_1h": float(hours[_H["market_volatility_1h"]]),
        "market_volatility_trend": float(hours[_H["volatility_trend"]]),
        "market_return_1h": float(hours[_H["market_return_1h"]]),
        "market_momentum_1d": float(hours[_H["market_momentum_1d"]]),
        "market_momentum_7d": float(hours[_H["market_momentum_7d"]]),
        "market_breadth": float(hours[_H["market_breadth"]]),
        "market_dispersion": float(hours[_H["market_dispersion"]]),
        "market_tail_weight": float(hours[_H["tail_weight"]]),
        "market_illiquidity": float(hours[_H["illiquidity"]]),
        "market_half_spread": float(flows[_F["half_spread"]]),
        "market_toxicity_z": float(flows[_F["toxicity_z"]]),
        "market_volatility_1m": float(minutes[_M["market_volatility_1m"]]),
        "market_return_15m": float(minutes[_M["market_return_15m"]]),
        "untrusted_share": float(untrusted.mean()),
        "untrusted_weight": float(weight[untrusted].sum()),
    }


def _deviation(scaled: Floats, matrix: Floats) -> float:
    return float(np.sqrt(max(float(scaled @ matrix @ scaled), 0.0)))
