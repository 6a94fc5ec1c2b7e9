"""Follow the audit log of all nodes as one consumer, with one file of cursors: at least once.

Each node is read by a thread of its own, so a node that is away or slow holds up no other. What is read goes
through one queue, a page for each node at most, to one writer. It writes a page out, and only then notes the
cursor behind it: whatever kills the process, the next one begins with what may not have been written. So a
record may come twice, by its id, and none is missed. Within a chain the order is the chain's own.

The file of cursors is replaced by renaming, readable by its owner only. A node is known in it by its name,
whatever its address becomes.
"""

from __future__ import annotations

import os
import queue
import secrets
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.model.errors import BadNameError, CachegateError, Misconfigured, Unavailable
from gateway.model.trusted_files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 30.0
LIST_SECONDS = 30.0  # between two looks at which nodes there are
MOST_FILE_BYTES = 4 << 20
MOST_NODES = 1000
END = "end"


class FollowedNode(msgspec.Struct, frozen=True):
    """A node and where it is read."""

    node: str
    url: str


class FollowedPage(msgspec.Struct, frozen=True):
    """What was read of a node: the lines, and the cursor behind them."""

    lines: Sequence[bytes]
    cursor: str
    is_at_end: bool


class NodeSource(Protocol):
    """Where the pages come from. Its calls block, and several threads use it."""

    def nodes(self) -> list[FollowedNode]:
        """The nodes to follow. Raises `Unavailable`, or `Misconfigured`."""

    def read(self, url: str, after: str | None, *, waits: bool) -> FollowedPage:
        """The next page; it waits for one that has something. Raises as `nodes`, and `BadNameError`."""


class _Cursors(msgspec.Struct):
    version: int = 1
    nodes: dict[str, str] = {}


class CursorFile:
    """The cursors of one consumer, by node."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cursors = _Cursors()

    def load(self) -> None:
        """Read the file, if there is one. Raises `Misconfigured` for one that is none of ours."""
        try:
            with self._path.open("rb") as file:
                raw = file.read(MOST_FILE_BYTES)
            self._cursors = msgspec.json.decode(raw, type=_Cursors)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Misconfigured(str(self._path), f"cannot be read ({error.strerror})") from error
        except msgspec.DecodeError as error:
            raise Misconfigured(
                str(self._path),
                "is no file of cursors. Name another one; without one, everything is read from its start",
            ) from error

    def find(self, node: str) -> str | None:
        """The cursor of a node."""
        return self._cursors.nodes.get(node)

    def save(self, node: str, cursor: str) -> None:
        """Note the cursor of a node: it is on the disk when this returns. Raises `Unavailable`."""
        if self._cursors.nodes.get(node) == cursor:
            return
        self._cursors.nodes[node] = cursor
        unfinished = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(unfinished, flags, 0o600), "wb") as file:
                file.write(msgspec.json.encode(self._cursors) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            raise Unavailable("cursors", f"{self._path} cannot be written ({error.strerror})") from error


class Follow:
    """One run. `write` writes lines out, durably enough for whoever runs it; `tell` is told of failures."""

    def __init__(
        self,
        source: NodeSource,
        cursors: CursorFile,
        write: Callable[[Sequence[bytes]], None],
        tell: Callable[[str], None],
        *,
        is_once: bool = False,
        is_from_end: bool = False,
        list_seconds: float = LIST_SECONDS,
        longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        """`is_once`: end when every node was read to its end. `is_from_end`: nothing old of a new node."""
        self._source = source
        self._cursors = cursors
        self._write = write
        self._tell = tell
        self._is_once = is_once
        self._is_from_end = is_from_end
        self._list_seconds = list_seconds
        self._longest_pause = longest_pause_seconds
        self._pages: queue.Queue[tuple[str, FollowedPage | None] | Exception] = queue.Queue(1)
        self._threads: dict[str, threading.Thread] = {}
        self._urls: dict[str, str] = {}
        self._ending = threading.Event()

    def run(self) -> None:
        """Follow until the process ends. Raises what nobody can wait for: a key or a cursor that is refused.

        With `is_once` it returns, and raises `Unavailable` for a node that does not answer.
        """
        self._cursors.load()
        self._begin_all(self._source.nodes())
        lister = threading.Thread(target=self._list, name="nodes", daemon=True)
        if not self._is_once:
            lister.start()
        left = set(self._threads)
        try:
            while left or not self._is_once:
                got = self._pages.get()
                if isinstance(got, Exception):
                    raise got
                node, page = got
                if page is None:
                    left.discard(node)
                    continue
                if page.lines:
                    self._write(page.lines)
                self._cursors.save(node, page.cursor)
        finally:
            self._ending.set()

    def _begin_all(self, nodes: list[FollowedNode]) -> None:
        if not nodes:
            raise Misconfigured("CACHEGATE_NODE_URL", "no node says where its part of the log is read")
        for one in nodes[:MOST_NODES]:
            self._urls[one.node] = one.url
            if one.node not in self._threads:
                thread = threading.Thread(target=self._read, args=(one.node,), name=one.node, daemon=True)
                self._threads[one.node] = thread
                thread.start()

    def _list(self) -> None:
        """Look for nodes that are new, or have another address."""
        while not self._ending.wait(self._list_seconds):
            try:
                self._begin_all(self._source.nodes())
            except CachegateError as error:  # what is known goes on
                self._tell(str(error))

    def _read(self, node: str) -> None:
        """Read one node for ever; what cannot be waited for ends the run."""
        after = self._cursors.find(node) or (END if self._is_from_end else None)
        pause, has_failed = FIRST_PAUSE_SECONDS, False
        while not self._ending.is_set():
            try:
                page = self._source.read(self._urls[node], after, waits=not self._is_once)
            except Unavailable as error:
                if self._is_once:
                    self._put(error)
                    return
                if not has_failed:
                    self._tell(f"{node}: {error}; it is tried again, and the others go on")
                has_failed = True
                self._ending.wait(pause)
                pause = min(2 * pause, self._longest_pause)
                continue
            except BadNameError as error:
                why = f"{node}: {error} Remove it from the file of cursors to read this node from its start."
                self._put(BadNameError(why))
                return
            except CachegateError as error:
                self._put(error)
                return
            if has_failed:
                self._tell(f"{node}: it answers again")
            pause, has_failed = FIRST_PAUSE_SECONDS, False
            after = page.cursor
            self._put((node, page))
            if self._is_once and page.is_at_end:
                self._put((node, None))
                return

    def _put(self, what: tuple[str, FollowedPage | None] | Exception) -> None:
        while not self._ending.is_set():
            with suppress(queue.Full):
                self._pages.put(what, timeout=1.0)
                return
