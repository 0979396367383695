"""`quartet drill`: breaks real daemons on purpose, on the rehearsal exchange or a testnet, and reports whether they behaved.

The user's own state folder is only written to for the report: the drilled daemons have a folder and an instance name of their own.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import structlog
from ccxt.base.errors import BaseError

from agents.core.errors import ConfigError, TradingError
from agents.core.instruments import NS
from daemon.door import MonotonicClock
from daemon.drill.ground import Ground
from daemon.drill.steps import DRILLS, Drill
from daemon.errors import Unsafe
from daemon.exchange_process import rehearsal_exchange
from daemon.rehearsal.config import TEST_KEY, TEST_SECRET
from daemon.settings import Settings
from daemon.venues.client import ExchangeOptions, build_client, close_client, dials_loopback

log = structlog.get_logger()

NAMED_BY = 6
"""So many first characters of a key name the account."""
DRILL_WITHIN_S = 600.0


async def drill(settings: Settings, out: Path, *, account: str = "", only: Collection[str] = ()) -> dict[str, Any]:
    """Run the drills (all, or `only` those named) and write `DATE.json` and `DATE.txt` into the folder `out`.

    Returns `{"passed", "at", "exchange", "report", "steps": [{name, done, expected, seen, passed, seconds}]}`; `passed` of a step is None
    where it could not be done there. Anywhere but on this machine `account` must be the first characters of the key in use.
    Raises Unsafe without it and for a real exchange, ConfigError for drills that do not exist.
    """
    chosen = _chosen(only)
    _permitted(settings, account)
    at = datetime.fromtimestamp(MonotonicClock()() / NS, UTC)
    folder = out / f"{at:%Y%m%dT%H%M%SZ}"
    folder.mkdir(parents=True)
    steps = []
    async with _ground(settings, folder) as ground:
        for one in chosen:
            steps.append(await _step(one, ground))
            log.info("drill", name=one.name, passed=steps[-1]["passed"], seen=steps[-1]["seen"])
    result = {
        "passed": all(step["passed"] is not False for step in steps), "at": at.isoformat(), "exchange": settings.exchange.id,
        "base_url": settings.exchange.base_url, "report": str(folder.with_suffix(".json")), "folder": str(folder), "steps": steps,
    }  # fmt: skip
    folder.with_suffix(".json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    folder.with_suffix(".txt").write_text(render(result) + "\n", encoding="utf-8")
    return result


def render(data: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [f"drill of {data['at'][:19]} on {data['exchange']}" + (f" at {data['base_url']}" if data["base_url"] else "")]
    for step in data["steps"]:
        mark = {True: "passed", False: "FAILED", None: "skipped"}[step["passed"]]
        lines += ["", f"{step['name']}: {mark} ({step['seconds']:.0f} s)", f"  done      {step['done']}", f"  expected  {step['expected']}"]
        lines.append(f"  seen      {step['seen']}")
    return "\n".join([*lines, "", f"{'all passed' if data['passed'] else 'NOT all passed'}; report: {data['report']}; logs: {data['folder']}"])


def _chosen(only: Collection[str]) -> tuple[Drill, ...]:
    known = {one.name: one for one in DRILLS}
    for name in only:
        if name not in known:
            raise ConfigError(f"there is no drill {name!r}; there are {', '.join(known)}")
    return tuple(one for one in DRILLS if not only or one.name in only)


def _permitted(settings: Settings, account: str) -> None:
    """Orders are sent, positions are built and sold: never where it could be real money, and on a testnet by name only."""
    chosen = settings.exchange
    if chosen.id == "rehearsal" and chosen.base_url is None:
        return
    if chosen.base_url is None:
        raise Unsafe(f"a drill places orders and breaks daemons: not on {chosen.id} itself; leave --exchange out, or name a testnet by exchange.base_url")
    if dials_loopback(ExchangeOptions(chosen.id, chosen.base_url)):
        return
    key = chosen.api_key.get_secret_value() if chosen.api_key is not None else ""
    if len(account) < NAMED_BY or not key.startswith(account):
        raise Unsafe(
            f"a drill places orders on the account at {chosen.base_url}: name it by --yes and the first {NAMED_BY} characters of its key, if that is meant"
        )


@asynccontextmanager
async def _ground(settings: Settings, folder: Path) -> AsyncIterator[Ground]:
    chosen = settings.exchange
    if chosen.id == "rehearsal" and chosen.base_url is None:
        arguments = ["--faults", "--symbols", ",".join(chosen.symbols), "--speed", str(settings.rehearsal.speed), "--seed", str(settings.rehearsal.seed)]
        arguments += [word for currency, amount in settings.rehearsal.balances.items() for word in ("--balance", f"{currency}={amount}")]
        async with rehearsal_exchange(arguments, folder / "exchange.log") as server:
            there = settings.model_copy(update={"exchange": chosen.model_copy(update={"base_url": server.base_url})})
            async with _watching(there, folder, f"{server.base_url}/rehearsal/faults") as ground:
                yield ground
        return
    async with _watching(settings, folder, None) as ground:
        yield ground


@asynccontextmanager
async def _watching(settings: Settings, folder: Path, faults: str | None) -> AsyncIterator[Ground]:
    chosen = settings.exchange
    held = {"api_key": chosen.api_key, "secret": chosen.secret, "password": chosen.password}
    keys = {name: value.get_secret_value() for name, value in held.items() if value is not None}
    if not keys and chosen.id == "rehearsal":
        keys = {"api_key": TEST_KEY, "secret": TEST_SECRET}  # known to everybody, good on loopback only
    options = ExchangeOptions(chosen.id, chosen.base_url, chosen.ca_file, timeout_ms=chosen.timeout_ms)
    exchange = build_client(replace(options, **keys))  # type: ignore[arg-type]  # three names, all of texts
    ground = Ground(settings, folder, exchange, faults)
    try:
        await ground.throttle.call(exchange, exchange.load_markets)
        yield ground
    finally:
        await ground.end()
        await close_client(exchange)


async def _step(one: Drill, ground: Ground) -> dict[str, Any]:
    """One drill and what became of it; what it raises is what was seen."""
    loop = asyncio.get_running_loop()
    started, passed = loop.time(), None
    if one.needs_faults and ground.faults is None:
        seen = "skipped: only the rehearsal exchange can be told to do this"
    else:
        try:
            async with asyncio.timeout(DRILL_WITHIN_S):
                seen, passed = await one.run(ground)
        except (TradingError, BaseError, TimeoutError, OSError) as error:
            seen, passed = f"{type(error).__name__}: {error}"[:500], False
        finally:
            await ground.end()
    return {
        "name": one.name, "done": one.done, "expected": one.expected, "seen": seen, "passed": passed,
        "seconds": round(loop.time() - started, 1),
    }  # fmt: skip
