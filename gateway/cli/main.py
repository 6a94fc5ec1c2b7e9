"""The command line: runs one command, and maps errors to exit statuses.

    0 done   1 the answer is no   2 usage or configuration   3 a dependency is not there

A user's mistake is printed as one clear line, without a traceback. A defect of ours still prints one: hiding
it would not help.

Logs go to standard error in every command: standard output holds data only, and a script parses it.
"""

from __future__ import annotations

import gc
import logging
import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from typer import Abort, Exit
from typer.exceptions import TyperException
from typer.main import get_command

from gateway.cli.application import app, new_application
from gateway.cli.index import COMMANDS, register, register_lines
from gateway.cli.local_commands import say_where
from gateway.configuration.completion import completed_words
from gateway.model.errors import BadNameError, Conflict, Misconfigured, Refusal, Unavailable
from gateway.terminal.console import OutputError, print_mistake

if TYPE_CHECKING:
    from collections.abc import Sequence

LINES = ""
DONE, ANSWER_IS_NO, USAGE, NOT_THERE = 0, 1, 2, 3

TAKES_SEVERAL = frozenset(
    {"--models", "--packages", "--actions", "--scopes", "--networks", "--groups", "--digests"}
)
"""Options that take every word up to the next option: `--models acme/cars/1 acme/trucks/*`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:  # noqa: PLR0911 -- the table of exit statuses, one line each
    """Run one command; returns the exit status."""
    try:
        try:
            parser = _parser(_wanted(arguments or completed_words()))
        finally:
            gc.enable()  # off while a command is imported (`entry.py`)
        _configure_logs()
        say_where(arguments)
        result = parser(spread(arguments), prog_name="cachegate", standalone_mode=False)
    except TyperException as error:
        return _usage(error)
    except Exit as ending:
        return ending.exit_code
    except Conflict as error:
        return _mistake(str(error), ANSWER_IS_NO)
    except (Misconfigured, BadNameError) as error:
        return _mistake(str(error), USAGE)
    except Refusal as error:
        return _mistake(f"refused: {error.reason.explanation}", ANSWER_IS_NO)
    except Unavailable as error:
        return _mistake(str(error), NOT_THERE)
    except OutputError as error:
        return _mistake(str(error), ANSWER_IS_NO)
    except (Abort, KeyboardInterrupt):
        return _mistake("interrupted", 130)
    except BrokenPipeError:  # the reader of our pipe closed it
        sys.stderr.close()
        return DONE
    return result if isinstance(result, int) else DONE


def _configure_logs() -> None:
    """Send logs to standard error before a command runs.

    structlog's default prints on standard output, in the middle of --json. A command that did not import it
    by now logs nothing with it, and starts the sooner.
    """
    if "structlog" in sys.modules:
        from gateway.telemetry import configure_logs  # noqa: PLC0415 -- it imports structlog

        configure_logs(is_terminal=sys.stderr.isatty())
    else:
        form = "%(asctime)s %(name)s %(levelname)s %(message)s"
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=form)


@cache
def _parser(command: str) -> Any:
    """The parser of one command, made once: a process may run many.

    Only what this command needs is imported. `LINES` stands for the help, which needs none of them, and a
    name that is not in the index for all of them: they say what is nearest.
    """
    if command == LINES:
        made = new_application()
        register_lines(made)
    elif command in COMMANDS:
        made = new_application()
        register(made, command)
    else:
        from gateway.cli import commands  # noqa: PLC0415, F401 -- importing registers all of them

        made = app
    return get_command(made)


def _wanted(words: Sequence[str]) -> str:
    """The name of the command that is asked for, or `LINES` for the help."""
    return next((word for word in words if not word.startswith("-")), LINES)


def spread(arguments: Sequence[str]) -> list[str]:
    """Repeat an option that takes several words before each of them, as the parser expects."""
    spread_out: list[str] = []
    option: str | None = None
    words = 0
    for position, word in enumerate(arguments):
        if word == "--":
            return spread_out + list(arguments[position:])
        if word.startswith("-") and word != "-":
            option, words = (word if word in TAKES_SEVERAL else None), 0
            spread_out.append(word)
            continue
        if option is not None:
            words += 1
            if words > 1:
                spread_out.append(option)
        spread_out.append(word)
    return spread_out


def _usage(error: TyperException) -> int:
    """Print the parser's own error, with the usage line or the help."""
    # Every error of the parser has this method, but the public class that they share does not declare it.
    error.show()  # type: ignore[attr-defined]
    return USAGE


def _mistake(text: str, status: int) -> int:
    with suppress(OSError):  # standard error cannot be written either
        print_mistake(text)
    return status
