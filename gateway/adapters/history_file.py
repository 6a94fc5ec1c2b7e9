"""Stores the newest moment of the facts that this node knows, in a small file shared by the node's processes.

A moment is generation, mark and history id. It is written before anything is acknowledged. A Redis server
that has another mark at that generation, or none, is refused. It is written under a lock, so that of two
processes that write at once the newer moment stays. A file that does not parse, or that another user could
have written, counts as an unknown history (`UNREADABLE`), which no server has: an operator must accept the
server's history before anything goes on.

Every revocation waits for this file in each node, so a note of the same history overwrites it in place: on
ext4, replacing a file takes up to 5 ms while others sync, and overwriting 0.02. The file has a fixed length
and a checksum. Readers take no lock: one that meets an unfinished write reads again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gateway.model.errors import Misconfigured, Unavailable
from gateway.model.file_lock import open_lock_file, try_lock
from gateway.model.stores import Moment
from gateway.model.trusted_files import make_own_folder, read_trusted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_FILE_BYTES = 4096
_FILE_BYTES = 192  # of a note: filled up with spaces, within one page and one sector of the disk
_READINGS = 10  # of a file that is different each time, and never whole
_HISTORY = re.compile(r"[0-9a-f]{32}")
_MARK = re.compile(r"(?:[0-9a-f]{16})?")  # empty in a file of a version that had no marks
LOCK_ATTEMPTS, LOCK_PAUSE_SECONDS = 10, 0.0005  # a write takes 0.1 ms

UNREADABLE = Moment(history="unreadable")
"""The value of a file that does not parse: a history id that no server has."""


class HistoryFile:
    """`HistoryMemory` on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: Moment | None = None
        self._is_loaded = False

    def known(self) -> Moment | None:
        """Return the newest moment that this process knows to be stored, or None if there is none."""
        return self._known if self._is_loaded else self.reload()

    def reload(self) -> Moment | None:
        """Read the file again: another process, or an operator, may have written it."""
        self._known = self.load()
        self._is_loaded = self._known is not None
        return self._known

    def note(self, moment: Moment) -> bool:
        """Store this moment. Returns whether it, or a later one of the same history, is stored now."""
        if not _HISTORY.fullmatch(moment.history) or not _MARK.fullmatch(moment.mark):
            return False
        if self._has(moment):
            return True
        self.reload()
        if self._has(moment):  # another process of this node stored it: of many processes, one writes
            return True
        with self._alone() as is_alone:
            if not is_alone:
                return False  # another process is writing, or was stopped while it wrote: try again later
            noted = self.reload()
            if noted is None or (noted.history == moment.history and _is_newer(moment, noted)):
                self._write(moment, is_present=noted is not None)
        return self._has(moment)

    def _has(self, moment: Moment) -> bool:
        known = self.known()
        return known is not None and known.history == moment.history and not _is_newer(moment, known)

    def accept(self, moment: Moment) -> None:
        """Accept this history on an operator's order, whatever was stored before.

        A server without facts has no history yet. Accepting it removes the file, as on a fresh installation.
        """
        with self._alone() as is_alone:
            if not is_alone:
                raise Unavailable("state", f"another process has held {self._path} for too long")
            if moment.history:
                self._write(moment)
            else:
                self._forget()

    def load(self) -> Moment | None:
        """Read the file; None if it does not exist."""
        before = b""
        for _ in range(_READINGS):
            try:
                content = read_trusted(self._path, max_bytes=_MAX_FILE_BYTES)
            except FileNotFoundError:
                return None
            except (OSError, Misconfigured):
                return UNREADABLE
            found = _parse(content)
            if found is not None:
                return found
            if content == before:
                break  # nobody is writing it
            before = content
        return UNREADABLE

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Hold the lock to read, compare and write; yields False if another process keeps it.

        The wait is bounded (`LOCK_ATTEMPTS`): the other process may be stopped, and this runs in the event
        loop.
        """
        try:
            make_own_folder(self._path.parent, is_private=False)
            descriptor = open_lock_file(self._path.with_suffix(".lock"))
        except OSError as error:
            raise Unavailable("state", f"{self._path} cannot be written: {error.strerror}") from error
        except Misconfigured as error:
            raise Unavailable("state", str(error)) from error
        try:
            yield _is_taken(descriptor)
        finally:
            os.close(descriptor)

    def _write(self, moment: Moment, *, is_present: bool = False) -> None:
        content = _format(moment)
        try:
            if not (is_present and self._overwrite(content)):
                self._replace(content)
        except OSError as error:
            raise Unavailable("state", f"{self._path} cannot be written: {error.strerror}") from error
        self._known, self._is_loaded = moment, True

    def _overwrite(self, content: bytes) -> bool:
        """Write over a file that was just read, by one call and within one page; return whether it was done.

        Only a file of the fixed length is overwritten, and none that a backup has linked to.
        """
        descriptor = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if status.st_size != len(content) or status.st_nlink != 1:
                return False
            return os.pwrite(descriptor, content, 0) == len(content)
        finally:
            os.close(descriptor)

    def _replace(self, content: bytes) -> None:
        unfinished = self._path.with_suffix(f".{os.getpid()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(unfinished, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        unfinished.replace(self._path)

    def _forget(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable("state", f"{self._path} cannot be removed: {error.strerror}") from error
        self._known, self._is_loaded = None, False


def _format(moment: Moment) -> bytes:
    document = {
        "history": moment.history,
        "generation": moment.generation,
        "mark": moment.mark,
        "check": _checksum(moment),
    }
    return json.dumps(document).ljust(_FILE_BYTES - 1).encode() + b"\n"


def _parse(content: bytes) -> Moment | None:
    """Parse a note; None for anything else, such as parts of two notes."""
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    match document:
        case {"history": str(history), "generation": int(generation)} if _HISTORY.fullmatch(history):
            mark = document.get("mark", "")
            if isinstance(mark, str) and _MARK.fullmatch(mark) and generation >= 0:
                moment = Moment(history=history, generation=generation, mark=mark)
                # A file of a version that always replaced it has no checksum and the length of its text.
                is_whole = document.get("check") == _checksum(moment)
                if is_whole or ("check" not in document and len(content) != _FILE_BYTES):
                    return moment
    return None


def _checksum(moment: Moment) -> str:
    text = f"{moment.history}:{moment.generation}:{moment.mark}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_taken(descriptor: int) -> bool:
    for attempt in range(LOCK_ATTEMPTS):
        if try_lock(descriptor):
            return True
        time.sleep(0 if attempt == 0 else LOCK_PAUSE_SECONDS)
    return False


def _is_newer(moment: Moment, known: Moment) -> bool:
    """Whether `moment` is later, or is the same generation with a mark where `known` has none."""
    if moment.generation == known.generation:
        return bool(moment.mark) and not known.mark
    return moment.generation > known.generation
