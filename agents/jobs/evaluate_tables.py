"""An evaluation's report as Markdown: tables, a verdict that follows from the intervals alone, and what is not claimed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Plain = Mapping[str, Any]

NOT_CLAIMED = (
    "profit of the market maker: minutes of book show mechanics, not money",
    "alpha on minutes: a month of them has no power (30 days need a Sharpe ratio of 7)",
    "freedom from survivorship bias: the symbols are those that were still worth recording at the end",
    "that anything is better than anything without an interval that excludes zero, over seeds and time",
    "that live results will be like these: no outages, no refused orders, no market that answers; fills at the next opening",
    "capacity: costs are per unit of notional, and no impact is charged unless the table says so",
    "that learning online helps: nothing here learned online, and no frozen twin ran beside",
    "that other periods or symbols will show the same: repeat it with the command above",
)


def document(report: Plain) -> str:
    """The whole report as one Markdown page."""
    main = report["main"]
    parts = [
        "# Results", _opening(report), "## In short", _bullets(verdicts(report)), "## How it is judged", _method(main),
        f"## {_title(main)}", *_study(main),
    ]  # fmt: skip
    for each in report.get("repeats", []):
        parts += [f"## Repeated: {_title(each)}", *_study(each)]
    if report.get("controls"):
        parts += ["## Controls", _controls(report["controls"])]
    if report.get("books"):
        parts += ["## Recorded books", _books(report["books"])]
    parts += ["## Not claimed", _bullets(NOT_CLAIMED)]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdicts(report: Plain) -> list[str]:
    """What the intervals allow to be said, one sentence each."""
    said = []
    for study in [report["main"], *report.get("repeats", [])]:
        sure = [name for name, found in study["intervals"].items() if found["decided"]]
        if study["intervals"]:
            said.append(
                f"{_title(study)}: of the baselines and priors, {_list(sure)} {'has' if len(sure) < 2 else 'have'} a Sharpe ratio whose interval"
                f" excludes zero, over {study['years']:.2f} years."
            )
        agent = study.get("agent")
        if agent is None:
            continue
        found = agent["against_prior"]["equal_volatility"]
        said.append(
            f"{_title(study)}: the trained long-term agent {_word(found)} its own prior at equal volatility:"
            f" {_percent(found['estimate'])} a year, 95 % interval {_range(found)}, over {len(agent['seeds'])} seeds and {study['years']:.2f} years."
        )
        ahead = [name for name, each in agent["against"].items() if each["equal_volatility"]["decided"] > 0]
        behind = [name for name, each in agent["against"].items() if each["equal_volatility"]["decided"] < 0]
        said.append(
            f"{_title(study)}: against baselines and priors it is ahead with certainty of {_list(ahead)} and behind {_list(behind)};"
            " of the others the interval includes zero."
        )
    choosing = report["main"].get("choosing")
    if choosing is not None:
        said.append(
            f"{_title(report['main'])}: deflated by {choosing['trials']} tried configurations, the probability that the agent's Sharpe ratio is"
            f" more than luck is {choosing['deflated_sharpe']:.2f}; .95 would be evidence."
        )
    return said


def _word(found: Plain) -> str:
    return {1: "is ahead of", 0: "cannot be told from", -1: "is behind"}[int(found["decided"])]


def _opening(report: Plain) -> str:
    first = (
        "Written by the command below, whatever it shows. Returns are net of fees and spread, decided at a bar's close and filled around"
        " the next opening; Sharpe ratios are annual, of daily returns, cash at 0."
    )
    lines = [first, f"```\n{report['command']}\n```"]
    if report.get("notes"):
        lines.append(_bullets(report["notes"]))
    return "\n\n".join(lines)


def _method(main: Plain) -> str:
    plan, costs = main["plan"], main["costs"]
    rows = [
        [str(fold["number"]), *(f"{_day(a)} to {_day(b)}" for a, b in (fold["train"], fold["test"])), f"{fold['gap_bars']:,}"]
        for fold in main["folds"]
    ]
    guarded = main.get("configuration", {}).get("guarded", True)
    picked = "A run picks its checkpoint on that gap" if guarded else "No checkpoint is picked: the newest weights of each run are judged"
    text = (
        f"Walk-forward, {plan['scheme']}: purge {plan['purge']:,} bars (the longest look-back of a column) and embargo {plan['embargo']}"
        f" between the last bar of training and the first that is judged. {picked}; configurations are chosen"
        " on the fold before the last; the last fold is the test. Costs times 1 are"
        f" {costs['fee_bps']:g} bp fee and {costs['half_spread_bps']:g} bp half spread on each notional traded. The agent lives alone:"
        " shipped limits, without the drawdown ladder and the risk agent, so that a difference to its prior is its own;"
        " `shipped desk` below has both. All accounts are spot accounts: a wish for a short is a wish for nothing. Turnover, costs and funding"
        " are fractions of equity a year; drawdown is from the peak of the judged span."
    )
    return text + "\n\n" + table(["fold", "trained on", "judged on", "gap, bars"], rows)


def _study(study: Plain) -> list[str]:
    data = study["data"]
    many = ", ".join(data["symbols"]) if len(data["symbols"]) <= 16 else f"{len(data['symbols'])} symbols"
    parts = [
        f"{many}; {data['bars']:,} bars of {data['timeframe']} from {_day(data['from'])} to {_day(data['to'])}"
        + (", funding paid" if study["costs"]["funding"] else "")
        + f". Judged from {_day(study['window'][0])} to {_day(study['window'][1])}, {study['years']:.2f} years:"
        f" a Sharpe ratio of {2 / max(study['years'], 1e-9) ** 0.5:.1f} would have t = 2.",
        _standings(study),
    ]
    if "folds" in study:
        parts.append(_folds(study))
    if "agent" in study:
        parts += _agent(study["agent"])
    if "choosing" in study:
        parts.append(_choosing(study))
    return parts


def _standings(study: Plain) -> str:
    rows = [row for row in study["standings"] if row["multiple"] == 1.0]
    if "agent" in study:
        rows.append({**study["agent"]["agent"], "name": f"long-term agent, mean of {len(study['agent']['seeds'])} seeds"})
    slow = {row["name"]: row["sharpe"] for row in study["delayed"]}
    costs = {(row["name"], row["multiple"]): row["sharpe"] for row in study["standings"]}
    if "agent" in study:
        own = study["agent"]
        slow[rows[-1]["name"]] = own["delay"]["agent"]["sharpe"]
        costs |= {(rows[-1]["name"], row["multiple"]): row["agent"]["sharpe"] for row in own["costs"]}
    intervals = {**study["intervals"], **({rows[-1]["name"]: study["agent"]["own_interval"]["sharpe"]} if "agent" in study else {})}
    multiples = sorted({row["multiple"] for row in study["standings"]})
    head = ["", "growth", "volatility", "Sharpe", "95 %", "t", "drawdown", "turnover", "costs", "exposure"]
    head += [f"Sharpe, costs x{multiple:g}" for multiple in multiples if multiple != 1.0] + ["one bar late"]
    body = []
    for row in rows:
        name = row["name"]
        body.append([
            name, _percent(row["growth"]), _percent(row["volatility"], 0), f"{row['sharpe']:.2f}", _range(intervals.get(name), False),
            f"{row['t']:.1f}", _percent(row["max_drawdown"], 0), f"{row['turnover']:.0f}", _percent(row["cost"]), _percent(row["gross"], 0),
            *(_figure(costs.get((name, multiple))) for multiple in multiples if multiple != 1.0), _figure(slow.get(name)),
        ])  # fmt: skip
    return table(head, body)


def _folds(study: Plain) -> str:
    """Sharpe ratios by fold."""
    names: list[str] = []
    columns: list[dict[str, str]] = []
    for fold in study["folds"]:
        cells = {row["name"]: f"{row['sharpe']:.2f}" for row in fold.get("standings", [])}
        if "agent" in fold:
            found = fold["agent"]["against_prior"]["equal_volatility"]
            cells[f"agent, {len(fold['agent']['seeds'])} seeds"] = f"{fold['agent']['agent']['sharpe']:.2f}"
            cells["agent less prior at equal volatility"] = f"{_percent(found['estimate'])} {_range(found)}"
        columns.append(cells)
        names += [name for name in cells if name not in names]
    if not names:
        return ""
    head = ["Sharpe ratio by fold", *(f"to {_day(fold['test'][1])}" for fold in study["folds"][:-1])]
    body = [[name, *(cells.get(name, "") for cells in columns[:-1])] for name in names]
    return "The folds before the test, where nothing is proved any more because choices were made on them:\n\n" + table(head, body)


def _agent(agent: Plain) -> list[str]:
    own = agent["against_prior"]
    rows = [["own prior", *_measures(own)], *([name, *_measures(each)] for name, each in agent["against"].items() if not agent["prior"]["name"].endswith(name))]
    paired = table(["agent less", "mean a year", "Sharpe", "at equal volatility", "share of resamples at or below 0"], rows)
    seeds = [
        [str(row["seed"]), f"{row['sharpe']:.2f}", _percent(row["growth"]), f"{row['turnover']:.0f}",
         f"{_percent(row['equal_volatility']['estimate'])} {_range(row['equal_volatility'])}"]
        for row in agent["seeds"]
    ]  # fmt: skip
    costs = [
        [f"x{row['multiple']:g}", f"{row['agent']['sharpe']:.2f}", f"{row['prior']['sharpe']:.2f}",
         f"{_percent(row['difference']['estimate'])} {_range(row['difference'])}"]
        for row in agent["costs"]
    ]  # fmt: skip
    late = agent["delay"]
    costs.append([
        f"x1, {late['bars']} bar late", f"{late['agent']['sharpe']:.2f}", f"{late['prior']['sharpe']:.2f}",
        f"{_percent(late['difference']['estimate'])} {_range(late['difference'])}",
    ])  # fmt: skip
    spread, ahead = agent["dispersion"]["sharpe"], agent["dispersion"]["ahead_of_prior"]
    return [
        "Paired differences, stationary bootstrap over days and seeds, 95 %:\n\n" + paired,
        "Costs and delay, agent and prior alike:\n\n" + table(["costs", "agent's Sharpe", "prior's Sharpe", "difference at equal volatility"], costs),
        f"Seeds: Sharpe ratio {spread['mean']:.2f} on average, deviation {spread['deviation']:.2f}, from {spread['least']:.2f} to"
        f" {spread['most']:.2f}; ahead of the prior by {ahead['mean']:.2f}, between {ahead['low']:.2f} and {ahead['high']:.2f} for other seeds"
        " on this same history.\n\n" + table(["seed", "Sharpe", "growth", "turnover", "difference to the prior at equal volatility"], seeds),
    ]


def _choosing(study: Plain) -> str:
    found = study["choosing"]
    years = found["years_for_95_percent"]
    over = found["overfitting"]
    lines = [
        f"Configurations tried: {found['trials']} (run log). Chosen: "
        + ", ".join(f"{name} {value}" for name, value in study["configuration"].items() if name in ("steps", "hidden_sizes", "updates_per_row")),
        f"Probability that the Sharpe ratio is above 0: {found['probabilistic_sharpe']:.2f}; deflated by the tries: {found['deflated_sharpe']:.2f}.",
        "Years until this Sharpe ratio would be believed at 95 %: " + (f"{years:.1f}." if years < 1e6 else "never, it is not above 0."),
    ]
    if over is not None:
        lines.append(
            f"Probability of backtest overfitting over the tries on the validation fold: {over['probability']:.2f} ({over['splits']} splits,"
            f" {over['trials']} tries); chance gives .5. The chosen one loses money out of sample in {_percent(over['loss'], 0)} of the splits."
        )
    return "Choosing:\n\n" + _bullets(lines)


def _controls(controls: Plain) -> str:
    rows = [[each["name"], each["expected"], each["found"], "passed" if each["passed"] else "**failed**"] for each in controls["rows"]]
    return f"{controls['text']}\n\n" + table(["control", "expected", "found", ""], rows)


def _books(books: Plain) -> str:
    head = ["session", "symbol", "quoter", "queue", "minutes", "quotes", "filled", "captured, bp", "fee, bp"]
    head += [f"after {seconds} s, bp" for seconds in books["horizons_s"]]
    rows = []
    for row in books["rows"]:
        after = [_measured(row["markout"].get(f"{seconds}s"), row["error"].get(f"{seconds}s")) for seconds in books["horizons_s"]]
        rate = row["fill_rate"]
        rows.append([
            row["session"].split(".")[0], row["symbol"], row["quoter"], row["queue"], f"{row['minutes']:.1f}", f"{row['quotes']:,}",
            "" if rate is None else _percent(rate), _figure(row["captured"], 2), _figure(row["fee"], 2), *after,
        ])  # fmt: skip
    text = (
        f"{books['caution']} Mark-outs are the mid so many seconds after a fill against its price, before fees, with standard errors"
        " clustered in time; more is better for us. `touch` is one smallest order at each best price; `glft` is the market maker's prior, `glft_free` the same where makers pay no fee."
    )
    return text + "\n\n" + table(head, rows)


# -- words and numbers -------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _title(study: Plain) -> str:
    return str(study["study"])


def _day(text: str) -> str:
    return text[:10]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _percent(value: float, digits: int = 1) -> str:
    return f"{100.0 * value:.{digits}f} %"


def _figure(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _measured(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")


def _range(found: Plain | None, percent: bool = True) -> str:
    if found is None:
        return ""
    low, high = (f"{100.0 * found[end]:.1f}" if percent else f"{found[end]:.2f}" for end in ("low", "high"))
    return f"[{low}, {high}]"


def _measures(found: Plain) -> list[str]:
    cells = [f"{_percent(found['mean']['estimate'])} {_range(found['mean'])}"]
    cells.append(f"{found['sharpe']['estimate']:.2f} {_range(found['sharpe'], False)}")
    equal = found["equal_volatility"]
    return [*cells, f"{_percent(equal['estimate'])} {_range(equal)}", f"{equal['below']:.3f}"]
