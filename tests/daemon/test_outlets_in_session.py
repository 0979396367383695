"""A whole paper session whose Redis and Mosquitto are killed while it trades: it trades on, says so once each way, and tells every fill once."""

import signal
from pathlib import Path
from typing import Any

import orjson
from redis import Redis

from agents.core.events import Fill
from daemon.journal import JournalReader
from tests.daemon.test_session import Start, start, until  # noqa: F401 - a fixture
from tests.servers import mosquitto, redis_server


def made(status: dict[str, Any]) -> tuple[int, int]:
    """Decisions and fills so far."""
    return sum(status["decisions"].values()), status["fills"]


def events(words: str, event: str) -> list[dict[str, Any]]:
    said = [orjson.loads(line) for line in words.splitlines() if line.startswith("{")]
    return [one for one in said if one["event"] == event]


def test_brokers_that_die_in_mid_trade_stop_no_trading_and_cost_no_fill(start: Start, tmp_path: Path) -> None:  # noqa: F811
    state, folders = tmp_path / "state", [tmp_path / "redis", tmp_path / "mosquitto"]
    for folder in folders:
        folder.mkdir()
    servers = redis, broker = redis_server(folders[0]), mosquitto(folders[1])
    try:
        for server in servers:
            server.start()
        where = (f"redis.url=redis://127.0.0.1:{redis.port}", "mqtt.host=127.0.0.1", f"mqtt.port={broker.port}")
        flags = [word for setting in where for word in ("--set", setting)]
        daemon = start("trade", "--paper", "--json", "--state", str(state), *flags)
        up = until(state, lambda s: s["fills"] > 0 and all(outlet["up"] for outlet in s["outlets"].values()))
        assert set(up["outlets"]) == {"redis", "mqtt"}
        for server in servers:
            server.kill()
        down = until(state, lambda s: not any(outlet["up"] for outlet in s["outlets"].values()))
        later = until(state, lambda s: all(now > then for now, then in zip(made(s), made(down), strict=True)))
        assert not any(outlet["up"] for outlet in later["outlets"].values())
        assert all(outlet["depth"] > 0 for outlet in later["outlets"].values())
        for server in servers:
            server.start()
        until(state, lambda s: all(outlet["up"] and not outlet["depth"] for outlet in s["outlets"].values()) and s["fills"] > later["fills"])
        daemon.process.send_signal(signal.SIGTERM)
        code, summary, words = daemon.wait()
        mirrored: Any = Redis(port=redis.port).xrange("quartet:main:fills")
    finally:
        for server in servers:
            server.kill()
    assert (code, summary["ledger_difference"], summary["anomalies"]) == (0, 0, {}), words
    recovered = events(words, "outlet_recovered")
    assert sorted(said["outlet"] for said in events(words, "outlet_down")) == ["mqtt", "redis"], words
    assert sorted((said["outlet"], said["lost"]) for said in recovered) == [("mqtt", 0), ("redis", 0)], words
    reader = JournalReader(state)
    (session,) = reader.sessions()
    traded = [(str(fact.symbol), fact.trade_id) for fact in reader.account_facts(session.epoch) if isinstance(fact, Fill)]
    bodies = [orjson.loads(entry[b"data"]) for _, entry in mirrored]
    told = [(body["symbol"], body["trade_id"]) for body in bodies]
    assert len(traded) == summary["fills"] > later["fills"]
    assert told == traded, "each fill once and in order, those of the time without brokers included"
