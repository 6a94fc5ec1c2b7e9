"""Verify the cache: hash every file once, and agree with the fleet on the content of every blob.

It is resumable because each result is on disk as soon as it is measured: a second run reads only files that
are new or changed since, and one that was interrupted continues where it stopped. A gateway beside it uses
the same results, and neither reads a file that the other is reading.

With `again` everything is hashed whatever was measured before: for content that changed without a change of
identity, which a store through a memory mapping can do, and for disk errors.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.adapters.measurement_file import MeasurementFile
from gateway.assembly.components import build_catalogue
from gateway.model.errors import Misconfigured, Unavailable
from gateway.operations.cache.files import each_file, find_descriptor
from gateway.pinning.agreeing import agree_on_all, why
from gateway.pinning.ledger import MAX_PINS_PER_CHANGE, PinLedger
from gateway.pinning.measuring import TURN_SECONDS, Measurer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.names import Md5
    from gateway.model.pins import Measured, StatIdentity
    from gateway.operations.cache.files import CacheFile
    from gateway.operations.session import OperatorSession
    from gateway.resource.catalogue import DiskCatalogue
    from gateway.terminal.progress import Bar


@dataclass(slots=True)
class Verification:
    """The result. `unchanged` files were hashed before under the identity that they have now."""

    blobs: int = 0
    package_files: int = 0
    bytes: int = 0
    hashed: int = 0
    hashed_bytes: int = 0
    unchanged: int = 0
    pinned: int = 0
    quarantined: list[Md5] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    whys: dict[str, str] = field(default_factory=dict)  # for each of these: what is wrong
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether every file could be read, and is what it should be."""
        return not self.quarantined and not self.unreadable

    @property
    def bytes_per_second(self) -> float:
        """Throughput of what was hashed now."""
        return self.hashed_bytes / self.seconds if self.seconds else 0.0


async def verify_cache(
    session: OperatorSession, *, jobs: int, progress: Bar, again: bool = False
) -> Verification:
    """Hash new files, or all of them with `again`, `jobs` files at once, and agree on all blobs."""
    run = _Run(session, progress, again=again)
    begun_at = session.clock.monotonic()
    await run.catalogue.refresh(await session.listing.known_models())
    files = [file async for file in each_file(session.settings.cache_root, run.catalogue, run.leave_aside)]
    progress.expect(sum(file.size for file in files))
    threads = ThreadPoolExecutor(jobs, "verify")
    loop = asyncio.get_running_loop()
    try:
        # A batch is agreed on as soon as it is measured, so that an interruption loses little.
        for start in range(0, len(files), MAX_PINS_PER_CHANGE):
            batch = files[start : start + MAX_PINS_PER_CHANGE]
            measuring = (loop.run_in_executor(threads, run.measure, file) for file in batch)
            await run.agree(batch, await asyncio.gather(*measuring))
    finally:
        run.measurer.stop()
        threads.shutdown(wait=True, cancel_futures=True)
        run.measurer.close()
    run.result.hashed = run.measurer.counts.files
    run.result.unchanged = run.measured - run.result.hashed
    run.result.hashed_bytes = run.measurer.counts.bytes
    run.result.seconds = session.clock.monotonic() - begun_at
    return run.result


class _Forgotten(MeasurementFile):
    """A measurement file that ignores earlier results and replaces them."""

    def find(self, identity: StatIdentity) -> Measured | None:  # noqa: ARG002 -- no earlier result counts
        """Never finds an earlier result."""
        return None


class _Run:
    """One verification under way."""

    def __init__(self, session: OperatorSession, progress: Bar, *, again: bool) -> None:
        self.result = Verification()
        self.catalogue: DiskCatalogue = build_catalogue(session.settings, session.clock, is_command=True)
        measurements = _Forgotten if again else MeasurementFile
        self.measurer = Measurer(measurements(session.settings.pins_folder))
        self.measured = 0
        self._session = session
        self._progress = progress
        self._ledger = PinLedger(
            store=session.store,
            listing=session.listing,
            perform=session.record,
            clock=session.clock,
            actor=session.actor,
            on_pinned=self._count_pinned,
            on_quarantined=session.note_quarantine,
        )

    def leave_aside(self, md5: Md5, trouble: Exception) -> None:
        """Record a blob that cannot be processed."""
        self.result.unreadable.append(md5)
        self.result.whys[md5] = why(trouble)

    def measure(self, file: CacheFile) -> Measured | None:
        """Hash a file; None when that fails, whatever the reason. Runs in a thread."""
        try:
            measured, reason = self._measure(file), "it is gone, or changed while it was read"
        except Exception as trouble:
            is_for_all = isinstance(trouble, Unavailable) and trouble.dependency != "cache"
            if is_for_all or isinstance(trouble, Misconfigured):
                raise  # every file would fail like this one
            measured, reason = None, why(trouble)
        if measured is None:
            self.result.whys[str(file)] = reason
        return measured

    def _measure(self, file: CacheFile) -> Measured | None:
        descriptor = find_descriptor(self._session.settings.cache_root, self.catalogue, file)
        if descriptor is None:
            self._progress.advance(file.size)
            return None
        hashed = 0

        def advance(step: int) -> bool:
            nonlocal hashed
            hashed += step
            self._progress.advance(step)
            return True

        try:
            is_my_turn, measured = self.measurer.measure_here(descriptor, advance)
            while not is_my_turn and not self.measurer.is_stopped:
                time.sleep(TURN_SECONDS)  # a worker reads it now; its result will be used
                is_my_turn, measured = self.measurer.measure_here(descriptor, advance)
        finally:
            os.close(descriptor)
        self._progress.advance(file.size - hashed)
        return measured

    async def agree(self, files: Sequence[CacheFile], found: Sequence[Measured | None]) -> None:
        """Count a batch of results and agree on the blobs among them."""
        blobs: list[tuple[Md5, Measured]] = []
        for file, measured in zip(files, found, strict=True):
            self.result.bytes += file.size
            self.result.blobs += file.blob is not None
            self.result.package_files += file.blob is None
            self.measured += measured is not None
            if measured is None:
                self.result.unreadable.append(str(file))
            elif file.blob is not None:
                blobs.append((file.blob, measured))
        for md5, reason in await agree_on_all(self._ledger, blobs):
            self.result.unreadable.append(md5)
            self.result.whys[md5] = reason
        pins = await self._session.listing.find_pins([md5 for md5, _ in blobs])
        self.result.quarantined += [pin.md5 for pin in pins if pin.quarantine is not None]

    def _count_pinned(self, count: int) -> None:
        self.result.pinned += count
