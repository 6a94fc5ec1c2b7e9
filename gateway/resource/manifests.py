"""Manifests, each read once as long as it stays as it is, and large ones never on the event loop.

A manifest is remembered by the identity of its file (device, inode, size, mtime, ctime), and so is that it
is broken and why: neither is read again before it changes. Within one tick of the file system's clock a
second change could leave the same times; so one that changed a moment ago is not remembered, and a large one
is believed for two seconds only and then read once more. A store through a mapping of the file changes
content and no time: what a manifest listed may then be believed until its file moves. It narrows only, and
its files are looked at themselves.

A small manifest is read where it is asked for: that takes less time than handing it to a thread. For a
large one `find` raises `UnreadError`; whoever may wait has it brought (`bring`), in a thread, by one run
however many ask, and asks again. There are two threads, so that what takes a moment never waits behind what
takes half a second. A command has nobody to hold up: with `reads_all_here` it reads every manifest itself.

What is remembered is charged what it holds and bounded; the least recently used goes first. Safe to call
from several threads: the scan reads through here as well.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from gateway.model.errors import CachegateError, Reason, Refusal, Unavailable
from gateway.model.pins import identity_of
from gateway.resource.manifest import MAX_MANIFEST_BYTES, parse_manifest
from gateway.resource.naming import MANIFEST
from gateway.resource.safe_open import inspect_regular, open_regular, raise_unavailable
from gateway.resource.slices import no_pause
from gateway.resource.unservable import finding_of, unservable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model.pins import StatIdentity
    from gateway.model.ports import Clock
    from gateway.resource.manifest import Manifest

T = TypeVar("T")

INLINE_BYTES = 16 * 1024
"""Up to here it is parsed where it is asked for: eighty files as the engine writes them, in one millisecond,
eight hundred of the shortest that there can be, in five."""

LARGE_BYTES = 256 * 1024  # beyond this it has the other thread: a thousand files and more
HELD_BYTES = (
    32 << 20
)  # of a worker's memory: four manifests of twenty thousand files, or thousands of usual ones
BROKEN_HELD_BYTES = 900  # that a manifest is broken, and why
SETTLED_SECONDS = 2.0  # hundreds of ticks of any file system's clock; FAT, the coarsest, has ticks of 2 s
WAIT_SECONDS = 4.0  # as for a file that is being hashed: the engine gives up after 5 s of silence
MAX_WAITING = 256  # manifests that are to be read; whoever asks for another is told to come again
PAUSE_SECONDS = 0.001  # between two slices of a large one: whoever waits for the interpreter gets it


class UnreadError(CachegateError):
    """A manifest is not remembered and too large to be read on the event loop."""

    def __init__(self, identity: StatIdentity) -> None:
        super().__init__("a manifest has to be read in a thread first")
        self.identity = identity


@dataclass(frozen=True, slots=True)
class _Known:
    """A manifest, or why its file holds none; `until` when it is to be read again, None: once it changed."""

    manifest: Manifest | None
    finding: str
    held_bytes: int
    read_at: float
    until: float | None


class Manifests:
    """The manifests that a process knows."""

    def __init__(self, clock: Clock, *, max_bytes: int = HELD_BYTES, reads_all_here: bool = False) -> None:
        self.reads = 0  # how many files were read so far
        self._clock = clock
        self._max_bytes = max_bytes
        self._reads_all_here = reads_all_here
        self._known: OrderedDict[StatIdentity, _Known] = OrderedDict()
        self._held_bytes = 0
        self._remembering = threading.Lock()
        self._reading_large = threading.Lock()  # one at a time, so that a second reader finds it remembered
        self._runs: dict[StatIdentity, asyncio.Task[None]] = {}
        self._small = ThreadPoolExecutor(1, "manifests-small")
        self._large = ThreadPoolExecutor(1, "manifests-large")

    @property
    def held_bytes(self) -> int:
        """What is remembered, by what it is charged."""
        return self._held_bytes

    def find(self, directory: int) -> Manifest | None:
        """The manifest of the package whose directory is open; None when there is none yet.

        Raises `Refusal(UNSERVABLE)` when what lies there is none, `UnreadError` when it has to be brought.
        """
        found = inspect_regular(MANIFEST, below=directory, may_have_other_names=True)
        if found is None:
            return None
        identity = identity_of(found)
        known = self._recall(identity)
        if known is not None:
            return _given(known)
        if INLINE_BYTES < found.st_size <= MAX_MANIFEST_BYTES and not self._reads_all_here:
            raise UnreadError(identity)
        return self.read(directory)

    def read(self, directory: int, pause: Callable[[], None] = no_pause) -> Manifest | None:
        """The same, read here and now if it is not remembered. `pause` is called between slices of it."""
        return self._read_there(directory, pause, is_passing=False)

    def read_in_passing(self, directory: int, pause: Callable[[], None] = no_pause) -> Manifest | None:
        """The same for a scan, which comes by every manifest and does not need it again.

        What is small and in order is not remembered, and what is large only where there is room: a scan of a
        large cache must not take the place of what is asked for.
        """
        return self._read_there(directory, pause, is_passing=True)

    async def bring(self, identity: StatIdentity, read: Callable[[Callable[[], None]], object]) -> None:
        """Have `read` called in a thread, unless somebody else already has for this file; wait for it.

        `read` opens the package once more and calls `self.read` with the pause that it is given: whoever
        waits may leave, and no descriptor of theirs is used then. Raises what `read` does, and `Unavailable`
        when it takes too long.
        """
        run = self._runs.get(identity)
        if run is None:
            if len(self._runs) >= MAX_WAITING:
                raise _late()
            run = self._runs[identity] = asyncio.create_task(self._bring(identity, read))
            run.add_done_callback(_retrieve)
        await asyncio.wait({run}, timeout=WAIT_SECONDS)
        if not run.done():
            raise _late()
        run.result()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Have something else done in the thread of what takes a moment: what is made of manifests."""
        return await asyncio.get_running_loop().run_in_executor(self._small, work)

    def close(self) -> None:
        """Let go of the threads; what they are at is finished behind."""
        for threads in (self._small, self._large):
            threads.shutdown(wait=False, cancel_futures=True)

    def _read_there(self, directory: int, pause: Callable[[], None], *, is_passing: bool) -> Manifest | None:
        opened = open_regular(MANIFEST, below=directory, may_have_other_names=True)
        if opened is None:
            return None
        descriptor, found = opened
        try:
            if found.st_size > MAX_MANIFEST_BYTES:
                raise unservable(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes")
            turn = self._reading_large if found.st_size > LARGE_BYTES else nullcontext()
            with turn:
                known = self._recall(identity_of(found))
                return _given(known or self._read(descriptor, found, pause, is_passing=is_passing))
        finally:
            os.close(descriptor)

    async def _bring(self, identity: StatIdentity, read: Callable[[Callable[[], None]], object]) -> None:
        threads = self._large if identity[2] > LARGE_BYTES else self._small
        try:
            await asyncio.get_running_loop().run_in_executor(threads, read, sleep_a_little)
        finally:
            del self._runs[identity]

    def _read(
        self, descriptor: int, found: os.stat_result, pause: Callable[[], None], *, is_passing: bool
    ) -> _Known:
        self.reads += 1
        identity, now = identity_of(found), self._clock.now()
        manifest, finding = None, ""
        try:
            manifest = parse_manifest(_content(descriptor, found.st_size), pause)
        except Refusal as refusal:
            finding = finding_of(refusal)
        is_settled = found.st_ctime_ns < (now - SETTLED_SECONDS) * 1e9
        known = _Known(
            manifest=manifest,
            finding=finding,
            held_bytes=BROKEN_HELD_BYTES if manifest is None else manifest.held_bytes,
            read_at=now,
            until=None if is_settled else now + SETTLED_SECONDS,
        )
        is_large = found.st_size > INLINE_BYTES
        if identity_of(os.fstat(descriptor)) != identity or not (is_settled or is_large):
            return known
        has_room = self._held_bytes + known.held_bytes <= self._max_bytes
        if manifest is None or not is_passing or (is_large and has_room):
            self._remember(identity, known)
        return known

    def _recall(self, identity: StatIdentity) -> _Known | None:
        with self._remembering:
            known = self._known.get(identity)
            if known is None:
                return None
            if known.until is not None and not known.read_at <= self._clock.now() < known.until:
                self._forget(identity)
                return None
            self._known.move_to_end(identity)
            return known

    def _remember(self, identity: StatIdentity, known: _Known) -> None:
        with self._remembering:
            self._forget(identity)
            self._known[identity] = known
            self._held_bytes += known.held_bytes
            while self._held_bytes > self._max_bytes:
                self._forget(next(iter(self._known)))

    def _forget(self, identity: StatIdentity) -> None:
        known = self._known.pop(identity, None)
        if known is not None:
            self._held_bytes -= known.held_bytes


def sleep_a_little() -> None:
    """The pause of whoever reads in a thread beside an event loop."""
    time.sleep(PAUSE_SECONDS)


def _content(descriptor: int, size: int) -> bytes:
    """All of it. One that changes meanwhile gives half a document, which does not parse."""
    pieces = []
    try:
        while size > 0 and (piece := os.read(descriptor, size)):
            pieces.append(piece)
            size -= len(piece)
    except OSError as error:
        raise_unavailable(error, "the manifest")
    return b"".join(pieces)


def _given(known: _Known) -> Manifest:
    if known.manifest is None:
        raise unservable(known.finding)
    return known.manifest


def _late() -> Unavailable:
    why = "a large manifest is still being read; it is served once it was"
    return Unavailable("cache", why, Reason.CACHE_UNAVAILABLE)


def _retrieve(run: asyncio.Task[None]) -> None:
    """Retrieve the exception, so that asyncio does not warn when every waiter has left."""
    if not run.cancelled():
        run.exception()
