"""`python -m daemon.rehearsal`: the rehearsal exchange as a process; greets with one JSON line on standard output."""

import argparse
import asyncio
import os
import signal
import stat
import sys
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path

import orjson

from agents.core.errors import TradingError
from daemon.rehearsal.config import RehearsalConfig
from daemon.rehearsal.server import serve

LINGER_WITH_PARENT_S = 30.0
"""A session that watches us asks for its last fills and balances after a tape's end, and then stops us itself."""


def _balance(text: str) -> tuple[str, Decimal]:
    name, _, amount = text.partition("=")
    try:
        value = Decimal(amount)
    except InvalidOperation:
        value = Decimal(-1)
    if not name or not value.is_finite() or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not CURRENCY=AMOUNT, such as USDT=100000")
    return name, value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def parse(arguments: Sequence[str] | None = None) -> RehearsalConfig:
    """Command line to configuration; exits with 2 and a sentence on bad usage."""
    parser = argparse.ArgumentParser(prog="python -m daemon.rehearsal", description="A local exchange that speaks Binance spot.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--speed", type=_positive, help="market seconds per real second (60; 1 with --data)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the synthetic market")
    parser.add_argument("--symbols", default="", help="comma-separated, such as BTC/USDT,ETH/USDT; all known ones if left out")
    parser.add_argument("--data", type=Path, help="a recorded tape to serve instead of the synthetic market")
    parser.add_argument("--balance", type=_balance, action="append", metavar="CURRENCY=AMOUNT", help="at start; USDT=100000")
    parser.add_argument("--trade-rate", type=_positive, help="trades of one symbol per market second, on average")
    parser.add_argument("--api-key", help="the key that is accepted")
    parser.add_argument("--secret", help="its secret")
    parser.add_argument("--weight-limit", type=int, help="request weight per minute")
    parser.add_argument("--order-limit", type=int, help="new orders per ten seconds")
    parser.add_argument("--linger", type=float, help="seconds that the account can still be asked after a tape's end (30 under a parent that holds standard input, else 0)")
    parser.add_argument("--certificate", type=Path, help="PEM file: serve TLS, for clients that dial the exchange's own names")
    parser.add_argument("--private-key", type=Path, help="PEM file with the certificate's key")
    parser.add_argument("--faults", action="store_true", help="open /rehearsal/faults, where faults can be switched on")
    given = parser.parse_args(arguments)
    config = RehearsalConfig(
        port=given.port,
        speed=given.speed or (60.0 if given.data is None else 1.0),
        seed=given.seed,
        symbols=tuple(symbol.strip() for symbol in given.symbols.split(",") if symbol.strip()),
        data=given.data,
        trade_rate=given.trade_rate,
        certificate=given.certificate,
        private_key=given.private_key,
        faults=given.faults,
    )
    if given.balance:
        config = replace(config, balances=dict(given.balance))
    named = {"api_key": given.api_key, "secret": given.secret, "weight_limit": given.weight_limit}
    named |= {"order_limit": given.order_limit, "linger_s": given.linger}
    return replace(config, **{name: value for name, value in named.items() if value is not None})


def _say(message: dict[str, object]) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


def _held_by_parent() -> bool:
    """Whether standard input is a pipe or socket that a parent keeps open for as long as it wants us."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


async def _run(config: RehearsalConfig) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    if _held_by_parent():
        descriptor = sys.stdin.fileno()

        def readable() -> None:
            if not os.read(descriptor, 4096):
                loop.remove_reader(descriptor)
                task.cancel()

        loop.add_reader(descriptor, readable)
    try:
        await serve(config, _say, lambda: _say({"end": True}))
    except asyncio.CancelledError:
        return


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after SIGTERM, SIGINT, the parent's end or a tape's end; 2 for what the caller must mend."""
    config = parse(arguments)
    if _held_by_parent() and config.linger_s is None:
        config = replace(config, linger_s=LINGER_WITH_PARENT_S)
    try:
        asyncio.run(_run(config))
    except TradingError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
