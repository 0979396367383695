"""The live view: one screen drawn from the status snapshot, and the closing summary in words. Reads, never decides."""

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

AGENTS = ("long_term", "short_term", "market_making", "risk")
_WISHES = {
    "long_term": ("weight", "exposure", "precision", "stop_distance"),
    "short_term": ("weight", "tilt", "urgency", "participation"),
    "market_making": ("bid_offset", "ask_offset", "bid_size", "ask_size", "inventory_target"),
    "risk": ("gross_multiplier", "budget_multiplier"),
}
"""The numbers of a wish that fit a line."""
_LEARNER_COUNTS = ("updates", "experiences", "version", "weights_swapped", "restarts")


def number(value: object, digits: int = 2) -> str:
    """A number for people; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "-" if value is None else str(value)
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def percent(value: object) -> str:
    """A fraction in percent."""
    return f"{100 * value:.2f} %" if isinstance(value, (int, float)) else "-"


def age(value: object, bound: float = 10.0) -> Text:
    """Seconds; red beyond the bound."""
    if not isinstance(value, (int, float)):
        return Text("none yet", "yellow")
    return Text(f"{value:.1f} s", "green" if value <= bound else "bold red")


def _section(title: str, body: RenderableType) -> RenderableType:
    return Group(Text(title, "bold"), Padding(body, (0, 0, 0, 2)))


def _lines(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _table(columns: Iterable[str], rows: Iterable[tuple[RenderableType, ...]], most: int) -> RenderableType:
    """At most `most` rows, and how many there are besides."""
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right", no_wrap=True)
    found = list(rows)
    shown = found if len(found) <= most else found[: most - 1]
    for row in shown:
        table.add_row(*row)
    if len(shown) < len(found):
        table.add_row(Text(f"and {len(found) - len(shown)} more", "dim"))
    return table if found else Text("none", "dim")


def _head(status: Mapping[str, Any]) -> RenderableType:
    state = "[bold red]HALTED[/]" if status.get("halted") else "[green]trading[/]" if status.get("ready") else "[yellow]starting[/]"
    grid = Table.grid(expand=True, padding=(0, 2))
    for _ in range(4):
        grid.add_column(no_wrap=True, overflow="ellipsis")
    pnl = (status.get("pnl") or {}).get("account")
    grid.add_row(
        f"[bold]{status.get('mode', '-')}[/] on {status.get('exchange', '-')}",
        str(status.get("session", "-")),
        state,
        f"up {number(float(status.get('uptime_s') or 0), 0)} s",
    )
    grid.add_row(
        Text("data age ").append_text(age(status.get("data_age_s"))),
        Text("decision age ").append_text(age(status.get("decision_age_s"), 60.0)),
        f"orders {number(status.get('orders'))}, fills {number(status.get('fills'))}",
        f"inbox {number(status.get('inbox_depth'))}",
    )
    grid.add_row(
        f"equity [bold]{number(status.get('equity'))}[/]",
        f"pnl {number(pnl)}",
        f"drawdown {percent(status.get('drawdown'))}",
        f"cash {number(status.get('cash'))}",
    )
    return Panel(grid, title="Quartet", title_align="left")


def _positions(status: Mapping[str, Any], most: int) -> RenderableType:
    held = [row for row in status.get("positions") or () if _nonzero(row.get("quantity"))]
    rows = (
        (
            Text(str(row.get("symbol"))),
            str(row.get("quantity")),
            number(row.get("average_price"), 4),
            number(row.get("mark"), 4),
            percent(row.get("weight")),
            number(row.get("pnl")),
        )
        for row in held
    )
    return _section("positions", _table(("symbol", "quantity", "average", "mark", "weight", "pnl"), rows, most))


def _nonzero(quantity: object) -> bool:
    try:
        return float(str(quantity)) != 0
    except ValueError:
        return False


def _orders(status: Mapping[str, Any], most: int) -> RenderableType:
    rows = (
        (
            Text(str(row.get("symbol"))),
            Text(str(row.get("side")), "green" if row.get("side") == "buy" else "red"),
            str(row.get("price") or "market"),
            str(row.get("quantity")),
            str(row.get("filled")),
            str(row.get("state")),
            str(row.get("agent")),
        )
        for row in status.get("open_orders") or ()
    )
    return _section("open orders", _table(("symbol", "side", "price", "quantity", "filled", "state", "agent"), rows, most))


def _wishes(status: Mapping[str, Any]) -> RenderableType:
    """One line an agent: its wish for the first symbol, and for how many more it has one."""
    wishes, decisions = status.get("wishes") or {}, status.get("decisions") or {}
    grid = Table.grid(padding=(0, 2))
    for ratio in (None, None, 1):  # the numbers give way first
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=ratio)
    grid.expand = True
    for agent in AGENTS:
        said = sorted((wishes.get(agent) or {}).items())
        symbol, numbers = said[0] if said else ("", {})
        told = "  ".join(f"{name} {numbers[name]:+.4f}" for name in _WISHES[agent] if isinstance(numbers.get(name), (int, float)))
        more = f" +{len(said) - 1}" if len(said) > 1 else ""
        grid.add_row(f"{agent} ({number(decisions.get(agent, 0))})", f"{symbol}{more}", told or Text("nothing yet", "dim"))
    return _section("last wishes (decisions)", grid)


def _bound(status: Mapping[str, Any]) -> str:
    found = [f"{row.get('name')}{' ' + str(row['symbol']) if row.get('symbol') else ''}" for row in status.get("bound") or ()]
    stale = (status.get("feed") or {}).get("stale") or ()
    refused = ", ".join(f"{reason} {count}" for reason, count in (status.get("refused") or {}).items())
    lines = [f"limits that bound: {', '.join(found) or 'none'}", f"orders refused: {refused or 'none'}"]
    return "\n".join(lines + ([f"no trustworthy data: {', '.join(stale)}"] if stale else []))


def _learner(status: Mapping[str, Any]) -> str:
    learner = status.get("learner") or {}

    def by_agent(name: str) -> str:
        told = {agent: numbers[name] for agent, numbers in (learner.get("agents") or {}).items() if name in numbers}
        return ", ".join(f"{agent} {number(told[agent], 3)}" for agent in AGENTS if agent in told) or number(learner.get(name), 3)

    counts = ", ".join(f"{name.replace('_', ' ')} {number(learner.get(name))}" for name in _LEARNER_COUNTS)
    return "\n".join(
        (
            f"{learner.get('state', 'off')}: {counts}",
            f"critic loss {by_agent('critic_loss')}",
            f"actor loss {by_agent('actor_loss')}",
            f"entropy {by_agent('entropy')}",
        )
    )


def render(status: Mapping[str, Any], height: int = 40) -> RenderableType:
    """The whole screen, for a terminal of `height` lines; every key of the snapshot may be missing."""
    most = max(2, (height - 24) // 2)
    return Group(
        _head(status),
        _wishes(status),
        _section("risk", _lines(_bound(status))),
        _section("learner", _lines(_learner(status))),
        _positions(status, most),
        _orders(status, most),
    )


class LiveView:
    """Draws each snapshot that it is shown, on standard error; log lines scroll above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(
            Text("starting ..."), console=console or Console(stderr=True), auto_refresh=False, vertical_overflow="ellipsis"
        )

    def __enter__(self) -> Callable[[Mapping[str, Any]], None]:
        self._live.start()
        return self.show

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, status: Mapping[str, Any]) -> None:
        """Replace the screen."""
        self._live.update(render(status, self._live.console.height), refresh=True)


_CLOSING = ("session", "mode", "exchange", "duration_s", "decisions", "orders", "fills", "fees", "equity", "drawdown", "pnl",
            "ledger_difference", "ledger_differences", "open_orders", "refused")  # fmt: skip


def closing(summary: Mapping[str, Any]) -> RenderableType:
    """What a person wants to know of a session that has ended; `--json` has all of it."""
    told = {name: summary[name] for name in _CLOSING if name in summary}
    learner = summary.get("learner") or {}
    return words({**told, "learner": {name: learner[name] for name in _LEARNER_COUNTS if name in learner}})


def words(result: Mapping[str, Any]) -> RenderableType:
    """Any command's result as a two-column table, nested mappings flattened to dotted names."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _flat(result):
        table.add_row(name, Text(value))
    return table


def _flat(value: Mapping[str, Any], stem: str = "") -> Iterable[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{stem}{key or 'portfolio'}.")
        elif isinstance(inner, list) and inner and isinstance(inner[0], Mapping):
            for position, row in enumerate(inner):
                yield f"{stem}{key}.{position}", "  ".join(f"{name} {number(part, 4)}" for name, part in row.items())
        elif isinstance(inner, list):
            yield f"{stem}{key}", ", ".join(map(str, inner)) or "none"
        else:
            yield f"{stem}{key}", "none" if isinstance(inner, Mapping) else number(inner, 4)
