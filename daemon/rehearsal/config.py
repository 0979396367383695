"""What the rehearsal exchange serves, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

TEST_KEY = "rehearsal".ljust(61, "0") + "key"
TEST_SECRET = "rehearsal".ljust(58, "0") + "secret"
"""Known to everybody; the server listens on loopback only."""


@dataclass(frozen=True, slots=True)
class RehearsalConfig:
    """What to serve. `speed` market seconds pass in a real one; `trade_rate` is prints per symbol and market second."""

    port: int = 0
    speed: float = 60.0
    seed: int = 7
    symbols: tuple[str, ...] = ()
    data: Path | None = None
    balances: Mapping[str, Decimal] = field(default_factory=lambda: {"USDT": Decimal(100_000)})
    trade_rate: float | None = None
    api_key: str = TEST_KEY
    secret: str = TEST_SECRET
    weight_limit: int = 6000
    """Request weight per minute."""
    order_limit: int = 100
    """New orders per ten seconds."""
    linger_s: float | None = None
    """How long orders and balances can still be asked for after a tape has ended; None is not at all."""
    certificate: Path | None = None
    private_key: Path | None = None
    faults: bool = False
    """Whether faults, transfers and manual orders can be asked for at /rehearsal."""
