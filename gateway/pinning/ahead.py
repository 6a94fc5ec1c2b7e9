"""Hash blobs before they are requested, one at a time, in the background.

One worker of a node does it: the one that gets the lock first. It lists the folder of blobs at each pass and
keeps no list: after a pass it remembers the newest change time that it saw, and the next pass hashes what
changed since. So a blob that was replaced or rewritten is found before a request reads it, and a hundred
thousand blobs cost next to no memory. Every file that the catalogue can name by digest is in that folder.

It uses at most a quarter of one core: after each step it sleeps three times as long as the step took, so that
on a busy machine it slows down by more than it slows down others. A low thread priority would be wrong: a
thread that is not scheduled while it holds the interpreter lock delays every request. It does not sleep while
a request waits for the same file.

Package files are hashed by their first reader: no pin is agreed on for them that could be found broken.

A failure of one blob, whatever is raised, is reported with the blob's name; the others are processed, and the
blob is tried again at each later pass. A failure that affects all of them, of the facts or the state folder,
ends the pass, which is then repeated.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.file_lock import FileLock
from gateway.model.names import parse_md5
from gateway.model.pins import identity_of
from gateway.model.trusted_files import make_own_folder
from gateway.pinning.agreeing import agree_on_all, why
from gateway.pinning.measuring import LARGE_BYTES
from gateway.resource.blobs import blobs_below, open_blob
from gateway.resource.naming import SHARED_BLOBS
from gateway.resource.tree import find_change_time
from gateway.resource.unservable import finding_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gateway.model.names import Md5
    from gateway.model.pins import Measured, StatIdentity
    from gateway.pinning.agreeing import Trouble
    from gateway.pinning.ledger import PinLedger
    from gateway.pinning.measuring import Measurer
    from gateway.resource.held_files import Clocks

T = TypeVar("T")

LOOK_SECONDS = 1.0  # how soon a new blob is noticed
# how soon a rewritten one is: the folder's change time does not show it, each blob has to be checked
PASS_SECONDS = 30.0
BATCH_SECONDS = 1.0  # results are agreed on together, but not delayed longer than this
BATCH_BLOBS = 200
RELIABLE_AFTER_NS = (
    2_000_000_000  # the coarsest file system time stamps: within it, the order of changes is unknown
)
MD5_BYTES = 16
MAX_AHEAD_BYTES = 1 << 40
"""A larger blob is hashed only when it is requested: a sparse file takes a moment to make and a day to hash,
and the others would wait.
"""
MAX_NAMED = 20  # blobs of one pass that are reported by name
MAX_FAILED = 10_000  # blobs that are tried again at each pass
SLEEP_PER_WORK = 3  # seconds of sleep for each second of hashing


@dataclass(slots=True)
class _Troubles:
    """The blobs that failed in one pass: the first of them, and how many there were."""

    first: list[Trouble] = field(default_factory=list)
    count: int = 0

    def add(self, md5: Md5, reason: str) -> None:
        self.count += 1
        if len(self.first) < MAX_FAILED:
            self.first.append((md5, reason))


class PinningAhead:
    """Finds blobs that are not pinned, and pins them."""

    def __init__(
        self,
        *,
        root: Path,
        lock_file: Path,
        measurer: Measurer,
        ledger: PinLedger,
        clock: Clocks,
        on_failure: Callable[[Unavailable], None],
        on_items_failed: Callable[[Sequence[tuple[str, str]], int], None],
    ) -> None:
        self._root = root
        self._lock_file = lock_file
        self._measurer = measurer
        self._ledger = ledger
        self._clock = clock
        self._on_failure = on_failure
        self._on_items_failed = on_items_failed
        self._thread = ThreadPoolExecutor(1, "pin-ahead")
        self._stamp: tuple[int, int] | None = None
        self._newest_ns = 0
        self._again: set[Md5] = set()  # blobs that changed while they were read
        self._told = ""  # the last failure reported, while it persists
        self._failed: set[Md5] = set()  # blobs that failed in the last pass

    async def run(self) -> None:
        """Run until cancelled, once no other worker of this node holds the lock."""
        make_own_folder(self._lock_file.parent)
        with FileLock(self._lock_file) as lock:
            while not lock.is_taken_alone():  # noqa: ASYNC110 -- another process lets go of it
                await asyncio.sleep(LOOK_SECONDS)
            next_pass = self._clock.monotonic()
            while True:
                try:
                    if await self._in_thread(self._has_moved) or self._clock.monotonic() >= next_pass:
                        await self.look()
                        next_pass = self._clock.monotonic() + PASS_SECONDS
                        self._told = ""
                except Unavailable as failure:
                    self._tell(failure)
                except Refusal as refusal:
                    self._tell(Unavailable("cache", finding_of(refusal), Reason.NOT_PINNED))
                await asyncio.sleep(LOOK_SECONDS)

    def _tell(self, failure: Unavailable) -> None:
        """Report a failure once while it stays the same: this is called every second."""
        if self._told != failure.why:
            self._told = failure.why
            self._on_failure(failure)

    async def look(self) -> None:
        """One pass: pin blobs that are new or changed since the last pass."""
        again, self._again, self._failed = self._again | self._failed, set(), set()
        try:
            await self._pass(again)
        except BaseException:
            self._again |= again  # not all of them have been tried
            raise

    async def _pass(self, again: set[Md5]) -> None:
        troubles = _Troubles()
        waiting, newest_ns = await self._in_thread(lambda: self._list(again, troubles))
        try:
            while waiting:
                found = await self._in_thread(lambda: self._measure_some(waiting, troubles))
                for md5, reason in await agree_on_all(self._ledger, found):
                    troubles.add(md5, reason)
        finally:
            if troubles.count:
                self._failed |= {md5 for md5, _ in troubles.first}
                self._on_items_failed(troubles.first[:MAX_NAMED], troubles.count)
        self._newest_ns = newest_ns  # only now: a pass that failed is repeated

    def close(self) -> None:
        """To be called after `run` was cancelled and the measurer stopped."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _has_moved(self) -> bool:
        before, self._stamp = self._stamp, find_change_time(self._root, SHARED_BLOBS)
        return self._stamp != before or bool(self._again)

    def _list(self, again: set[Md5], troubles: _Troubles) -> tuple[bytearray, int]:
        """The digests of the blobs to hash in this pass, concatenated: 16 bytes each.

        They are taken from the end: first the small blobs, then large ones, the smallest first.
        """
        since, newest = self._newest_ns - RELIABLE_AFTER_NS, self._newest_ns
        # A change time in the future, by another machine's clock, says nothing about later changes.
        latest = int(self._clock.now() * 1e9)
        waiting = bytearray()
        large: list[tuple[int, Md5]] = []
        for md5, identity in blobs_below(self._root, lambda md5, odd: troubles.add(md5, why(odd))):
            changed_ns = identity[4]
            newest = max(newest, min(changed_ns, latest))
            if changed_ns >= since or md5 in again:
                if identity[2] > LARGE_BYTES:
                    large.append((identity[2], md5))
                else:
                    waiting += bytes.fromhex(md5)
        ordered = sorted(large, reverse=True)
        return bytearray(b"".join(bytes.fromhex(md5) for _, md5 in ordered)) + waiting, newest

    def _measure_some(self, waiting: bytearray, troubles: _Troubles) -> list[tuple[Md5, Measured]]:
        found: list[tuple[Md5, Measured]] = []
        deadline = self._clock.monotonic() + BATCH_SECONDS
        while waiting and len(found) < BATCH_BLOBS and self._clock.monotonic() < deadline:
            md5 = parse_md5(waiting[-MD5_BYTES:].hex())
            del waiting[-MD5_BYTES:]
            try:
                measured = self._measure(md5)
            except Exception as trouble:
                if isinstance(trouble, Unavailable) and trouble.dependency != "cache":
                    raise  # every blob would fail like this one
                troubles.add(md5, why(trouble))
                continue
            if measured is not None:
                found.append((md5, measured))
        return found

    def _measure(self, md5: Md5) -> Measured | None:
        descriptor = open_blob(self._root, md5)
        if descriptor is None:
            return None
        try:
            identity = identity_of(os.fstat(descriptor))
            if identity[2] > MAX_AHEAD_BYTES:
                too_large = (
                    f"it is larger than {MAX_AHEAD_BYTES} bytes and is hashed when somebody asks for it"
                )
                raise Unavailable("cache", too_large, Reason.NOT_PINNED)
            throttle = self._throttle(identity)
            _, measured = self._measurer.measure_here(descriptor, throttle)
        finally:
            os.close(descriptor)
        if measured is None:
            self._again.add(md5)
        return measured

    def _throttle(self, identity: StatIdentity) -> Callable[[int], bool]:
        begun_at = self._clock.monotonic()

        def pause(_step: int) -> bool:
            nonlocal begun_at
            if not self._measurer.is_awaited(identity):
                time.sleep(SLEEP_PER_WORK * (self._clock.monotonic() - begun_at))
            begun_at = self._clock.monotonic()
            return True

        return pause
