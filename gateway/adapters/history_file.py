"""The last seen history of the facts, in a small file of the state folder: shared by this node's processes.

It is replaced as a whole. Two processes that write at once may leave the smaller of two generations
that both were seen a moment ago; the next renewal mends that. A file that does not parse counts as a
history that nobody knows, which an operator has to accept.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

_HISTORY = re.compile(r"[0-9a-f]{32}")


class HistoryFile:
    """`HistoryMemory` on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[str, int] | None = None

    def accepts(self, history: str, generation: int) -> bool:
        """Whether this goes on where the last one was; the first one ever seen does."""
        if self._seen is not None and self._seen[0] == history and generation >= self._seen[1]:
            return True
        self._seen = self.load()
        return self._seen is None or (self._seen[0] == history and generation >= self._seen[1])

    def note(self, history: str, generation: int) -> None:
        """Remember having seen this. Writes only when it moved."""
        if not _HISTORY.fullmatch(history) or self._seen == (history, generation):
            return
        known = self.load()
        if known is None or (known[0] == history and generation > known[1]):
            self._write(history, generation)
        self._seen = (history, generation)

    def accept(self, history: str, generation: int) -> None:
        """An operator's word: from now on this is the history, whatever was seen before."""
        self._write(history, generation)
        self._seen = (history, generation)

    def load(self) -> tuple[str, int] | None:
        """What was seen last; None where nothing was. A file that does not parse matches nothing."""
        try:
            document = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return "", 0
        history, generation = document.get("history"), document.get("generation")
        if not isinstance(history, str) or not isinstance(generation, int):
            return "", 0
        return history, generation

    def _write(self, history: str, generation: int) -> None:
        unfinished = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished.write_text(json.dumps({"history": history, "generation": generation}) + "\n")
            unfinished.replace(self._path)
        except OSError as error:
            raise Unavailable("state", f"{self._path} cannot be written: {error.strerror}") from error
