"""What can go wrong, by name, and how often. Each seed takes a part of it, some of it rarely and some of it often."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from agents.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble. `rate` is a probability per message where `each` says so, else episodes in ten minutes."""

    name: str
    sentence: str
    rate: float
    each: bool = False
    longest_s: float = 0.0
    """Episodes last up to so long."""


CATALOGUE: tuple[Fault, ...] = (
    # requests
    Fault("late_answer", "A request is carried out, and its answer never comes.", 0.02, each=True),
    Fault("lost_request", "A request never arrives.", 0.02, each=True),
    Fault("delayed_request", "A request arrives seconds late, after the client may have given up.", 0.01, each=True),
    Fault("reset", "The connection is reset before or after a request was carried out.", 0.02, each=True),
    Fault("empty_answer", "HTTP 200 without a body, whether or not the request was carried out.", 0.01, each=True),
    Fault("unknown_outcome", "HTTP 503 with code -1007 or 504: the exchange does not know itself.", 0.01, each=True),
    Fault("server_error", "HTTP 500, 502 or a 403 page, whether or not the request was carried out.", 0.01, each=True),
    Fault("overloaded", "HTTP 503 with code -1008: not carried out.", 0.01, each=True),
    Fault("bare_answers", "Answers to new orders lack status, quantities and fills.", 0.2, each=True),
    Fault("lagging_lookups", "Orders, trades and balances show up in queries seconds after the fact.", 3.0, longest_s=60.0),
    Fault("unfilled_cancel", "Records of cancelled orders say that nothing was filled.", 3.0, longest_s=60.0),
    Fault("throttled", "429, then 418: every request is refused until Retry-After has passed.", 1.5, longest_s=40.0),
    Fault("bad_key", "The exchange refuses the key for a while.", 0.3, longest_s=30.0),
    Fault("outage", "Nothing can be reached, and open lines break.", 1.5, longest_s=30.0),
    # streams
    Fault("disconnects", "All websockets break.", 3.0),
    Fault("silence", "One websocket says nothing more, and still answers pings.", 2.0, longest_s=40.0),
    Fault("lost_frames", "Frames of the market streams are missing.", 0.003, each=True),
    Fault("malformed_frames", "Frames of the market streams cannot be read.", 0.0005, each=True),
    Fault("repeated_frames", "Frames of the market streams come twice.", 0.01, each=True),
    Fault("crossed_books", "The streamed book is crossed for some seconds.", 2.0, longest_s=8.0),
    Fault("private_lost", "Events of the account are missing.", 0.1, each=True),
    Fault("private_repeated", "Events of the account come twice.", 0.05, each=True),
    Fault("private_delayed", "Events of the account come seconds late, and so out of order.", 0.05, each=True),
    # the machine and the people
    Fault("crashes", "The process is killed between any two steps.", 2.0),
    Fault("commit_crashes", "The process is killed in the middle of a commit, before or after it.", 1.0),
    Fault("stops", "The session is stopped in order, and started again.", 0.5),
    Fault("stalls", "The process stands still for up to some seconds.", 3.0, longest_s=6.0),
    Fault("disk_full", "Nothing can be written.", 0.7, longest_s=20.0),
    Fault("clock", "The machine's clock or the exchange's is set to another time.", 1.0),
    Fault("operator", "Halt, resume, flatten, cancel-all.", 1.5),
    Fault("owner", "The account's owner trades by hand, deposits, withdraws, and gets coins that nothing explains.", 2.0),
    Fault("learner", "The learner dies, hangs, or sends weights that must not serve.", 1.0),
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in CATALOGUE}
EXTENT = (0.5, 1.0, 1.0, 2.0)
"""Factors on the rates that a seed may draw."""
SHARE = 0.65
"""Part of the asked-for faults that a seed takes."""


def named(text: str) -> tuple[Fault, ...]:
    """`all`, `none`, or names with commas. Raises ConfigError for a name that is not in the catalogue."""
    if text in ("all", ""):
        return CATALOGUE
    if text == "none":
        return ()
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in BY_NAME:
            raise ConfigError(f"--faults: there is no fault {name!r}; there are all, none, {', '.join(BY_NAME)}")
    return tuple(fault for fault in CATALOGUE if fault.name in names)


class Plan:
    """Which faults one seed has, and how much of each."""

    def __init__(self, faults: Iterable[Fault], rng: random.Random, *, all_of_them: bool = False) -> None:
        self._extent: dict[str, float] = {}
        for fault in faults:
            taken, extent = rng.random() < SHARE, rng.choice(EXTENT)
            if taken or all_of_them:
                self._extent[fault.name] = extent
        self.calm = False
        """Set for the end of a run: nothing goes wrong any more."""

    def __contains__(self, name: str) -> bool:
        return name in self._extent

    @property
    def names(self) -> list[str]:
        """The faults of this seed."""
        return list(self._extent)

    def rate(self, name: str) -> float:
        """The fault's rate under this plan; 0 where it is not taken or all is calm."""
        return 0.0 if self.calm else BY_NAME[name].rate * self._extent.get(name, 0.0)
