"""Runs `cachegate` commands, each in a process of its own that is forked from this one.

    python commands.py

Importing the command takes a second of a core, and these tests run hundreds. So it is imported once; a fork
then does what the console script does with its arguments, and ends. Standard input has one JSON array of
arguments a line, standard output one JSON object for each: exit status, when it began and had returned (on
CLOCK_MONOTONIC), what it printed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback

from gateway.cli import commands  # noqa: F401 -- it registers them, and imports what they need
from gateway.cli.main import main
from gateway.operations import session  # noqa: F401 -- the same


def run(arguments: list[str]) -> dict[str, object]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began_at = time.monotonic()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            _become_command(arguments)
        _, status = os.waitpid(child, 0)
        returned_at = time.monotonic()
        return {
            "status": os.waitstatus_to_exitcode(status),
            "began_at": began_at,
            "returned_at": returned_at,
            "out": _text_of(out),
            "err": _text_of(err),
        }


def _become_command(arguments: list[str]) -> None:
    status = 70
    try:
        main(arguments)
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    except BaseException:  # noqa: BLE001 -- a defect, as the interpreter would show it
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _text_of(file: object) -> str:
    file.seek(0)  # type: ignore[attr-defined]
    return file.read().decode()  # type: ignore[attr-defined]


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
