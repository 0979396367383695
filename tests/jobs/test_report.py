"""A report: its figures are right, its page asks nobody for anything."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import ConfigError
from agents.core.instruments import NS, Symbol
from agents.jobs import figures
from agents.jobs.report import CAUTION, LABELS, by_agent, by_symbol, document, render, statistics, told, write_report
from agents.jobs.result import NO_TRADES, RunResult, Trades

HOUR, DAY = 3600 * NS, 86_400 * NS
START = 19_000 * DAY


def made(equity: list[float], step: int = DAY, trades: Trades = NO_TRADES, **more: object) -> RunResult:
    count = len(equity)
    exposure = np.column_stack([np.linspace(0.0, 0.5, count), np.zeros(count)])
    marks = np.column_stack([np.linspace(100.0, 110.0, count), np.linspace(10.0, 9.0, count)])
    values: dict[str, object] = {
        "symbols": (Symbol("BTC/USDT"), Symbol("ETH/USDT")), "times": START + step * np.arange(1, count + 1, dtype=np.int64),
        "equity": np.array(equity), "exposure": exposure, "cash": np.array(equity) * 0.5, "fees": np.linspace(0.0, 3.0, count),
        "turnover": np.linspace(0.0, 5_000.0, count), "fills": 7, "orders": 9, "pnl_by_agent": {"long_term": equity[-1] - 1_010.0, "risk": 10.0},
        "costs_by_agent": {"long_term": 3.0, "risk": 0.0}, "risk_by_agent": {"long_term": 0.1}, "ledger_difference": 0.0,
        "attribution_difference": 0.0, "capital": 1_000.0, "trades": trades, "marks": marks, "bound": {"gross": 4, "position_cap": 11},
        "pnl_curves": {"long_term": np.array(equity) - 1_000.0}, "meta": {"data": ["<b>evil</b>.parquet"], "kind": "candles", "timeframe": "1d"},
    }  # fmt: skip
    return RunResult(**(values | more))  # type: ignore[arg-type]


TRADES = Trades(START + DAY * np.array([3, 4, 5]), np.array([0, 0, 1]), np.array([30.0, -10.0, -5.0]), np.array([300.0, 200.0, 100.0]))
RUN = made([1_000.0, 1_100.0, 990.0, 1_210.0, 1_210.0], trades=TRADES)


def test_the_table_by_hand() -> None:
    table = statistics(RUN)
    assert (table["from"], table["to"], table["days"]) == ("2022-01-09T00:00:00Z", "2022-01-13T00:00:00Z", 4.0)
    assert table["profit"] == pytest.approx(210.0) and table["profit_share"] == pytest.approx(0.21)
    assert table["max_drawdown"] == pytest.approx(0.1) and table["drawdown_days"] == 1.0
    assert (table["trades"], table["profit_factor"], table["win_rate"]) == (3, 2.0, pytest.approx(1 / 3))
    assert table["average_trade"] == pytest.approx((0.1 - 0.05 - 0.05) / 3) and (table["best_trade"], table["worst_trade"]) == (30.0, -10.0)
    returns = np.array([0.0, 0.1, -0.1, 1_210 / 990 - 1, 0.0])
    assert table["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(365))
    assert table["cagr"] == pytest.approx(1.21 ** (365 / 5) - 1)
    assert table["exposure"] == pytest.approx(0.25) and table["most_exposure"] == pytest.approx(0.5)
    assert table["time_in_market"] == pytest.approx(0.8) and table["market_change"] == pytest.approx((1.1 + 0.9) / 2 - 1)
    assert set(table) == set(LABELS)


def test_hours_are_judged_by_days() -> None:
    """Hourly noise that cancels within the day is no volatility of the day."""
    ends = [1_000.0 * 1.01**day for day in range(1, 11)]
    hours = [value for end in ends for value in [*([end * 0.99, end * 1.01] * 11), end * 0.99, end]]
    daily = statistics(made(ends))
    assert statistics(made(hours, HOUR))["sharpe"] == pytest.approx(daily["sharpe"], rel=1e-9)


def test_a_run_too_short_says_nothing() -> None:
    table = statistics(made([1_000.0, 1_001.0], HOUR))
    assert table["sharpe"] is None and table["cagr"] is None and table["profit_factor"] is None
    assert told("sharpe", None) == "-"
    assert statistics(made([1_000.0, 0.0, 0.0, 0.0]))["sharpe"] is None


def test_by_symbol_and_by_agent() -> None:
    rows = by_symbol(RUN)
    assert [(row["symbol"], row["trades"], row["profit"]) for row in rows] == [("BTC/USDT", 2, 20.0), ("ETH/USDT", 1, -5.0)]
    assert rows[0]["win_rate"] == 0.5 and rows[0]["exposure"] == pytest.approx(0.25)
    agents = by_agent(RUN)
    assert sum(row["profit"] for row in agents) == pytest.approx(RUN.equity[-1] - RUN.capital)
    assert [row["risk"] for row in agents] == [0.1, None]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.outside: list[str] = []
        self.titles: list[str] = []
        self.cells: list[str] = []
        self.bodies = 0
        self._in = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        self.bodies += tag == "b"
        self.outside += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "data", "action", "poster")]
        if tag in ("link", "iframe", "object", "embed", "base", "img"):
            self.outside.append(tag)

    def handle_data(self, data: str) -> None:
        if self._in == "h2":
            self.titles.append(data)
        elif self._in == "td":
            self.cells.append(data)


def page(result: RunResult) -> _Page:
    parsed = _Page()
    parsed.feed(render(result))
    return parsed


def test_the_page_is_whole_and_asks_nobody() -> None:
    found = page(RUN)
    assert found.outside == []
    assert found.bodies == 0  # the name of the data is text, whatever is in it
    for title in ("Statistics", "Equity", "Drawdown", "Exposure by symbol", "Attribution by agent", "Costs", "Constraints that bound",
                  "Configuration and data"):  # fmt: skip
        assert title in found.titles
    assert LABELS["max_drawdown"] in found.cells and "10.00" in found.cells
    text = render(RUN)
    assert "@import" not in text.split("<script>")[0]
    assert "Plotly.newPlot" in text and text.count("<script>") >= 1 and CAUTION in text
    assert 'src="https://cdn' not in text and "require.config" not in text


def test_both_files_are_written_and_say_the_same(tmp_path: Path) -> None:
    page_path, json_path = write_report(RUN, tmp_path / "new" / "folder")
    said = json.loads(json_path.read_text())
    assert said["statistics"] == statistics(RUN)
    assert said["equity"] == RUN.equity.tolist() and said["times"][0] == "2022-01-09T00:00:00Z"
    assert said["exposure"]["BTC/USDT"] == pytest.approx(RUN.exposure[:, 0].tolist())
    assert said["bound"] == {"gross": 4, "position_cap": 11}
    assert said["trades"]["profits"] == [30.0, -10.0, -5.0]
    assert page_path.stat().st_size > 1_000_000  # the library is within


def test_a_long_run_is_thinned_and_its_worst_moment_kept() -> None:
    equity = np.full(9_000, 1_000.0)
    equity[4_321] = 700.0
    long = made(equity.tolist(), HOUR)
    said = document(long)
    assert len(said["equity"]) <= figures.POINTS + 2
    assert said["statistics"]["max_drawdown"] == pytest.approx(0.3)
    drawn = figures.figures(long)["Drawdown"].data[0]
    assert min(drawn.y) == pytest.approx(-30.0) and len(drawn.y) == len(said["equity"])


@pytest.mark.parametrize("place", range(4_320, 4_326))
def test_no_place_hides_a_fall(place: int) -> None:
    equity = np.full(9_000, 1_000.0)
    equity[place] = 700.0
    long = made(equity.tolist(), HOUR)
    assert figures.worst(long, figures.thin_ns(long)).max() == pytest.approx(0.3)


def test_without_plotly_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(ConfigError, match=r"pip install 'quartet\[research\]'"):
        render(RUN)


@given(st.lists(st.floats(500.0, 2_000.0), min_size=1, max_size=40))
def test_drawdown_and_resampling_for_any_curve(equity: list[float]) -> None:
    result = made(equity, HOUR)
    peak = 1_000.0
    for value, fall in zip(equity, result.drawdown.tolist(), strict=True):
        peak = max(peak, value)
        assert fall == pytest.approx(1 - value / peak, abs=1e-12)
    assert statistics(result)["drawdown_days"] <= len(equity) / 24
    days = result.resample(DAY)
    assert days.equity[-1] == equity[-1] and (np.diff(days.times // DAY) > 0).all()
