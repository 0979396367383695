"""The command line. Heavy rooms are imported by the command that needs them, so `quartet --help` answers at once."""

import os
import sys

import typer

from agents.core.errors import TradingError
from daemon.cli.app import app
from daemon.errors import Exit, exit_code

from daemon.cli import trading, backtesting, looking, steering, care, lookahead, evaluation, training, ablation  # isort: skip  # the help's panels stand in this order

__all__ = ["ablation", "app", "backtesting", "care", "evaluation", "lookahead", "looking", "main", "steering", "trading", "training"]


def _ours(error: BaseException) -> TradingError | None:
    """The first error of our own in a group, however deep."""
    if isinstance(error, TradingError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := _ours(inner)) is not None), None)
    return None


def _sentence(text: str) -> None:
    said = text.strip().rstrip(".")
    typer.echo(f"quartet: {said}{'' if said.endswith('?') else '.'}", err=True)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code. A user's mistake ends in one sentence, a fault of ours in a logged trace."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        result = typer.main.get_command(app).main(given or ["--help"], prog_name="quartet", standalone_mode=False)
    except typer.exceptions.TyperException as error:
        known = given and given[0] in {command.name or (command.callback or main).__name__ for command in app.registered_commands}
        _sentence(f"{error.format_message().rstrip('.')}; see `quartet {f'{given[0]} ' if known else ''}--help`")
        return Exit.USAGE
    except (KeyboardInterrupt, typer.Abort):
        _sentence("interrupted")
        return Exit.FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: the interpreter must not complain at exit
        return Exit.OK
    except Exception as error:  # noqa: BLE001 - the last line of defence: whatever it is, the user reads one sentence
        return _failed(error)
    return result if isinstance(result, int) else Exit.OK


def _failed(error: Exception) -> Exit:
    if (ours := _ours(error)) is not None:
        _sentence(str(ours))
        return exit_code(ours)
    if isinstance(error, OSError) and error.strerror:
        _sentence(f"{error.filename or 'the operating system'}: {error.strerror}")
        return Exit.FAILED
    import structlog

    if not structlog.is_configured():  # its own default prints local variables, and those may hold secrets
        from daemon import logs

        logs.configure("info", "auto")
    structlog.get_logger().exception("internal_error", error=repr(error))
    _sentence(f"internal error ({type(error).__name__}: {error}); the trace is in the log above")
    return Exit.FAILED
