"""Warnings of commands that only read, about files that others could have written.

Commands that change something refuse such files instead, with the same messages (`model/trusted_files.py`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.model.trusted_files import verify_trusted
from gateway.terminal.console import say
from gateway.terminal.escaping import escape_controls

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.trusted_files import Distrusted


class Warnings:
    """Prints each cause once, on standard error. One instance for each command."""

    def __init__(self) -> None:
        self.found: list[Distrusted] = []

    def __call__(self, found: Distrusted) -> None:
        """Report a path that is not trusted; paths below it have the same cause and are not printed."""
        if all(found.culprit != one.culprit for one in self.found):
            self.found.append(found)
            say(f"warning: {escape_controls(str(found))}", style="yellow")

    def look_at(self, path: Path) -> None:
        """Check this path, if it exists."""
        with suppress(OSError):
            verify_trusted(path, on_distrust=self)
