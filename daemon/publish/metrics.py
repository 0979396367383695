"""Prometheus metrics, read off the status snapshot at scrape time: nothing is counted on the decision path.

Names carry the prefix `quartet_` and base units (seconds, ratios, units of the quote or the named currency).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric: where in the snapshot it stands (dotted), what it means, and the label of its keys if it is a mapping."""

    name: str
    path: str
    sentence: str
    label: str = ""
    counter: bool = False


READINGS = (
    Reading("uptime_seconds", "uptime_s", "Time since the session started."),
    Reading("ready", "ready", "1 once the session is reconciled and may trade."),
    Reading("halted", "halted", "1 while no new risk is taken by an operator's word."),
    Reading("data_age_seconds", "data_age_s", "Age of the latest market data."),
    Reading("decision_age_seconds", "decision_age_s", "Age of the last decision of any agent."),
    Reading("inbox_depth", "inbox_depth", "Facts that wait for the engine."),
    Reading("books_coalesced_total", "coalesced", "Books that gave way to a newer one of their symbol.", counter=True),
    Reading("equity", "equity", "Marked equity, in the quote currency."),
    Reading("peak_equity", "peak_equity", "Highest marked equity, in the quote currency."),
    Reading("cash", "cash", "Free and reserved cash, in the quote currency."),
    Reading("drawdown_ratio", "drawdown", "Fall from the peak of marked equity."),
    Reading("pnl", "pnl.account", "Profit of the account since it was funded, in the quote currency."),
    Reading("agent_pnl", "pnl.agents", "Profit attributed to an agent, in the quote currency.", "agent"),
    Reading("decisions_total", "decisions", "Decisions made.", "agent", counter=True),
    Reading("orders_total", "orders", "Orders placed.", counter=True),
    Reading("fills_total", "fills", "Own executions.", counter=True),
    Reading("order_states_total", "order_states", "Order updates, by the state reported.", "state", counter=True),
    Reading("unknown_orders", "unknown_orders", "Orders whose outcome is not known."),
    Reading("flattening", "flattening", "1 while everything is being sold."),
    Reading("reconciled", "reconciled", "1 while ledger and exchange agree, or every difference is explained."),
    Reading("reconcile_age_seconds", "reconcile.age_s", "Time since ledger and exchange were last compared."),
    Reading("reconcile_mismatches", "reconcile.mismatches", "Currencies in which they differ and nothing explains it."),
    Reading("engine_problems_total", "problems", "Things that went wrong in the engine and cost a turn or a step.", "kind", counter=True),
    Reading("clock_offset_seconds", "link.clock.offset_s", "This machine's clock against the exchange's."),
    Reading("clock_usable", "link.clock.usable", "1 while orders can be signed with this machine's clock."),
    Reading("request_budget_used", "link.budget.used", "Request weight used in the exchange's window, by all our processes."),
    Reading("request_budget_limit", "link.budget.limit", "Request weight that may be used in the exchange's window."),
    Reading("request_bans_total", "link.bans", "Times the exchange asked for silence.", counter=True),
    Reading("watchdog_restarts_total", "watchdog.restarts", "Times the watchdog process was started again.", counter=True),
    Reading("live_orders", "measures.live_orders", "Orders that rest or are on their way.", "state"),
    Reading("oldest_unknown_order_seconds", "measures.oldest_unknown_s", "Age of the oldest order whose outcome is not known; 0 for none."),
    Reading("bindings_total", "measures.bindings", "Decisions that a limit held back.", "limit", counter=True),
    Reading("risk_measure", "measures.risk", "What the risk layer measured of the last target, over equity: VaR and CVaR of a day, and the rest.", "measure"),
    Reading("policy_age_seconds", "measures.policy_age_s", "Time since new weights were taken over."),
    Reading("outlet_up", "outlets.{}.up", "1 while an outlet delivers.", "outlet"),
    Reading("outlet_depth", "outlets.{}.depth", "Facts that wait to be told.", "outlet"),
    Reading("outlet_lost_total", "outlets.{}.lost", "Facts that nobody was told, for want of room.", "outlet", counter=True),
    Reading("fees_paid", "fees", "Fees paid, net of rebates.", "currency"),
    Reading("refused_orders_total", "refused", "Orders that the risk layer refused.", "reason", counter=True),
    Reading("refused_data_total", "refused_data", "Market facts that were not believed.", "reason", counter=True),
    Reading("feed_rebuilds_total", "feed.rebuilds", "Times a silent stream was dialled again.", counter=True),
    Reading("learner_updates_total", "learner.updates", "Gradient updates.", counter=True),
    Reading("learner_experiences_total", "learner.experiences", "Rows learned from.", counter=True),
    Reading("learner_behind", "learner.behind", "Updates that may be taken and were not yet."),
    Reading("learner_processor_share_ratio", "learner.processor_share", "Share of a processor that the learner gets."),
    Reading("learner_restarts_total", "learner.restarts", "Times the learner process was started again.", counter=True),
    Reading("weights_refused_total", "learner.weights_refused", "Weights of the learner that were refused before the engine saw them.", counter=True),
    Reading("weights_withheld_total", "learner.refused_candidates", "Weights that the learner itself held back.", counter=True),
    Reading("weights_version", "learner.version", "Version of the weights that decide."),
    Reading("weights_swapped_total", "learner.weights_swapped", "Times new weights were taken over.", counter=True),
)

_HISTOGRAMS = {
    "decision_latency_seconds": ("measures.decision_latency", "From a fact's stamp until the orders that follow have left."),
    "order_acknowledgement_seconds": ("measures.acknowledgement", "From an order's decision until the exchange's first word on it."),
    "loop_lag_seconds": ("measures.loop_lag", "How late the event loop comes back to a sleeper."),
}

_ROWS = (
    ("exposure_ratio", "measures.exposure", ("agent", "symbol"), "weight", "What an agent owns of a symbol, over equity."),
    ("position", "positions", ("symbol",), "quantity", "Position, in units of the base currency."),
    ("position_weight_ratio", "positions", ("symbol",), "weight", "Position at its mark over equity."),
    ("position_pnl", "positions", ("symbol",), "pnl", "Profit of a symbol, in the quote currency."),
    ("bound_price", "bound", ("name", "symbol"), "price", "What a limit that bound cost the last target (its dual value)."),
)


_LEARNED = {
    "critic_loss": "Last critic loss.",
    "actor_loss": "Last actor loss.",
    "alpha": "Entropy temperature.",
    "entropy": "Policy entropy, in nats.",
    "q_mean": "Mean of the critics' estimates.",
    "q_spread": "Mean distance of the twin critics.",
    "td_error": "Mean absolute temporal-difference error.",
    "action_mean": "Mean action.",
    "action_deviation": "Deviation of the actions over a batch.",
    "action_saturation": "Share of actions near their bounds.",
    "critic_gradient": "Norm of the critics' gradient.",
    "actor_gradient": "Norm of the actor's gradient.",
    "effective_rank": "Effective rank of the actor's last hidden layer.",
    "dormant_share": "Share of hidden units that hardly ever fire.",
    "reward": "Mean reward of the last batch.",
}
"""What the learner says of each agent."""


def _number(value: object) -> float | None:
    """A finite number, or None; decimal strings count."""
    if not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _at(snapshot: Mapping[str, Any], path: str) -> Any:
    """What stands under a dotted path; `a.{}.b` gathers b from every entry of a."""
    if ".{}." in path:
        above, below = path.split(".{}.")
        entries = _at(snapshot, above)
        return {name: _at(entry, below) for name, entry in entries.items() if isinstance(entry, Mapping)} if isinstance(entries, Mapping) else None
    place: Any = snapshot
    for part in path.split("."):
        place = place.get(part) if isinstance(place, Mapping) else None
    return place


class _StatusCollector(Collector):
    def __init__(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        snapshot = self._snapshot()
        labels = {key: str(snapshot[key]) for key in ("session", "mode", "exchange", "instance") if key in snapshot}
        yield InfoMetricFamily("quartet_session", "The session that runs.", value=labels)
        for reading in READINGS:
            if (family := _family(reading, _at(snapshot, reading.path))) is not None:
                yield family
        yield from _rows(snapshot)
        yield from _learned(snapshot)
        yield from _histograms(snapshot)
        open_orders = snapshot.get("open_orders")
        yield GaugeMetricFamily(
            "quartet_open_orders", "Orders that rest or are on their way.", len(open_orders) if isinstance(open_orders, list) else 0
        )
        stale = GaugeMetricFamily("quartet_feed_stale", "1 for a symbol whose data cannot be acted on.", labels=["symbol"])
        for symbol in _at(snapshot, "feed.stale") or ():
            stale.add_metric([str(symbol)], 1)
        yield stale


def _family(reading: Reading, value: object) -> Metric | None:
    """One metric family, or None where the snapshot has no number for it."""
    kind = CounterMetricFamily if reading.counter else GaugeMetricFamily
    name = f"quartet_{reading.name}"
    if isinstance(value, Mapping):
        family = kind(name, reading.sentence, labels=[reading.label or "key"])
        for key, inner in sorted(value.items()):
            if (number := _number(inner)) is not None:
                family.add_metric([str(key)], number)
        return family
    number = _number(value)
    return None if number is None else kind(name, reading.sentence, value=number)


def _rows(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    for name, path, labels, field, sentence in _ROWS:
        family = GaugeMetricFamily(f"quartet_{name}", sentence, labels=labels)
        for row in _at(snapshot, path) or ():
            if (number := _number(row.get(field))) is not None:
                family.add_metric([str(row.get(label) or "") for label in labels], number)
        yield family


def _histograms(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    for name, (path, sentence) in _HISTOGRAMS.items():
        found = _at(snapshot, path)
        if isinstance(found, Mapping):
            yield HistogramMetricFamily(f"quartet_{name}", sentence, buckets=[tuple(each) for each in found["buckets"]], sum_value=found["sum"])


def _learned(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    told = _at(snapshot, "learner.agents")
    for name, sentence in _LEARNED.items():
        family = GaugeMetricFamily(f"quartet_learner_{name}", sentence, labels=["agent"])
        for agent, numbers in told.items() if isinstance(told, Mapping) else ():
            if isinstance(numbers, Mapping) and (number := _number(numbers.get(name))) is not None:
                family.add_metric([str(agent)], number)
        yield family


class Metrics:
    """What `/metrics` answers."""

    def __init__(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_StatusCollector(snapshot))
        ProcessCollector(namespace="quartet", registry=self._registry)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self._registry)
