"""What the calls act on: markets, the account, the budget and the two clocks of one rehearsal exchange."""

from collections.abc import Callable
from dataclasses import dataclass

from daemon.rehearsal.account import Account
from daemon.rehearsal.limits import Budget
from daemon.rehearsal.market import Markets
from daemon.rehearsal.protocol import Access


@dataclass(frozen=True, slots=True)
class Venue:
    """The parts of the exchange. `real_ms` is wall-clock time; market time stands in `markets`."""

    markets: Markets
    account: Account
    budget: Budget
    access: Access
    real_ms: Callable[[], int]
    started_ms: int = 0
