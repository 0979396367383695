"""The story of a decision as a page of plain text."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

SHORT = 12
"""Updates and fills of one order that are shown; the JSON has them all."""


def render(story: Mapping[str, Any]) -> str:
    """The page for what `daemon.explain.explain` found."""
    return "\n".join(_page(story)) + "\n"


def _page(story: Mapping[str, Any]) -> Iterator[str]:
    which = f"Order {story['order']} of decision" if story["order"] else "Decision"
    yield f"{which} {story['decision']}, session {story['session']}"
    yield f"{_when(story['at'])} (market time {_when(story['market_time'])})"
    if story["note"]:
        yield story["note"]
    for title, part in (
        ("Why", _why(story)), ("Seen", _seen(story["seen"])), ("Wished", _wished(story["wished"])), ("Joined and limited", _limited(story["limited"])),
        ("Refused", _refused(story["refused"])), ("Sent", _sent(story)), ("Learned", _learned(story)),
    ):  # fmt: skip
        if rows := list(part):
            yield ""
            yield title
            yield from (f"  {row}".rstrip() for row in rows)


def _why(story: Mapping[str, Any]) -> Iterator[str]:
    if (word := story["because"]) is not None:
        yield f"the kill path, after {word['word']} ({word['reason'] or 'no reason given'}) at {_when(word['at'])}"
    elif story["spoke"]:
        yield f"{', '.join(story['spoke'])} spoke"
    else:
        yield "no agent spoke: the market or the account moved, and the orders were brought into line with standing wishes"


def _seen(seen: Mapping[str, Any]) -> Iterator[str]:
    rows = [["", "bid", "ask", "mid", "spread", "age"]]
    for symbol, book in seen["market"].items():
        spread = "-" if book["spread_bps"] is None else f"{book['spread_bps']:.2f} bps"
        rows.append([symbol, *(book[name] or "-" for name in ("bid", "ask", "mid")), spread, f"{book['age_s']:.3f} s"])
    yield from _table(rows) if len(rows) > 1 else ()
    if seen["equity"] is not None:
        yield f"equity {seen['equity']:,.2f}, drawdown {seen['drawdown'] or 0:.2%}"
    if seen["observations"]:
        yield "observations " + ", ".join(f"{agent} {digest[:12]}" for agent, digest in seen["observations"].items())


def _wished(wishes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table an agent: its numbers by symbol, and the raw action behind them, whose zero is the analytic prior."""
    for agent, group in groupby(wishes, key=lambda wish: str(wish["agent"])):
        rows = list(group)
        age = f"(decision {rows[0]['decision']}, {rows[0]['age_s']:.0f} s before)" if rows[0]["age_s"] else ""
        yield f"{agent} {age}"
        names = list(rows[0]["numbers"])
        table = [["", *names, "action"]]
        for wish in rows:
            action = " ".join(f"{value:+.2f}" for value in wish["action"])
            table.append([wish["symbol"] or "(all)", *(f"{wish['numbers'][name]:.4g}" for name in names), f"[{action}]"])
        yield from (f"  {row}" for row in _table(table))


def _limited(limited: Mapping[str, Any]) -> Iterator[str]:
    rows = [["weight of equity", "wished", "allowed", "", ""]]
    for symbol, weight in limited["weights"].items():
        wished, allowed = weight["wished"], weight["allowed"]
        change = "" if wished is None or allowed is None or abs(allowed - wished) < 1e-9 else f"{allowed - wished:+.4%}"
        rows.append([symbol, _percent(wished), _percent(allowed), change, limited["reasons"].get(symbol, "")])
    if len(rows) > 1:
        yield from _table(rows)
    for bound in limited["bound"]:
        yield f"{bound['name']} of {bound['symbol'] or 'the portfolio'} held back: one more unit is worth {bound['price']:.6g}"
    if len(rows) > 1 and not limited["bound"]:
        yield "no limit held the wish back; a difference is not worth what trading it costs"
    if limited["trusted"]:
        yield "the coordinator gave each a say of " + ", ".join(f"{agent} {factor:.3g}" for agent, factor in limited["trusted"].items())
    if limited["solver"] not in (None, "kill_path"):
        yield f"solved by {limited['solver']}, drawdown rung {limited['rung']}"


def _refused(refused: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _table([[row["symbol"], row.get("side", ""), row["reason"], row["detail"]] for row in refused], right=False)


def _sent(story: Mapping[str, Any]) -> Iterator[str]:
    for life in story["sent"]:
        yield from _life(life, long=story["order"] is not None)
    for order in story["cancels"]:
        yield f"cancel {order}"
    if not story["sent"] and not story["cancels"]:
        yield "nothing"


def _life(life: Mapping[str, Any], long: bool) -> Iterator[str]:
    asked = life["command"]
    price = f"at {asked['price']}" if asked["price"] is not None else "at the market"
    trigger = f", asleep until {asked['trigger_price']}" if asked.get("trigger_price") else ""
    flags = ", ".join(flag.replace("_", "-") for flag in asked.get("flags", ()))
    kind = " ".join(part for part in (asked.get("time_in_force", ""), flags, f"replaces {asked['replaces']}" if "replaces" in asked else "") if part)
    yield f"{life['order']}  {asked['side']} {asked['quantity']} {asked['symbol']} {price}{trigger} ({kind})"
    answered = "no answer recorded" if life["answered_ms"] is None else f"answered after {life['answered_ms']:,.1f} ms"
    venue = f", the exchange's {life['venue_order']}" if life["venue_order"] else ""
    yield f"    {answered}{venue}; end: {life['end']}"
    if life["average_price"] is not None:
        fees = ", ".join(f"{fee} {currency}" for currency, fee in life["fees"].items())
        slippage = "" if life["slippage_bps"] is None else f", {life['slippage_bps']:+.2f} bps against the mid at the decision"
        yield f"    filled {life['filled']} at {life['average_price']}, fees {fees}{slippage}"
    for later in life["later"]:
        after = "" if later["after_ms"] is None else f" {later['after_ms'] / 1e3:,.3f} s later"
        yield f"    {later['kind']} asked for by decision {later['decision']}{after}"
    if long:
        yield from _details(life)


def _details(life: Mapping[str, Any]) -> Iterator[str]:
    if shares := life["command"].get("shares"):
        yield "    for " + ", ".join(f"{agent} {quantity:.6g}" for agent, quantity in shares.items())
    for update in life["updates"][:SHORT]:
        yield f"    {update['after_ms']:>12,.1f} ms  {update['state']}  {update['reason']}".rstrip()
    for fill in life["fills"][:SHORT]:
        after, role = (fill["at"] - life["sent_at"]) / 1e6, "maker" if fill["maker"] else "taker"
        yield f"    {after:>12,.1f} ms  fill {fill['quantity']} at {fill['price']}, fee {fill['fee']} {fill['fee_currency']}, {role}, trade {fill['trade']}"
    if (more := max(len(life["updates"]) - SHORT, 0) + max(len(life["fills"]) - SHORT, 0)) > 0:
        yield f"    and {more} more: --json has all"


def _learned(story: Mapping[str, Any]) -> Iterator[str]:
    for lesson in story["learned"]:
        rewards = "  ".join(f"{symbol or '(all)'} {reward:+.4g}" for symbol, reward in lesson["rewards"].items())
        yield f"{lesson['agent']} (decision {lesson['decision']}): {rewards}, over {lesson['elapsed']:.2f} cadences"
    if not story["learned"]:
        yield "no reward is recorded for this decision: no agent spoke again after it, or nothing could be judged"
    weights = story["weights"]
    if weights["then"] is not None:
        newer = f"{weights['since']} newer came in since, now version {weights['now']}" if weights["since"] else "no newer came in since"
        yield f"decided with weights version {weights['then']}; {newer}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.4%}"


def _when(at: int) -> str:
    return datetime.fromtimestamp(at // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S") + f".{at // 10**6 % 1000:03d} UTC"


def _table(rows: Sequence[Sequence[str]], right: bool = True) -> Iterator[str]:
    """Columns under each other: the first to the left, numbers to the right."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = (cell.rjust(width) if right and number else cell.ljust(width) for number, (cell, width) in enumerate(zip(row, widths, strict=True)))
        yield "  ".join(cells).rstrip()
