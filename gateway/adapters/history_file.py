"""The last seen history of the facts, in a small file of the state folder: shared by this node's processes.

It is replaced as a whole. Two processes that write at once may leave the smaller of two generations
that both were seen a moment ago; the next renewal mends that. A file that does not parse counts as a
history that nobody knows, which an operator has to accept: it is no reason to trust what is there. So
does one that somebody else could have written.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.model.errors import Misconfigured, Unavailable
from gateway.model.trusted_files import make_own_folder, read_trusted

if TYPE_CHECKING:
    from pathlib import Path

_MAX_FILE_BYTES = 4096  # some sixty are written
_HISTORY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A history id and the highest generation of it."""

    history: str
    generation: int

    def goes_on_as(self, history: str, generation: int) -> bool:
        """Whether this is the same history, and no older."""
        return self.history == history and generation >= self.generation


UNREADABLE = Seen(history="unreadable", generation=0)
"""What a file that does not parse says: a name that no history has."""


class HistoryFile:
    """`HistoryMemory` on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Seen | None = None

    def accepts(self, history: str, generation: int) -> bool:
        """Whether this goes on where the last one was; the first one ever seen does."""
        if self._seen is not None and self._seen.goes_on_as(history, generation):
            return True
        self._seen = self.load()
        return self._seen is None or self._seen.goes_on_as(history, generation)

    def note(self, history: str, generation: int) -> None:
        """Remember having seen this. Writes only when it moved."""
        now = Seen(history=history, generation=generation)
        if not _HISTORY.fullmatch(history) or self._seen == now:
            return
        known = self.load()
        if known is None or (known != now and known.goes_on_as(history, generation)):
            self._write(now)
        self._seen = now

    def accept(self, history: str, generation: int) -> None:
        """An operator's word: from now on this is the history, whatever was seen before.

        A server without facts has no history yet. It is accepted by forgetting, as on a first day.
        """
        if history:
            self._write(Seen(history=history, generation=generation))
        else:
            self._forget()
        self._seen = None

    def load(self) -> Seen | None:
        """What was seen last; None where nothing was."""
        try:
            document: Any = json.loads(read_trusted(self._path, max_bytes=_MAX_FILE_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, Misconfigured, ValueError, RecursionError):
            return UNREADABLE
        match document:
            case {"history": str(history), "generation": int(generation)} if _HISTORY.fullmatch(history):
                return Seen(history=history, generation=generation)
        return UNREADABLE

    def _write(self, seen: Seen) -> None:
        unfinished = self._path.with_suffix(f".{os.getpid()}")
        document = {"history": seen.history, "generation": seen.generation}
        try:
            make_own_folder(self._path.parent, is_private=False)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(unfinished, flags, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(document) + "\n")
            unfinished.replace(self._path)
        except OSError as error:
            raise Unavailable("state", f"{self._path} cannot be written: {error.strerror}") from error
        except Misconfigured as error:
            raise Unavailable("state", str(error)) from error

    def _forget(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable("state", f"{self._path} cannot be removed: {error.strerror}") from error
