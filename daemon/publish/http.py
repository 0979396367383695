"""Health, status and metrics over HTTP on loopback. Health means progress: fresh data and fresh decisions, not a live process."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import structlog
from aiohttp import web

from agents.core.errors import ConfigError
from daemon.publish.metrics import CONTENT_TYPE, Metrics

USUAL_PORT = 8080

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Bounds:
    """Ages in seconds above which the session counts as stuck."""

    data_age_s: float
    decision_age_s: float


def health(snapshot: Mapping[str, Any], bounds: Bounds) -> tuple[bool, dict[str, Any]]:
    """Whether the session makes progress, and what says so."""
    problems = [] if snapshot.get("ready") else ["starting"]
    for name, bound in (("data_age_s", bounds.data_age_s), ("decision_age_s", bounds.decision_age_s)):
        age = snapshot.get(name)
        if age is None:
            problems.append(f"{name.removesuffix('_age_s')}_missing")
        elif not age <= bound:  # NaN counts as too old
            problems.append(f"{name.removesuffix('_age_s')}_too_old")
    keys = ("session", "ready", "halted", "data_age_s", "decision_age_s")
    return not problems, {"healthy": not problems, "problems": problems, **{key: snapshot.get(key) for key in keys}}


def application(snapshot: Callable[[], Mapping[str, Any]], bounds: Bounds) -> web.Application:
    """The routes; reads only."""
    metrics = Metrics(snapshot)

    async def get_health(_: web.Request) -> web.Response:
        well, body = health(snapshot(), bounds)
        return _json(body, 200 if well else 503)

    async def get_status(_: web.Request) -> web.Response:
        return _json(snapshot(), 200)

    async def get_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application(client_max_size=64 * 1024)
    app.router.add_get("/api/v1/health", get_health)
    app.router.add_get("/api/v1/status", get_status)
    app.router.add_get("/metrics", get_metrics)
    return app


def _json(body: Mapping[str, Any], status: int) -> web.Response:
    data = orjson.dumps(body, default=str, option=orjson.OPT_SERIALIZE_NUMPY)
    return web.Response(body=data, status=status, content_type="application/json", headers={"Cache-Control": "no-store"})


@asynccontextmanager
async def serve(
    snapshot: Callable[[], Mapping[str, Any]], bounds: Bounds, host: str, port: int | Literal["auto", "off"]
) -> AsyncIterator[int | None]:
    """Serve while the context lasts; gives the port, or None when off.

    Raises ConfigError when a port was asked for by number and is taken; `auto` then takes another.
    """
    if port == "off":
        yield None
        return
    runner = web.AppRunner(application(snapshot, bounds), access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        bound = await _bind(runner, host, port)
        _log.info("http_listening", host=host, port=bound)
        yield bound
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, host: str, port: int | Literal["auto"]) -> int:
    choices = (USUAL_PORT, 0) if port == "auto" else (port,)
    for choice in choices:
        try:
            await web.TCPSite(runner, host, choice, reuse_address=True).start()
        except OSError as error:
            reason = error.strerror or str(error)
            continue
        return int(runner.addresses[0][1])
    raise ConfigError(f"http.port: cannot listen on {host}:{choices[-1]} ({reason}); free it, or set http.port to another, auto or off")
