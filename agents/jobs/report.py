"""A run as people read it: figures in words, a page that needs no network, and the same as JSON."""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agents.jobs.figures import figures, market, plotly, thin_ns
from agents.jobs.result import Floats, RunResult, Times, moment
from agents.jobs.statistics import compounded, performance

DAY_NS = 86_400 * 10**9
CAUTION = (
    "Fills are simulated. Past prices are one sample, and parameters that were chosen with them in view make it a poor one:"
    " this page is evidence of what would have happened under these assumptions, and no expectation."
)

LABELS = {
    "from": "Backtesting from", "to": "Backtesting to", "days": "Days", "capital": "Starting balance", "equity": "Final balance",
    "profit": "Absolute profit", "profit_share": "Total profit %", "cagr": "CAGR %", "volatility": "Volatility % a year",
    "sharpe": "Sharpe", "sortino": "Sortino", "calmar": "Calmar", "t": "t of the Sharpe ratio", "max_drawdown": "Max drawdown %",
    "drawdown_days": "Longest drawdown, days", "profit_factor": "Profit factor", "trades": "Trades (closing orders)",
    "win_rate": "Win rate %", "average_trade": "Average trade %", "best_trade": "Best trade", "worst_trade": "Worst trade",
    "fees": "Fees paid", "turnover": "Turnover", "turnover_a_year": "Turnover, times equity a year", "exposure": "Average exposure %",
    "most_exposure": "Largest exposure %", "time_in_market": "Time in the market %", "orders": "Orders", "fills": "Fills",
    "market_change": "Market change %",
}  # fmt: skip
"""What each statistic is called, in the order of the table."""
PERCENT = frozenset(
    ("profit_share", "cagr", "volatility", "max_drawdown", "win_rate", "average_trade", "exposure", "most_exposure", "time_in_market",
     "market_change", "risk")
)  # fmt: skip
"""Kept as fractions, told in percent."""


def statistics(result: RunResult) -> dict[str, Any]:
    """The table of a run: plain values by name, fractions not percent, None where a run is too short to say.

    Ratios are of daily returns (UTC days) and 365 days a year, cash at 0; a trade is an order that sold (see `Trades`).
    """
    trades, gross = result.trades, np.abs(result.exposure).sum(axis=1)
    won, lost = float(trades.profits[trades.profits > 0].sum()), float(-trades.profits[trades.profits < 0].sum())
    count, last = len(trades.profits), float(result.equity[-1]) if len(result.equity) else result.capital
    turnover = float(result.turnover[-1]) if len(result.turnover) else 0.0
    average = float(result.equity.mean()) if len(result.equity) else result.capital
    shares = trades.profits / np.maximum(trades.notionals, 1e-12)
    held = market(result)
    return {
        "from": moment(int(result.times[0])) if len(result.times) else None,
        "to": moment(int(result.times[-1])) if len(result.times) else None,
        "days": result.years * 365.25,
        "capital": result.capital,
        "equity": last,
        "profit": last - result.capital,
        "profit_share": last / result.capital - 1.0,
        **_ratios(result),
        "max_drawdown": float(result.drawdown.max(initial=0.0)),
        "drawdown_days": _longest(result.times, result.drawdown),
        "profit_factor": won / lost if lost > 0 else None,
        "trades": count,
        "win_rate": float((trades.profits > 0).mean()) if count else None,
        "average_trade": float(shares.mean()) if count else None,
        "best_trade": float(trades.profits.max()) if count else None,
        "worst_trade": float(trades.profits.min()) if count else None,
        "fees": float(result.fees[-1]) if len(result.fees) else 0.0,
        "turnover": turnover,
        "turnover_a_year": turnover / average / result.years if result.years > 0 else None,
        "exposure": float(gross.mean()) if len(gross) else 0.0,
        "most_exposure": float(gross.max(initial=0.0)),
        "time_in_market": float((gross > 0.001).mean()) if len(gross) else 0.0,
        "orders": result.orders,
        "fills": result.fills,
        "market_change": float(held[-1] / result.capital - 1.0) if len(held) else None,
    }


def by_symbol(result: RunResult) -> list[dict[str, Any]]:
    """A row a symbol: trades, win rate, profit of the closed trades, average exposure."""
    rows = []
    for number, symbol in enumerate(result.symbols):
        profits = result.trades.profits[result.trades.symbols == number]
        rows.append(
            {
                "symbol": symbol,
                "trades": len(profits),
                "win_rate": float((profits > 0).mean()) if len(profits) else None,
                "profit": float(profits.sum()),
                "exposure": float(result.exposure[:, number].mean()) if len(result.exposure) else 0.0,
            }
        )
    return rows


def by_agent(result: RunResult) -> list[dict[str, Any]]:
    """A row an agent: profit, costs and its part of the account's annual volatility; profits add up to the account's."""
    return [
        {"agent": agent, "profit": profit, "costs": result.costs_by_agent.get(agent), "risk": result.risk_by_agent.get(agent)}
        for agent, profit in result.pnl_by_agent.items()
    ]


def document(result: RunResult) -> dict[str, Any]:
    """The report as plain JSON values; curves are thinned to some 2,000 points, figures are of all samples."""
    return {
        "statistics": statistics(result),
        "by_symbol": by_symbol(result),
        "by_agent": by_agent(result),
        **result.resample(thin_ns(result)).to_json(),
        "caution": CAUTION,
    }


def write_report(result: RunResult, folder: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.json` into `folder`, which is made where it is missing; returns both paths.

    The page carries plotly and its data within itself. Raises ConfigError where plotly is not installed.
    """
    page = render(result)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "report.html", folder / "report.json"
    paths[0].write_text(page, encoding="utf-8")
    paths[1].write_text(json.dumps(document(result), indent=1, default=str) + "\n", encoding="utf-8")
    return paths


def render(result: RunResult) -> str:
    """The page."""
    _, offline = plotly()
    meta = result.meta
    title = f"Backtest of {', '.join(result.symbols[:6])}{' and more' if len(result.symbols) > 6 else ''}"
    window = f"{meta.get('from', '?')} to {meta.get('to', '?')} UTC, {meta.get('timeframe') or meta.get('kind', '')}"
    options = {"displaylogo": False, "responsive": True, "plotlyServerURL": ""}
    drawn = "".join(
        f"<section><h2>{html.escape(name)}</h2>{figure.to_html(full_html=False, include_plotlyjs=False, config=options)}</section>"
        for name, figure in figures(result).items()
    )
    settings = json.dumps({k: v for k, v in meta.items() if k != "pnl"}, indent=2, default=str)
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{html.escape(window)}. Data: {html.escape(', '.join(meta.get('data', ())))}.</p>",
        f"<p class=caution>{html.escape(CAUTION)}</p>",
        f"<section><h2>Statistics</h2>{_table(('', ''), [(LABELS[k], told(k, v)) for k, v in statistics(result).items()])}</section>",
        drawn,
        f"<section><h2>By agent</h2>{_records(by_agent(result))}{_agreement(result)}</section>",
        f"<section><h2>By symbol</h2>{_records(by_symbol(result))}</section>",
        f"<section><h2>Configuration and data</h2><pre>{html.escape(settings)}</pre></section>",
    ]
    script = offline.get_plotlyjs()
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><script>{script}</script></head><body>{''.join(parts)}</body></html>\n"
    )


def told(name: str, value: object) -> str:
    """A statistic as people read it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{100 * value:,.2f}" if name in PERCENT else f"{value:,.2f}"
    return str(value)


def _ratios(result: RunResult) -> dict[str, float | None]:
    names = ("cagr", "volatility", "sharpe", "sortino", "calmar", "t")
    if len(result.times) < 2 or result.years * 365.25 < 2.0 or not (result.equity > 0).all():
        return dict.fromkeys(names)
    curve = np.concatenate([[result.capital], result.equity])
    _, daily = compounded(result.times, curve[1:] / curve[:-1] - 1.0)
    found = performance(daily)
    return dict(
        zip(names, (found.growth, found.volatility, found.sharpe, found.sortino, found.calmar, found.t), strict=True)
    )


def _longest(times: Times, drawdown: Floats) -> float:
    """Days of the longest stretch below an earlier peak."""
    if not len(times):
        return 0.0
    peaks = np.where(drawdown <= 0.0, times, times[0])
    return float((times - np.maximum.accumulate(peaks)).max()) / DAY_NS


def _agreement(result: RunResult) -> str:
    total = sum(result.pnl_by_agent.values())
    return (
        f"<p>Their profits add up to {total:,.2f}; the account's differs from that by at most {result.attribution_difference:.2g}"
        f" at any sample, the ledger from the exchange by {result.ledger_difference:.2g}.</p>"
    )


def _records(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "<p>none</p>"
    return _table(tuple(rows[0]), [tuple(told(k, v) if k in PERCENT else told("", v) for k, v in row.items()) for row in rows])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    top = "".join(f"<th>{html.escape(name + (' %' if name in PERCENT else ''))}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.15rem .8rem;border-bottom:1px solid #e4e4e4;text-align:right}"
    "td:first-child,th:first-child{text-align:left}pre{background:#f6f6f6;padding:1rem;overflow:auto}"
    ".caution{border-left:3px solid #c4622d;padding-left:.8rem}h2{margin:2rem 0 .5rem;font-size:1.15rem}"
)


def summary_json(result: RunResult, more: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line answers: `more` and the statistics."""
    return {**more, "statistics": statistics(result), "by_symbol": by_symbol(result), "by_agent": by_agent(result)}
