"""Keep the index of the audit log up to date: in a process of its own, or once, for a command.

A worker has `main` run as a process (`assembly/audit_indexing.py`). It follows the segments until its input
ends, and tells now and then how far the index is behind. One process at a time does it, by a lock: a
command that finds nobody at it puts in order itself what is new.

Nothing waits for it. On a disk that is full it fails, says so, and tries again; requests do not.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.adapters.clock import SystemClock
from gateway.audit.folder import prepare_folder
from gateway.audit.index import Indexer, IndexReader
from gateway.audit.index.indexer import LOCK_NAME
from gateway.audit.index.lag import IndexingOrder, IndexLag
from gateway.audit.usage.rollups import SAVE_RECORDS, UsageKeeper
from gateway.model.errors import CachegateError, Misconfigured
from gateway.model.file_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model.clocks import MonotonicClock

NICE = 5  # requests come first
BUSY_SECONDS, IDLE_SECONDS = 0.01, 0.025  # between two looks: what was written is found within
BUSY_LOOKS = 100  # without anything new, until it is idle
COUNT_LOOKS = 40  # in an idle log, until what failed is tried again and what is counted is saved
TELL_SECONDS = 5.0
TIDY_SECONDS = 60.0
AGAIN_SECONDS = 1.0  # after a failure, or while another process has the lock
LINE_BYTES = 800  # of a record, about: how many records so many bytes are


def extend(folder: Path, node: str) -> bool:
    """Put in order what is new. False when another process is at it, or the folder is another user's.

    Root, who may write to any folder, leaves no files there that its owner's gateway could not go on with.
    Raises `OSError`.
    """
    if folder.stat().st_uid != os.geteuid():
        return False
    try:
        lock = FileLock(folder / LOCK_NAME)
    except Misconfigured as error:
        raise OSError(str(error)) from error
    with lock:
        if not lock.is_taken_alone():
            return False
        indexer = Indexer(folder, node)
        try:
            while indexer.step():
                pass
        finally:
            indexer.close()
    return True


class Following:
    """The index of one folder, followed. `pause` waits so long, and says whether to go on."""

    def __init__(
        self,
        folder: Path,
        node: str,
        clock: MonotonicClock,
        pause: Callable[[float], bool],
        tell: Callable[[IndexLag], None],
    ) -> None:
        self._folder = folder
        self._node = node
        self._clock = clock
        self._pause = pause
        self._tell = tell
        self._told_at = self._whole_at = clock.monotonic()

    def run(self) -> None:
        """Go on until `pause` says otherwise."""
        while True:
            try:
                prepare_folder(self._folder)
                with FileLock(self._folder / LOCK_NAME) as lock:
                    while not lock.is_taken_alone():
                        if not self._pause(AGAIN_SECONDS):
                            return
                    if not self._follow():
                        return
            except (OSError, CachegateError) as error:
                why = f"the index in {self._folder} cannot be kept up to date ({error}); check the disk"
                behind = self._clock.monotonic() - self._whole_at
                self._tell(IndexLag(seconds=behind, failed=why))
                if not self._pause(AGAIN_SECONDS):
                    return

    def _follow(self) -> bool:
        """Follow the segments; False when it is to end. Raises `OSError`."""
        indexer = Indexer(self._folder, self._node, is_thorough=True)
        usage = UsageKeeper(self._folder, IndexReader(self._folder, self._node))
        quiet, is_counted = 0, False
        tidied_at = self._clock.monotonic()
        try:
            while True:
                found = indexer.step()
                now = self._clock.monotonic()
                if not found:
                    self._whole_at = now
                if found or not is_counted or quiet < BUSY_LOOKS or quiet % COUNT_LOOKS == 0:
                    is_counted = _count(usage, now)
                if now - self._told_at >= TELL_SECONDS:
                    self._told_at = now
                    records = indexer.behind() // LINE_BYTES if found else 0
                    self._tell(IndexLag(records=records, seconds=now - self._whole_at))
                if now - tidied_at >= TIDY_SECONDS or indexer.is_reported():
                    tidied_at = now
                    indexer.tidy()
                quiet = 0 if found else quiet + 1
                seconds = BUSY_SECONDS if quiet < BUSY_LOOKS else IDLE_SECONDS
                if not self._pause(seconds if found <= MANY and is_counted else 0.0):
                    return False
        finally:
            usage.close(self._clock.monotonic())
            indexer.close()


def _count(usage: UsageKeeper, now: float) -> bool:
    """Count what is in order, for usage; whether all of it is. What fails is tried again at the next look."""
    try:
        return usage.follow(now) < SAVE_RECORDS
    except OSError:
        return True


MANY = 1000  # records in one step: it is behind


def main() -> None:
    """Read an order from the first line of standard input, and follow the log until that ends."""
    os.nice(NICE)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=IndexingOrder)

    def pause(seconds: float) -> bool:
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], seconds)
        return not readable  # it ends when the worker does, however that ended

    def tell(lag: IndexLag) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(lag) + b"\n")
        sys.stdout.buffer.flush()

    try:
        Following(Path(order.folder), order.node, SystemClock(), pause, tell).run()
    except BrokenPipeError:
        return
