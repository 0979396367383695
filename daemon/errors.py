"""The shell's own errors, and the exit code that each error ends a command with."""

from enum import IntEnum

from agents.core.errors import ConfigError, TradingError


class Exit(IntEnum):
    """Exit codes; part of the public interface and never renumbered."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    UNSAFE = 4
    TIMED_OUT = 5


class NotRunning(TradingError):
    """There is no daemon on this state folder."""


class Unsafe(TradingError):
    """Refused to keep money safe; the message says what would have to hold."""


class TimedOut(TradingError):
    """Something that must answer in time did not."""


def exit_code(error: TradingError) -> Exit:
    """The exit code for an error that ended a command."""
    match error:
        case ConfigError():
            return Exit.USAGE
        case NotRunning():
            return Exit.NOT_RUNNING
        case Unsafe():
            return Exit.UNSAFE
        case TimedOut():
            return Exit.TIMED_OUT
    return Exit.FAILED
