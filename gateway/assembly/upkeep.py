"""Everything that a worker runs beside requests, from its start to its end.

It follows changes of facts, scans the disk, watches lease and transfers, keeps the audit log, and stores last
uses. No request waits for any of it. A dependency that fails is counted and tried again. An unexpected
exception ends the background task (chore) in which it is raised; it is logged and the task restarted
(`chores.py`); the worker is not ready while one is down. At the end everything is closed, and a failure to
close one thing does not keep the others from being closed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.audit.record import ModeRecord, WorkerRecord
from gateway.chores import Chores
from gateway.directory.reading.key_usage import note_credential_marks, note_last_uses
from gateway.model.errors import Refusal, Unavailable
from gateway.model.recorded import recorded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from gateway.adapters.clock import SystemClock
    from gateway.adapters.redis_feed import RedisFeed
    from gateway.adapters.redis_store import RedisStore
    from gateway.assembly.canary import Canary
    from gateway.assembly.stamp_watch import StampWatch
    from gateway.audit.grouped_log import GroupedLog
    from gateway.audit.log import AuditLog
    from gateway.audit.record import Event
    from gateway.directory.memory.follower import Follower
    from gateway.directory.memory.near_facts import NearFacts
    from gateway.directory.reading.reader import DirectoryReader
    from gateway.identity.last_uses import LastUses
    from gateway.model.bounded_memory import BoundedMemory
    from gateway.model.names import ModelId
    from gateway.pinning.ahead import PinningAhead
    from gateway.pinning.checks import PinChecks
    from gateway.resource.catalogue import DiskCatalogue
    from gateway.telemetry import Telemetry
    from gateway.transfers import Transfers

HOUSEKEEPING_SECONDS = 1.0  # summaries and signed heads become due by time alone
LEASE_WATCH_SECONDS = 0.1
START_PATIENCE_SECONDS = 5.0
SCAN_PATIENCE_SECONDS = 2.0  # a large cache is scanned beside requests: only lists of models have to wait
DISK_WATCHES_PER_SCAN = 4  # cheap checks between two scans, for models that were added or removed
SWEEP_SECONDS = 5.0  # how long what is no longer current stays in memory, and is charged there
NORMAL, NO_LEASE, UNKNOWN_HISTORY = "mode.normal", "mode.no-lease", "mode.unknown-history"
SENTINELS_SECONDS = 30.0  # between two checks whether all of them answer
LAST_USE_SECONDS = 5.0  # how late `keys list` may know of a use


@dataclass(slots=True, kw_only=True)
class Upkeep:
    """The background tasks of one worker."""

    worker: str
    clock: SystemClock
    store: RedisStore
    facts: NearFacts
    follower: Follower
    feed: RedisFeed
    directory: DirectoryReader
    catalogue: DiskCatalogue
    recorder: AuditLog | GroupedLog
    transfers: Transfers
    last_uses: LastUses
    pins: PinChecks
    pinning_ahead: PinningAhead | None
    canary: Canary | None
    settling: StampWatch
    scan_seconds: float
    telemetry: Telemetry
    at_the_end: tuple[Callable[[], Awaitable[None]], ...] = ()  # further functions that close things
    at_the_start: tuple[Callable[[], Awaitable[None]], ...] = ()  # before the first request
    more_chores: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = ()  # further ones that run for ever
    memories: tuple[BoundedMemory[Any, Any], ...] = ()
    has_policy: bool = False
    chores: Chores = field(init=False)
    _has_looked: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _cache_problem: str | None = field(default=None, init=False)
    _mode: str = field(default=NORMAL, init=False)
    _silent: tuple[str, ...] = field(default=(), init=False)
    _known: tuple[int, frozenset[ModelId]] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Make the background tasks' supervisor, which reports failures by the task's name."""
        self.chores = Chores(self.telemetry.chore_failed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run everything that is needed while requests are served; close all of it afterwards."""
        chores = self.chores
        chores.keep("feed", lambda: self.feed.run(self.follower))
        await self._await_lease()
        chores.keep("disk", self._watch_disk)
        with suppress(TimeoutError):  # a large cache is scanned beside requests
            async with asyncio.timeout(SCAN_PATIENCE_SECONDS):
                await self._has_looked.wait()
        await self._look_at_facts()
        chores.keep("transfers", self.transfers.watch)
        chores.every("lease", LEASE_WATCH_SECONDS, self._watch_lease)
        chores.every("policy", HOUSEKEEPING_SECONDS, self._look_at_facts)
        chores.every("audit", HOUSEKEEPING_SECONDS, self._keep_audit)
        if self.canary is not None:
            chores.keep("canary", self.canary.measure)
        chores.keep("settling", self.settling.run)
        if self.store.place.is_asked_for:
            chores.keep("sentinels", self._watch_sentinels)
        chores.every("last-uses", LAST_USE_SECONDS, self._note_last_uses)
        chores.every("memories", SWEEP_SECONDS, self.sweep_memories)
        if self.pinning_ahead is not None:
            chores.keep("pin-ahead", self.pinning_ahead.run)
        for prepare in self.at_the_start:
            await prepare()
        for name, run in self.more_chores:
            chores.keep(name, run)
        self._note_worker("started")
        try:
            yield
        finally:
            await self._end()

    async def _end(self) -> None:
        """Close everything, in this order. The audit log is closed after all that may record."""
        await self.chores.close()
        await self._close(self.pins.close)
        for release in self.at_the_end:
            await self._close(release)
        if self.pinning_ahead is not None:
            await self._close(self.pinning_ahead.close)
        await self._close(self.catalogue.close)
        await self._close(self._note_last_uses)
        await self._close(self._leave_register)
        await self._close(lambda: self._note_worker("stopped"))
        await self._close(self.recorder.close)
        self.telemetry.lines.end()
        await self._close(self.store.close)

    async def _close(self, release: Callable[[], Awaitable[None] | None]) -> None:
        try:
            waiting = release()
            if waiting is not None:
                await waiting
        except Unavailable as failure:
            self.telemetry.failed(failure)
        except Exception as defect:  # noqa: BLE001 -- the others have to be closed all the same
            self.telemetry.defect("-", defect)

    async def _await_lease(self) -> None:
        """Wait a moment for the lease, so that the worker can serve once it says so; else it is not ready."""
        deadline = self.clock.monotonic() + START_PATIENCE_SECONDS
        while not self.facts.is_leased() and self.clock.monotonic() < deadline:  # noqa: ASYNC110 -- a lease is no event: it runs out
            await asyncio.sleep(0.005)

    async def _watch_disk(self) -> None:
        """Scan the disk now, then at intervals, and at once when a model was added or removed."""
        while True:
            try:
                await self._look_at_disk()
            finally:
                self._has_looked.set()
            due = self.clock.monotonic() + self.scan_seconds
            has_moved = False
            while not has_moved and self.clock.monotonic() < due:
                await asyncio.sleep(self.scan_seconds / DISK_WATCHES_PER_SCAN)
                has_moved = True  # when the check fails, scan: the scan reports the failure
                with suppress(Refusal, Unavailable):
                    has_moved = self.catalogue.has_moved()

    async def _look_at_disk(self) -> None:
        try:
            await self.catalogue.refresh(await self._known_models())
        except Unavailable as failure:
            self.telemetry.failed(failure)
        problem = self.catalogue.state().survey.problem
        if problem != self._cache_problem:
            self._cache_problem = problem
            self.telemetry.cache_changed(problem)

    async def _known_models(self) -> Iterable[ModelId]:
        """The model ids in facts. All rules and grants are read for them; again once facts have changed."""
        generation = self.facts.lease.applied  # read first: what is read then is at least as new
        if self._known is None or self._known[0] != generation:
            self._known = generation, await self.directory.known_models()
        return self._known[1]

    async def _look_at_facts(self) -> None:
        try:
            await self.directory.verify_policy()
        except Unavailable as failure:
            self.has_policy = False
            self.telemetry.failed(failure)
        else:
            self.has_policy = True

    async def _watch_lease(self) -> None:
        """Record and log when this worker loses its lease, and when it has one again."""
        is_leased = self.facts.lease.watch(self.clock.monotonic())
        action = NORMAL if is_leased else NO_LEASE if self.follower.is_history_known else UNKNOWN_HISTORY
        if action == self._mode:
            return
        self._mode = action
        self.telemetry.mode_changed(action)
        mode = action.removeprefix("mode.")
        self._note(ModeRecord, worker=self.worker, mode=mode, generation=self.facts.lease.applied)

    def _note_worker(self, state: str) -> None:
        self._note(WorkerRecord, worker=self.worker, state=state, version=__version__)

    def _note(self, kind: type[Event], **fields: Any) -> None:
        """Record an event, which nothing waits for."""
        try:
            self.recorder.note(kind, **fields)
        except Unavailable as failure:
            self.telemetry.failed(failure)

    async def _watch_sentinels(self) -> None:
        """Log the Sentinels that do not answer: without one all works, without another it may not."""
        while True:
            with suppress(Unavailable):  # the feed reports it
                await self.store.place.find(is_anew=True)
            silent = self.store.place.silent
            if silent != self._silent:
                self._silent = silent
                self.telemetry.sentinels_silent(silent)
            await asyncio.sleep(SENTINELS_SECONDS)

    async def _keep_audit(self) -> None:
        self.telemetry.lines.tick(self.clock.now())
        try:
            await recorded(self.recorder.tick(self.clock.now()))
        except Unavailable as failure:
            self.telemetry.failed(failure)

    async def _note_last_uses(self) -> None:
        """Store last uses, which may be lost, and marks, which are kept for the next try if that fails."""
        failure = await note_last_uses(self.store, self.last_uses.take())
        unwritten, failure_of_marks = await note_credential_marks(self.store, self.last_uses.take_marks())
        self.last_uses.give_back_marks(unwritten)
        for one in (failure, failure_of_marks):
            if one is not None:
                self.telemetry.failed(one)

    async def sweep_memories(self) -> None:
        """Drop from memory what is no longer current, in batches: it may never be asked for again."""
        for memory in self.memories:
            for _ in memory.sweep():
                await asyncio.sleep(0)

    async def _leave_register(self) -> None:
        """Remove this worker from the register: no barrier has to wait for it."""
        try:
            await self.store.leave(self.worker)
        except Unavailable as failure:
            self.telemetry.failed(failure)
