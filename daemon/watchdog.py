"""The watchdog process as the session sees it: it is told what we do, and cancels our orders when we die or stand still.

It is a process of its own, because what a daemon cannot do while it hangs or after it was killed cannot be done by a task of it.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

import orjson
import structlog

from agents.core.instruments import Symbol
from daemon.venues.client import ExchangeOptions

log = structlog.get_logger()

BEAT_S = 1.0
GOODBYE = b"goodbye\n"
FIRED = 3
"""Its exit code after it had to act."""
SILENCE_S = 45.0
"""A watchdog that answers no beat for so long hangs; it answers only once it has loaded ccxt, on a busy machine."""
EXIT_S = 5.0
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 60.0
HEALTHY_S = 60.0
"""A process that lived so long starts the back-off anew."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What the watchdog process is told: the account, which orders are in its care, and how patient it is (seconds)."""

    account: ExchangeOptions
    instance: str
    epoch: int
    """Orders of this session and of earlier ones; later ones belong to a daemon that was started since."""
    symbols: tuple[Symbol, ...]
    folder: Path
    """The state folder, for its reports and its log."""
    patience_s: float = 15.0
    """Without progress for so long, the daemon counts as hung."""
    window_s: float = 15.0
    """How long an order that was sent may still appear: longer than the exchange accepts a signed request (10 s on Binance)."""
    give_up_s: float = 3600.0
    """How long an exchange that cannot be reached is tried."""
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    """The operator's own word on what the exchange can do (exchange.capabilities)."""

    def line(self) -> bytes:
        """As one line of JSON, for the process's standard input: keys stand in no argument and in no environment."""
        told = {name: getattr(self, name) for name in self.__slots__} | {"account": asdict(self.account), "folder": str(self.folder.absolute())}
        return orjson.dumps(told, default=str) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Charge":
        """The reverse of `line`."""
        told = orjson.loads(line)
        known = {one.name for one in fields(ExchangeOptions)}
        account = ExchangeOptions(**{name: value for name, value in told["account"].items() if name in known})
        if account.ca_file is not None:
            account = replace(account, ca_file=Path(account.ca_file))
        return cls(**(told | {"account": account, "folder": Path(told["folder"]), "symbols": tuple(map(Symbol, told["symbols"]))}))


def is_protective(row: Mapping[str, Any]) -> bool:
    """Whether an open order, as ccxt tells it, is a stop that guards a position: it stays when the others are taken away."""
    return any(row.get(name) for name in ("triggerPrice", "stopPrice", "stopLossPrice"))


class Watchdog:
    """Keeps one watchdog process alive while the session runs.

    `progress` is any number that moves while the engine handles facts (the last sequence number). `at_rest` says at the end
    whether nothing rests any more: if so the process is sent away, else it is left to cancel what we could not.
    """

    def __init__(
        self,
        charge: Charge,
        progress: Callable[[], int],
        at_rest: Callable[[], bool],
        command: tuple[str, ...] = (sys.executable, "-m", "daemon.watchdog_process"),
    ) -> None:
        self._charge, self._progress, self._at_rest, self._command = charge, progress, at_rest, command
        self._heard = 0.0
        self.status: dict[str, Any] = {"state": "off", "pid": None, "restarts": 0, "fired": 0}

    async def run(self) -> None:
        """Until cancelled. Never raises for what the process does: trading goes on without it, and says so."""
        loop = asyncio.get_running_loop()
        wait_s = FIRST_BACKOFF_S
        try:
            while True:
                started = loop.time()
                try:
                    reason = await self._life()
                except OSError as error:
                    reason = f"it could not be started ({error.strerror})"
                if loop.time() - started > HEALTHY_S:
                    wait_s = FIRST_BACKOFF_S
                self.status |= {"state": "restarting", "pid": None, "restarts": self.status["restarts"] + 1}
                log.error("watchdog_ended", reason=reason, restart_in_s=wait_s, restarts=self.status["restarts"])
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_BACKOFF_S)
        finally:
            self.status |= {"state": "off", "pid": None}

    async def _life(self) -> str:
        """One process from start to end; why it ended."""
        process = _start(self._command, self._charge)
        assert process.stdin is not None
        assert process.stdout is not None
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        self.status |= {"state": "starting", "pid": process.pid}
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), process.stdout)
        try:
            _write(process.stdin, self._charge.line())
            reason = await self._converse(process.stdin, reader)
        except asyncio.CancelledError:
            await self._part(process)
            raise
        except BaseException:
            process.stdin.close()
            raise
        finally:
            transport.close()
        process.stdin.close()
        code = await _ended(process)
        return reason or ("it had to act" if code == FIRED else f"it ended with code {code}")

    async def _converse(self, stdin: IO[bytes], reader: asyncio.StreamReader) -> str:
        """Beat and listen until the process closes its output or hangs; why, or empty."""
        loop, heard = asyncio.get_running_loop(), b""
        due = loop.time()
        while True:
            if loop.time() >= due:
                due = loop.time() + BEAT_S
                if not _write(stdin, b"beat %d\n" % self._progress()):
                    return "it takes no beat"
            if loop.time() - self._heard > SILENCE_S:
                return f"it said nothing for {SILENCE_S:g} s"
            try:
                async with asyncio.timeout(max(0.0, due - loop.time())):
                    heard = await reader.readline()
            except TimeoutError:
                continue
            if not heard:
                return ""
            self._heard = loop.time()
            self._take(heard)

    def _take(self, line: bytes) -> None:
        try:
            word = orjson.loads(line)
        except orjson.JSONDecodeError:
            return  # what some library printed
        if not isinstance(word, dict):
            return
        if "fired" in word:
            self.status |= {"state": "firing", "fired": self.status["fired"] + 1}
            log.error("watchdog_fired", reason=word["fired"], report=word.get("report"))
        elif self.status["state"] != "watching":
            if self.status["state"] == "starting":
                log.info("watchdog", pid=self.status["pid"], patience_s=self._charge.patience_s)
            self.status["state"] = "watching"

    async def _part(self, process: "subprocess.Popen[bytes]") -> None:
        """The session ends: send the process away, or leave it to orders that we could not cancel."""
        assert process.stdin is not None
        if not self._at_rest():
            process.stdin.close()
            log.error("watchdog_takes_over", pid=process.pid, reports=str(self._charge.folder / "watchdog"))
            return
        _write(process.stdin, GOODBYE)
        process.stdin.close()
        await _ended(process)


def _start(command: tuple[str, ...], charge: Charge) -> "subprocess.Popen[bytes]":
    """Not asyncio's own: its transport kills the process when the loop closes, and this one may have to outlive us."""
    charge.folder.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QUARTET__") and name != "CREDENTIALS_DIRECTORY"}
    root = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH", ""))))
    with (charge.folder / "watchdog.log").open("ab") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, start_new_session=True, bufsize=0
        )  # a session of its own: Ctrl-C reaches the whole terminal
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _write(pipe: IO[bytes], line: bytes) -> bool:
    """One whole line or none, without waiting; False when the process reads nothing, or is gone."""
    try:
        return os.write(pipe.fileno(), line) == len(line)
    except (BlockingIOError, BrokenPipeError):
        return False


async def _ended(process: "subprocess.Popen[bytes]") -> int:
    """Its exit code; one that does not end is killed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(EXIT_S):
            while process.poll() is None:
                await asyncio.sleep(0.02)
    process.kill()
    return process.wait()
