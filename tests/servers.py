"""Real servers for tests: Redis and Mosquitto as processes of their own, on free ports of loopback, in folders of their own."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

PATIENCE_S = 10.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server process that can be killed, frozen and started again on the same port and folder."""

    def __init__(self, program: str, arguments: Sequence[str], port: int) -> None:
        found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
        if found is None:
            pytest.fail(f"{program} is not installed: `make test` installs it where it may, else install Debian's redis-server and mosquitto")
        self._command, self.port = [found, *arguments], port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        pytest.fail(f"{self._command[0]} does not listen on {self.port}")

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP makes it silent, SIGCONT lets it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; nothing if it is dead."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def redis_server(folder: Path, *arguments: str) -> Server:
    """Redis that keeps what it is told over a restart."""
    port = free_port()
    return Server(
        "redis-server",
        ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always", "--save", "", *arguments),
        port,
    )


def mosquitto(folder: Path, *lines: str) -> Server:
    """Mosquitto with these lines of configuration; anonymous clients may connect unless a line says otherwise."""
    port = free_port()
    config = folder / "mosquitto.conf"
    asked = [*lines] if any(line.startswith("allow_anonymous") for line in lines) else ["allow_anonymous true", *lines]
    config.write_text("\n".join([f"listener {port} 127.0.0.1", *asked, ""]), encoding="utf-8")
    return Server("mosquitto", ("-c", str(config)), port)
