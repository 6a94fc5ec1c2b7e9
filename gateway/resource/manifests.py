"""Cache of parsed manifests, which reads large manifests in threads and never on the event loop.

An entry is keyed by the identity of the manifest's file (device, inode, size, mtime, ctime). That a manifest
is broken, and why, is cached too: neither is read again before the file changes. Within one tick of the file
system's clock a second change could leave the same times; so a small manifest that changed a moment ago is
not cached, and a large one is cached for two seconds only. A store through a memory mapping of the file
changes content and no time: the old list of files may then be used until the file's identity changes. A
manifest only narrows what is served, and its files are checked on disk themselves.

A small manifest is read where it is asked for: that takes less time than handing it to a thread. For a large
one `find` raises `UnreadError`; a caller that may wait has it read in a thread (`gather`), by one run for all
callers, and asks again. There are two threads, so that a short read never waits behind one of half a second.
A command has no event loop to keep free: with `reads_all_here` it reads every manifest itself.

Entries are charged by their size, and the total is bounded; the least recently used is dropped first. Safe to
call from several threads: the scan reads through this cache as well.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec

from gateway.model.errors import CachegateError, Reason, Refusal, Unavailable
from gateway.model.pins import identity_of
from gateway.model.singleflight import Singleflight, checked_by_callers
from gateway.resource.manifest import MAX_MANIFEST_BYTES, parse_manifest
from gateway.resource.naming import MANIFEST
from gateway.resource.safe_open import inspect_regular, open_regular, raise_unavailable
from gateway.resource.slices import no_pause
from gateway.resource.unservable import finding_of, unservable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model.clocks import Clock
    from gateway.model.pins import StatIdentity
    from gateway.resource.manifest import Manifest

T = TypeVar("T")

INLINE_BYTES = 16 * 1024
"""Up to here it is parsed where it is asked for: eighty files as the engine writes them, in one millisecond,
or eight hundred of the shortest possible, in five.
"""

LARGE_BYTES = 256 * 1024  # beyond this it is read in the other thread: a thousand files and more
HELD_BYTES = (
    32 << 20
)  # of a worker's memory: four manifests of twenty thousand files, or thousands of usual ones
BROKEN_HELD_BYTES = 900  # for the entry of a broken manifest, with the reason
RELIABLE_AFTER_SECONDS = 2.0  # hundreds of ticks of a file system's clock; FAT, the coarsest, has 2 s
WAIT_SECONDS = 4.0  # as for a file that is being hashed: the engine gives up after 5 s of silence
MAX_WAITING = 256  # manifests waiting to be read; beyond it a caller gets `Unavailable`
PAUSE_SECONDS = 0.001  # between two slices of a large one, so that other threads get the interpreter lock


class UnreadError(CachegateError):
    """A manifest is not cached and too large to be read on the event loop."""

    def __init__(self, identity: StatIdentity) -> None:
        super().__init__("a manifest has to be read in a thread first")
        self.identity = identity


class _Known(msgspec.Struct, frozen=True):
    """A manifest, or why its file holds none. `until` is when it expires; None: when the file changes."""

    manifest: Manifest | None
    finding: str
    held_bytes: int
    read_at: float
    until: float | None


class Manifests:
    """The cached manifests of a process.

    Not a `BoundedMemory`, which is for one thread: manifests are read, and remembered, in threads.
    """

    def __init__(self, clock: Clock, *, max_bytes: int = HELD_BYTES, reads_all_here: bool = False) -> None:
        self.reads = 0  # how many files were read so far
        self._clock = clock
        self._max_bytes = max_bytes
        self._reads_all_here = reads_all_here
        self._known: OrderedDict[StatIdentity, _Known] = OrderedDict()
        self._held_bytes = 0
        self._remembering = threading.Lock()
        self._reading_large = threading.Lock()  # one at a time, so that a second reader finds it cached
        # What a run read is found by its file's identity: nothing overtakes it.
        self._runs: Singleflight[StatIdentity, None] = Singleflight(checked_by_callers)
        self._small = ThreadPoolExecutor(1, "manifests-small")
        self._large = ThreadPoolExecutor(1, "manifests-large")

    @property
    def held_bytes(self) -> int:
        """The charged size of all entries."""
        return self._held_bytes

    def find(self, directory: int) -> Manifest | None:
        """The manifest of the package whose directory is open; None when there is none yet.

        Raises `Refusal(UNSERVABLE)` when the file is no valid manifest, `UnreadError` when `gather` has to
        read it.
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
        """Like `find`, but read in this thread if it is not cached.

        `pause` is called between slices of the work.
        """
        return self._read_there(directory, pause, is_passing=False)

    def read_in_passing(self, directory: int, pause: Callable[[], None] = no_pause) -> Manifest | None:
        """Like `read`, for a scan, which reads every manifest and does not need it again.

        A small valid manifest is not cached, and a large one only where there is room: a scan of a large
        cache must not evict what requests use.
        """
        return self._read_there(directory, pause, is_passing=True)

    async def gather(self, identity: StatIdentity, read: Callable[[Callable[[], None]], object]) -> None:
        """Have `read` called in a thread, unless a run for this file is under way already, and wait for it.

        `read` opens the package again and calls `self.read` with the pause that it is given: a waiting caller
        may be cancelled, so its descriptor is not used. Raises what `read` raises, and `Unavailable` when it
        takes too long.
        """
        if identity not in self._runs and len(self._runs) >= MAX_WAITING:
            raise _late()
        limit = asyncio.timeout(WAIT_SECONDS)
        try:
            async with limit:
                await self._runs.run(identity, partial(self._bring, identity, read))
        except TimeoutError:
            if not limit.expired():
                raise
            raise _late() from None

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run other work on manifests in the thread for small ones."""
        return await asyncio.get_running_loop().run_in_executor(self._small, work)

    def close(self) -> None:
        """Shut the threads down without waiting; work under way still finishes."""
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
        await asyncio.get_running_loop().run_in_executor(threads, read, sleep_a_little)

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
        is_reliable = found.st_ctime_ns < (now - RELIABLE_AFTER_SECONDS) * 1e9
        known = _Known(
            manifest=manifest,
            finding=finding,
            held_bytes=BROKEN_HELD_BYTES if manifest is None else manifest.held_bytes,
            read_at=now,
            until=None if is_reliable else now + RELIABLE_AFTER_SECONDS,
        )
        is_large = found.st_size > INLINE_BYTES
        if identity_of(os.fstat(descriptor)) != identity or not (is_reliable or is_large):
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
    """The pause of work in a thread beside an event loop."""
    time.sleep(PAUSE_SECONDS)


def _content(descriptor: int, size: int) -> bytes:
    """The whole content. A file that changes meanwhile gives half a document, which does not parse."""
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
