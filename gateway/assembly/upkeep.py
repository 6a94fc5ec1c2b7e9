"""Upkeep: what a worker does beside requests, from before its first one to after its last.

It follows the facts, looks at the disk, watches lease and transfers, keeps the audit log, and notes
what it sees. None of it is waited for by a request. What fails is counted and tried again. A chore
that ends before its worker does is a defect of ours: it is logged, and the worker is no longer ready.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.directory.hints import note_credential_marks, note_last_uses
from gateway.model.errors import Refusal, Unavailable
from gateway.model.verdicts import Change

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable

    from gateway.adapters.clock import SystemClock
    from gateway.adapters.redis_feed import RedisFeed
    from gateway.adapters.redis_store import RedisStore
    from gateway.assembly.canary import Canary
    from gateway.assembly.settling import Settling
    from gateway.audit.log import AuditLog
    from gateway.directory.follower import Follower
    from gateway.directory.near_facts import NearFacts
    from gateway.directory.reader import DirectoryReader
    from gateway.identity.last_uses import LastUses
    from gateway.model.names import ModelId
    from gateway.pinning.ahead import PinningAhead
    from gateway.pinning.pins import Pins
    from gateway.resource.catalogue import DiskCatalogue
    from gateway.telemetry import Telemetry
    from gateway.transfers import Transfers

HOUSEKEEPING_SECONDS = 1.0  # summaries and signed heads are due by time alone
LEASE_WATCH_SECONDS = 0.1
START_PATIENCE_SECONDS = 5.0
SCAN_PATIENCE_SECONDS = 2.0  # a large cache is scanned beside requests: only lists of models have to wait
DISK_WATCHES_PER_SCAN = 4  # looks from outside, for models that come or go
NORMAL, NO_LEASE, UNKNOWN_HISTORY = "mode.normal", "mode.no-lease", "mode.unknown-history"
SENTINELS_SECONDS = 30.0  # how often it is looked whether all of them answer
LAST_USE_SECONDS = 5.0  # how late `keys list` may know of a use


@dataclass(slots=True, kw_only=True)
class Upkeep:
    """One worker's chores."""

    worker: str
    clock: SystemClock
    store: RedisStore
    facts: NearFacts
    follower: Follower
    feed: RedisFeed
    directory: DirectoryReader
    catalogue: DiskCatalogue
    recorder: AuditLog
    transfers: Transfers
    last_uses: LastUses
    pins: Pins
    pinning_ahead: PinningAhead | None
    canary: Canary | None
    settling: Settling
    scan_seconds: float
    telemetry: Telemetry
    at_the_end: tuple[Callable[[], Awaitable[None]], ...] = ()  # what else is let go of
    has_policy: bool = False
    is_whole: bool = True  # no chore has ended
    _mode: str = field(default=NORMAL, init=False)
    _silent: tuple[str, ...] = field(default=(), init=False)
    _known: tuple[int, frozenset[ModelId]] | None = field(default=None, init=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look after everything while requests are served; close all after."""
        chores = [self._start(self.feed.run(self.follower))]
        await self._await_lease()
        first_look = asyncio.create_task(self._look_at_disk())  # no chore: it ends, and may
        await asyncio.wait({first_look}, timeout=SCAN_PATIENCE_SECONDS)
        await self._look_at_facts()
        chores += [
            first_look,
            self._start(self.transfers.watch()),
            self._start(_every(LEASE_WATCH_SECONDS, self._watch_lease)),
            self._start(self._watch_disk()),
            self._start(_every(HOUSEKEEPING_SECONDS, self._look_at_facts)),
            self._start(_every(HOUSEKEEPING_SECONDS, self._keep_audit)),
            *([self._start(self.canary.sing())] if self.canary is not None else []),
            self._start(self.settling.run()),
            *([self._start(self._watch_sentinels())] if self.store.place.is_asked_for else []),
            self._start(_every(LAST_USE_SECONDS, self._note_last_uses)),
            *([self._start(self.pinning_ahead.run())] if self.pinning_ahead is not None else []),
        ]
        try:
            yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            await self.pins.close()
            for let_go in self.at_the_end:
                await let_go()
            if self.pinning_ahead is not None:
                self.pinning_ahead.close()
            await self._note_last_uses()
            await self._say_goodbye()
            try:
                self.recorder.close()
            except Unavailable as failure:
                self.telemetry.failed(failure)
            await self.store.close()

    def _start(self, chore: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(chore)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        self.is_whole = False
        defect = task.exception()
        if isinstance(defect, Exception):
            self.telemetry.defect("-", defect)

    async def _await_lease(self) -> None:
        """A moment for the feed, so that a worker that says it serves can; without one it says it cannot."""
        deadline = self.clock.monotonic() + START_PATIENCE_SECONDS
        while not self.facts.is_leased() and self.clock.monotonic() < deadline:  # noqa: ASYNC110 -- a lease is no event: it runs out
            await asyncio.sleep(0.005)

    async def _watch_disk(self) -> None:
        """Look at the disk in turn, and at once when a model comes or goes."""
        due = self.clock.monotonic() + self.scan_seconds
        while True:
            await asyncio.sleep(self.scan_seconds / DISK_WATCHES_PER_SCAN)
            has_moved = True  # what cannot be asked is looked at, and the look reports it
            with suppress(Refusal, Unavailable):
                has_moved = self.catalogue.has_moved()
            if has_moved or self.clock.monotonic() >= due:
                await self._look_at_disk()
                due = self.clock.monotonic() + self.scan_seconds

    async def _look_at_disk(self) -> None:
        try:
            await self.catalogue.refresh(await self._known_models())
        except Unavailable as failure:
            self.telemetry.failed(failure)

    async def _known_models(self) -> Iterable[ModelId]:
        """The ids that facts speak of. Every rule and grant is read for them: anew once facts moved."""
        generation = self.facts.lease.applied  # taken first: what is read is at least as new
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
        """Record when this worker loses its lease and when it has one again: modes change with it."""
        is_leased = self.facts.lease.watch(self.clock.monotonic())
        action = NORMAL if is_leased else NO_LEASE if self.follower.is_history_known else UNKNOWN_HISTORY
        if action == self._mode:
            return
        self._mode = action
        self.telemetry.mode_changed(action)
        try:
            change = Change(actor=f"worker:{self.worker}", action=action, received_at=self.clock.now())
            receipt = self.recorder.change(change)
            receipt.close(generation=self.facts.lease.applied, result="done")
        except Unavailable as failure:
            self.telemetry.failed(failure)

    async def _watch_sentinels(self) -> None:
        """Name those that do not answer: one is no harm, and the next one may be."""
        while True:
            with suppress(Unavailable):  # the feed says so
                await self.store.place.find(is_anew=True)
            silent = self.store.place.silent
            if silent != self._silent:
                self._silent = silent
                self.telemetry.sentinels_silent(silent)
            await asyncio.sleep(SENTINELS_SECONDS)

    async def _keep_audit(self) -> None:
        try:
            self.recorder.tick(self.clock.now())
        except Unavailable as failure:
            self.telemetry.failed(failure)

    async def _note_last_uses(self) -> None:
        try:
            await note_last_uses(self.store, self.last_uses.take())
        except Unavailable as failure:  # a hint that is lost is lost
            self.telemetry.failed(failure)
        marks = self.last_uses.take_marks()
        try:
            await note_credential_marks(self.store, marks)
        except Unavailable as failure:
            self.last_uses.give_back_marks(marks)
            self.telemetry.failed(failure)

    async def _say_goodbye(self) -> None:
        """Nobody has to wait for a worker that is gone."""
        try:
            await self.store.leave(self.worker)
        except Unavailable as failure:
            self.telemetry.failed(failure)


async def _every(seconds: float, chore: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await chore()
