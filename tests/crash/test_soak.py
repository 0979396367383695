"""What the soak makes of its samples: growth that is real is seen, spikes and the warm-up are not taken for it."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.proofs.audit import put
from benchmarks.proofs.soak import BEGIN, END, growth, judged, table

DAY_S = 1440.0


def samples(**figures: Any) -> list[dict[str, float | None]]:
    """One sample each ten seconds of a market day; figures are functions of the second."""
    steady = {"rss": 200.0, "files": 30.0, "threads": 3.0, "tasks": None, "inbox": 0.0, "live_orders": 5.0}
    made = []
    for second in range(10, 1441, 10):
        row: dict[str, float | None] = {"at_s": float(second), **steady}
        row |= {name: figure(second) for name, figure in figures.items()}
        made.append(row)
    return made


def held(rows: list[dict[str, Any]]) -> dict[str, bool]:
    return {row["name"]: row["holds"] for row in rows}


def test_a_steady_day_holds_and_what_was_never_told_is_left_out() -> None:
    assert held(judged(samples(), DAY_S)) == {"rss": True, "files": True, "threads": True, "inbox": True, "live_orders": True}


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("rss", lambda second: 200 + second * 0.05),
        ("files", lambda second: 30 + second // 200),
        ("tasks", lambda second: 40 + second // 100),
        ("live_orders", lambda second: second / 20),
    ],
)
def test_what_grows_all_day_is_seen(name: str, figure: Any) -> None:
    rows = held(judged(samples(**{name: figure}), DAY_S))
    assert [found for found, holds in rows.items() if not holds] == [name]


def test_spikes_the_warm_up_and_silence_are_no_growth() -> None:
    spiky = samples(
        rss=lambda second: 100.0 if second < 300 else 200.0,
        inbox=lambda second: 5000.0 if second % 500 == 0 else 0.0,
        files=lambda second: None if second % 30 else 30.0,
    )
    assert all(held(judged(spiky, DAY_S)).values())
    assert growth(spiky, "inbox", DAY_S) == 0.0
    assert growth(samples(), "tasks", DAY_S) is None


def test_a_short_run_is_judged_by_what_it_grew_itself() -> None:
    first_hour = [row for row in samples(rss=lambda second: 200 + second * 0.05) if (row["at_s"] or 0) <= 60]
    (rss,) = [row for row in judged(first_hour, DAY_S) if row["name"] == "rss"]
    assert (rss["growth"], rss["holds"]) == (pytest.approx(3.0), True)


def test_the_table_goes_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    summary = {"orders": 10, "fills": 2, "ledger_difference": 0.0}
    sizes = dict.fromkeys(("journal", "tape", "learner_rss", "watchdog_rss"), 1.0)
    result = {"minutes": 24.0, "market_hours": 24.0, "fault_rate": 0.002, "summary": summary, "sizes": sizes, "replay": {"equal": True, "decisions": 9}}
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    put(page, BEGIN, END, table({**result, "figures": judged(samples(), DAY_S)}))
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n24 minutes, 24 market hours")
    assert text.endswith(f"watchdog 1.0 MB.\n{END}\nafter\n")
    assert "old" not in text
    assert "| rss | 200 MB | 200 MB | +0 MB | 40 MB |" in text
