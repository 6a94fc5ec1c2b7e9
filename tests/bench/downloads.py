"""A thousand slow downloads at once, each by a client that reads a little and then hardly anything.

The worker's memory shows what it holds for them; its descriptors show that it releases everything; and the
audit log has to hold the outcome of each.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from processes import memory_mb, open_files
from puller import Download

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workload import Workload

RECEIVE_BUFFER = 32 << 10
FIRST_BYTES = 64 << 10
TRICKLES, TRICKLE_BYTES, PAUSE_SECONDS = 5, 4 << 10, 0.2
WAIT_SECONDS = 60.0
OF_THE_WORKER = 4  # open files that may come meanwhile and belong to no download: a connection to Redis


@dataclass(frozen=True)
class Downloads:
    """What a thousand downloads at once came to."""

    before_mb: float
    during_mb: float
    after_mb: float
    descriptors_left: int
    outcomes: int


@dataclass(frozen=True)
class Watched:
    """The worker, and where its records go."""

    pid: int
    port: int
    audit: Path

    def hold(self, workload: Workload, count: int) -> Downloads:
        """Hold so many downloads open at once; raises when they are not, or when something stays."""
        _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # the usual limit is 1024
        before_mb, descriptors = memory_mb(self.pid), len(open_files(self.pid))
        downloads: list[Download] = []
        try:
            ask = workload.whole()
            # One by one into the list, so that those which are there are closed if another fails.
            downloads.extend(Download(self.port, ask, receive_buffer=RECEIVE_BUFFER) for _ in range(count))
            most = self._trickle(downloads, workload, before_mb)
            records = {download.field("cachegate-record") for download in downloads}
        finally:
            for download in downloads:
                download.close()
        _await(
            "the descriptors of a thousand downloads", lambda: self._more_files(descriptors) <= OF_THE_WORKER
        )
        _await("their outcome records", lambda: self._outcomes(records) == count)
        return Downloads(
            before_mb=before_mb,
            during_mb=most,
            after_mb=memory_mb(self.pid),
            descriptors_left=self._more_files(descriptors),
            outcomes=self._outcomes(records),
        )

    def _more_files(self, before: int) -> int:
        return max(0, len(open_files(self.pid)) - before)

    def _trickle(self, downloads: list[Download], workload: Workload, most: float) -> float:
        """Read a little of each, then now and then a little more; the most memory meanwhile."""
        _take(downloads, FIRST_BYTES)
        held = open_files(self.pid).count(str(workload.large.blob))
        if held < len(downloads):
            raise RuntimeError(f"{held} of {len(downloads)} downloads are under way")
        for _ in range(TRICKLES):
            most = max(most, memory_mb(self.pid))
            time.sleep(PAUSE_SECONDS)
            _take(downloads, TRICKLE_BYTES)
        return max(most, memory_mb(self.pid))

    def _outcomes(self, records: set[str]) -> int:
        found = 0
        for segment in self.audit.glob("*.jsonl"):
            for line in segment.read_bytes().splitlines():
                if b'"outcome"' in line and line.endswith(b"}"):
                    found += json.loads(line).get("decision_id") in records
        return found


def _take(downloads: list[Download], more: int) -> None:
    """So many bytes more of each."""
    buffer = memoryview(bytearray(TRICKLE_BYTES))
    wanted = {id(one): one.count + more for one in downloads}
    waiting, deadline = list(downloads), time.monotonic() + WAIT_SECONDS
    while waiting:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(waiting)} downloads do not go on")
        still = []
        for download in waiting:
            try:
                while download.count < wanted[id(download)]:
                    download.take(buffer)
            except BlockingIOError:
                still.append(download)
        waiting = still
        if waiting:
            time.sleep(0.005)


def _await(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {WAIT_SECONDS:g} s")
        time.sleep(0.1)
