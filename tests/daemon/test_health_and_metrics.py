import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from daemon.publish.health import Bounds, health
from daemon.publish.metrics import READINGS, Metrics

BOUNDS = Bounds(data_age_s=30, decision_age_s=90)
STATUS = {
    "session": "s1", "mode": "m", "exchange": "rehearsal", "instance": "main", "uptime_s": 12.5, "ready": True, "halted": False,
    "data_age_s": 0.25, "decision_age_s": 3.0, "inbox_depth": 4, "coalesced": 7, "equity": 10_001.5, "peak_equity": 10_002.0,
    "drawdown": 0.0001, "cash": 8000.0,
    "positions": [{"symbol": "BTC/USDT", "quantity": "0.03", "weight": 0.2, "pnl": 1.5, "mark": None, "average_price": 6e4}],
    "open_orders": [{"order_id": "q-main-1-1-1"}, {"order_id": "q-main-1-1-2"}],
    "decisions": {"long_term": 2, "risk": 9}, "wishes": {}, "bound": [{"name": "gross", "symbol": None, "price": 0.5}],
    "learner": {"state": "running", "updates": 40, "experiences": 60, "version": 3, "weights_swapped": 3, "restarts": 1, "behind": 7, "weights_refused": 1, "refused_candidates": 2, "processor_share": 0.4,
                "critic_loss": 0.5, "agents": {"risk": {"critic_loss": 0.5, "alpha": 0.2}, "long_term": {"critic_loss": math.nan}}},
    "orders": 5, "fills": 3, "order_states": {"filled": 3}, "unknown_orders": 0, "fees": {"USDT": "1.25"},
    "pnl": {"account": 1.5, "agents": {"risk": 0.5}}, "refused": {"collar": 2}, "refused_data": {"crossed": 1},
    "feed": {"stale": ["ETH/USDT"], "rebuilds": 2}, "flattening": False, "reconciled": True, "problems": {"agent_failed_risk": 1},
    "reconcile": {"age_s": 4.5, "mismatches": 1}, "watchdog": {"restarts": 2},
    "measures": {
        "decision_latency": {"buckets": [["0.001", 2], ["0.01", 5], ["+Inf", 6]], "sum": 0.5}, "live_orders": {"open": 3},
        "loop_lag": {"buckets": [["0.1", 9], ["+Inf", 9]], "sum": 0.01}, "acknowledgement": {"buckets": [["0.1", 1], ["+Inf", 1]], "sum": 0.05},
        "oldest_unknown_s": 31.5,
        "bindings": {"gross": 4}, "risk": {"cvar": 0.031, "var": 0.02}, "policy_age_s": 12.0, "exposure": [{"agent": "risk", "symbol": "BTC/USDT", "weight": 0.25}],
    },
    "outlets": {"redis": {"up": True, "depth": 3, "lost": 7}, "mqtt": {"up": False, "depth": 0, "lost": 0}},
    "link": {"clock": {"offset_s": -0.012, "usable": True}, "budget": {"used": 30.5, "limit": 960}, "bans": 1},
}  # fmt: skip


def samples(status):
    text = Metrics(lambda: status).render().decode()
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in text_string_to_metric_families(text) for s in family.samples}


def test_metrics_say_what_the_snapshot_says():
    found = samples(STATUS)
    expected = {
        ("quartet_data_age_seconds", ()): 0.25,
        ("quartet_equity", ()): 10_001.5,
        ("quartet_ready", ()): 1,
        ("quartet_halted", ()): 0,
        ("quartet_decisions_total", (("agent", "risk"),)): 9,
        ("quartet_fees_paid", (("currency", "USDT"),)): 1.25,
        ("quartet_position", (("symbol", "BTC/USDT"),)): 0.03,
        ("quartet_bound_price", (("name", "gross"), ("symbol", ""))): 0.5,
        ("quartet_learner_critic_loss", (("agent", "risk"),)): 0.5,
        ("quartet_learner_alpha", (("agent", "risk"),)): 0.2,
        ("quartet_open_orders", ()): 2,
        ("quartet_reconcile_age_seconds", ()): 4.5,
        ("quartet_clock_offset_seconds", ()): -0.012,
        ("quartet_engine_problems_total", (("kind", "agent_failed_risk"),)): 1,
        ("quartet_decision_latency_seconds_bucket", (("le", "0.01"),)): 5,
        ("quartet_decision_latency_seconds_count", ()): 6,
        ("quartet_exposure_ratio", (("agent", "risk"), ("symbol", "BTC/USDT"))): 0.25,
        ("quartet_outlet_up", (("outlet", "redis"),)): 1,
        ("quartet_outlet_up", (("outlet", "mqtt"),)): 0,
        ("quartet_outlet_lost_total", (("outlet", "redis"),)): 7,
        ("quartet_oldest_unknown_order_seconds", ()): 31.5,
        ("quartet_risk_measure", (("measure", "var"),)): 0.02,
        ("quartet_feed_stale", (("symbol", "ETH/USDT"),)): 1,
        ("quartet_refused_orders_total", (("reason", "collar"),)): 2,
        ("quartet_session_info", (("exchange", "rehearsal"), ("instance", "main"), ("mode", "m"), ("session", "s1"))): 1,
    }
    assert {key: found.get(key) for key in expected} == expected


def test_every_reading_appears_once_the_snapshot_has_it():
    names = {name for name, _ in samples(STATUS)}
    absent = {reading.name for reading in READINGS if f"quartet_{reading.name}" not in names}
    assert absent == set()


def test_what_is_not_finite_is_left_out():
    assert ("quartet_learner_critic_loss", (("agent", "long_term"),)) not in samples(STATUS)


def test_process_metrics_are_there():
    assert samples({})[("quartet_process_resident_memory_bytes", ())] > 1e6


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(st.dictionaries(st.text(max_size=4), inner, max_size=2), max_size=2)
    | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("equity", "fees", "learner", "pnl", "decisions", "orders", "bound"), anything)))
def test_a_strange_snapshot_still_renders(status):
    if not isinstance(status.get("bound"), list):
        status.pop("bound", None)
    assert b"quartet_session_info" in Metrics(lambda: status).render()


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({}, []),
        ({"halted": True}, []),
        ({"halted": True, "decision_age_s": 1e6}, []),
        ({"halted": True, "decision_age_s": None}, []),
        ({"halted": True, "data_age_s": 31.0}, ["data_too_old"]),
        ({"ready": False}, ["starting"]),
        ({"data_age_s": 30.1}, ["data_too_old"]),
        ({"data_age_s": None}, ["data_missing"]),
        ({"data_age_s": math.nan}, ["data_too_old"]),
        ({"decision_age_s": 91}, ["decision_too_old"]),
        ({"decision_age_s": None, "ready": False}, ["starting", "decision_missing"]),
        ({"reconcile": {"age_s": 601.0}}, ["reconcile_too_old"]),
        ({"reconcile": {"age_s": math.nan}}, ["reconcile_too_old"]),
    ],
)
def test_health_is_progress(changes, problems):
    well, body = health(STATUS | changes, BOUNDS)
    assert (well, body["problems"]) == (not problems, problems)
