"""Watches how keys are used, beside requests: networks that are new to a key, and the report on all keys.

Every worker stores from where it saw keys used (`identity/key_networks.py`). A network that is new to a key
which had others is an event in the audit log, a log line and a count. One worker of the fleet, which holds a
lock, reads all keys once an hour: how many concern an operator is a gauge, and an event in the audit log when
it has changed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.directory.reading.key_networks import note_networks
from gateway.directory.reading.key_report import Concern, Period, report_keys
from gateway.directory.reading.key_usage import note_last_networks
from gateway.model.errors import Conflict, Unavailable
from gateway.model.recorded import recorded
from gateway.model.verdicts import Change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.adapters.redis_store import RedisStore
    from gateway.audit.grouped_log import GroupedLog
    from gateway.audit.log import AuditLog
    from gateway.directory.reading.key_report import KeyReport
    from gateway.directory.reading.listing import Listing
    from gateway.identity.key_networks import KeyNetworks, NetworkUse
    from gateway.model.clocks import Clock
    from gateway.telemetry import Telemetry

LOCK = b"{cachegate}:key-report"
NETWORKS_SECONDS = 5.0  # how late `keys show` may know of a network
FIRST_SECONDS = 30.0  # after the start: a worker has other things to do first
LOCK_SECONDS = 300.0  # between two tries to take or keep the lock
REPORT_SECONDS = 3_600.0
MAX_NAMED = 50  # keys that end soon, by name in the event

NEW_NETWORK, REPORT = "keys.new-network", "keys.report"


class KeyWatch:
    """The watch of one worker."""

    def __init__(
        self,
        *,
        store: RedisStore,
        listing: Listing,
        networks: KeyNetworks,
        recorder: AuditLog | GroupedLog,
        telemetry: Telemetry,
        clock: Clock,
        worker: str,
    ) -> None:
        self._store = store
        self._listing = listing
        self._networks = networks
        self._recorder = recorder
        self._telemetry = telemetry
        self._clock = clock
        self._worker = worker
        self._reported: Mapping[Concern, int] | None = None
        self._due: float | None = None

    async def keep_networks(self) -> None:
        """Store the networks that keys are used from, every few seconds, for ever."""
        while True:
            await asyncio.sleep(NETWORKS_SECONDS)
            await self.note_networks()

    async def note_networks(self) -> None:
        """Store the networks since the last call, and report those that are new to a key."""
        new, failed, failure = await note_networks(self._store, self._networks.take())
        self._networks.forget(failed)
        for one in (failure, await note_last_networks(self._store, self._networks.take_moved())):
            if one is not None:
                self._telemetry.failed(one)
        for use in new:
            await self._report_new(use)

    async def _report_new(self, use: NetworkUse) -> None:
        self._telemetry.new_network(use.key_id, use.network)
        await self._record(
            Change(
                actor=f"worker:{self._worker}",
                action=NEW_NETWORK,
                tenant=use.tenant,
                tenant_record=use.tenant_record,
                key_id=use.key_id,
                subject=(use.network,),
                received_at=self._clock.now(),
            )
        )

    async def run(self) -> None:
        """Report on all keys from time to time, for ever, as long as this worker holds the lock."""
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            await self.report_if_due()
            await asyncio.sleep(LOCK_SECONDS)

    async def report_if_due(self) -> None:
        """Report on all keys, unless another worker does, or this one did within the hour."""
        try:
            if not await self._store.hold(LOCK, self._worker, seconds=LOCK_SECONDS * 2.5):
                self._telemetry.keys_reported({})  # its numbers count; old ones of ours would be added
                self._reported = self._due = None
                return
            now = self._clock.now()
            if self._due is not None and self._due - REPORT_SECONDS <= now < self._due:
                return
            self._due = now + REPORT_SECONDS
            owners = [None, *[one.tenant_id for one in await self._listing.list_tenants()]]
            found = await report_keys(self._store, self._listing, owners, Period(now=now))
        except Unavailable as failure:
            self._telemetry.failed(failure)
            return
        except Conflict:  # an index that does not parse, which was reported
            return
        self._telemetry.keys_reported(found.counts)
        if found.counts != self._reported:
            self._reported = found.counts
            await self._record(
                Change(
                    actor=f"worker:{self._worker}", action=REPORT, subject=event_of(found), received_at=now
                )
            )

    async def _record(self, change: Change) -> None:
        try:
            (await recorded(self._recorder.change(change))).close(generation=None, result="noted")
        except Unavailable as failure:
            self._telemetry.failed(failure)


def event_of(report: KeyReport) -> tuple[str, ...]:
    """What the audit log is told of a report: the counts, and which keys end soon."""
    soon = [one.key.key_id for one in report.keys[Concern.EXPIRING_SOON][:MAX_NAMED]]
    return (*[f"{concern}: {report.counts[concern]}" for concern in Concern], *soon)
