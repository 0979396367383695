"""A lease that could not protect is refused before anything is dialled, and by name."""

from pathlib import Path
from typing import Any

import pytest

from agents.core.errors import ConfigError
from daemon import session
from daemon.errors import Unsafe
from daemon.sources import load
from daemon.standby import terms

URL = "redis://127.0.0.1:1"
KEYS = {"api_key": "k", "secret": "s"}


def settings(folder: Path, exchange: dict[str, Any], **redis: Any) -> Any:
    tree = {"mode": "live", "state_dir": folder, "redis": {"lease": True, **redis}, "exchange": exchange, "http": {"port": "off"}}
    return load(None, tree, {})


def test_without_a_redis_there_is_no_lease(tmp_path):
    with pytest.raises(ConfigError, match=r"redis\.url is not set"):
        settings(tmp_path, {})


@pytest.mark.parametrize(
    ("exchange", "said"),
    [
        ({"id": "kraken", **KEYS}, "orders that expire on kraken"),
        ({"id": "rehearsal"}, "no second daemon"),
    ],
)
async def test_where_two_could_trade_at_once_or_none_could_wait_it_is_refused(tmp_path, exchange, said):
    with pytest.raises(ConfigError, match=said):
        await session.trade(settings(tmp_path, exchange, url=URL), real_money=True, duration=1)


async def test_books_are_not_mended_beside_a_daemon_that_may_trade(tmp_path):
    with pytest.raises(Unsafe, match=r"redis\.lease=false"):
        await session.reconcile(settings(tmp_path, {"id": "rehearsal", "base_url": "http://127.0.0.1:1"}, url=URL), apply=True)


def test_a_lease_is_renewed_several_times_within_its_length_whatever_the_length():
    for length_s in (2.0, 5.0, 60.0):
        made = terms(length_s)
        assert made.length_s == length_s and 4 * made.renew_s <= length_s - made.margin_s + 1e-9
