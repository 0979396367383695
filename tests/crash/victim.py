"""`quartet` that kills itself: `python -m tests.crash.victim COMMIT MOMENT ARGUMENT...`, where MOMENT is before, after or soon.

The journal's transactions are counted in this process; at the given one SIGKILL comes before it begins, right after it is durable, or
some milliseconds later, while what it allowed is on its way. The learner stays at home: it touches no order, and loading it takes
longer than most of these lives.
"""

import os
import signal
import sys
import threading
from typing import Any

from daemon import cli, session
from daemon.journal import Journal
from daemon.learner import NoLearner

MOMENTS = ("before", "after", "soon")
SOON_S = 0.03


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doom(commit: int, moment: str) -> None:
    """From now on the `commit`th transaction of this process is its last, or the last but what follows within `SOON_S`."""
    transact, count = Journal._transact, 0

    def counted(journal: Journal) -> None:
        nonlocal count
        count += 1
        if count == commit and moment == "before":
            die()
        transact(journal)
        if count == commit and moment == "after":
            die()
        if count == commit and moment == "soon":
            threading.Timer(SOON_S, die).start()

    Journal._transact = counted  # type: ignore[assignment, method-assign]


def main() -> int:
    commit, moment, *arguments = sys.argv[1:]
    assert moment in MOMENTS

    def at_home(*_: Any) -> NoLearner:
        return NoLearner()

    vars(session)["LearnerClient"] = at_home
    if int(commit):
        doom(int(commit), moment)
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
