"""Invalidation: end answers of the platform in every worker before the call returns.

It is a change of facts like any other: recorded, committed, and waited for (I6). It writes one ending for
each key and model that is named, or one for everything, however many rulings there are, and removes the
records of the named keys, so that their requests and transfers under way end too. A key is named by its
SHA-256; whether we have ever seen it makes no difference, since a request about it may be under way.

A key that an operator has imported is not the platform's, and the platform cannot end it: the record of the
change names it, and the caller is told how many there were.

It is idempotent.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from gateway.barrier import await_workers
from gateway.directory.edits.rulings import end_rulings
from gateway.directory.reading.degraded_modes import load_degraded_periods
from gateway.directory.reading.uncached import PlainFacts
from gateway.identity.platform_keys import platform_key_id
from gateway.model.errors import Conflict, Reason, Unavailable
from gateway.model.rulings import SOURCE_PLATFORM
from gateway.model.verdicts import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.adapters.redis_store import RedisStore
    from gateway.barrier import BarrierReport
    from gateway.directory.reading.listing import Listing
    from gateway.identity.pepper import Peppers
    from gateway.model.clocks import Clock, MonotonicClock
    from gateway.model.names import KeyId, ModelId
    from gateway.model.stores import Moment
    from gateway.pinning.ledger import Perform

ACTOR = "platform"
ACTION = "platform.invalidate"
PATIENCE_SECONDS = 2.0  # beyond a lease, for late polls
NAMED_IN_RECORD = 50  # keys, and models; beyond it the record gives the number


class Ended(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The result: the generation, and how many of the named keys only an operator can end."""

    generation: int
    not_ours: int


class Invalidation(msgspec.Struct, frozen=True, kw_only=True):
    """Ends rulings, and waits until every worker has applied it."""

    store: RedisStore
    listing: Listing
    perform: Perform
    peppers: Peppers
    clock: Clock
    monotonic: MonotonicClock
    lease_seconds: float
    is_settled: bool = False  # the embedded server: `barrier.py` says which waits that saves

    async def end(self, keys: Sequence[bytes], models: Sequence[ModelId]) -> Ended:
        """End the answers about these keys (by their SHA-256) and models; with neither, all answers.

        Raises `Unavailable` while it is not sure that every worker has applied it.
        """
        digests = [digest for key in keys for digest in self.peppers.digests(key)]
        key_ids = [platform_key_id(digest) for digest in digests]
        not_ours = await self._find_not_ours(digests)
        named = *_some("key", key_ids), *_some("model", models), *_some("operator's key", not_ours)
        change = Change(
            actor=ACTOR,
            action=ACTION,
            subject=named or ("everything",),
            received_at=self.clock.now(),
        )
        try:
            done = await self.perform(change, partial(end_rulings, keys=key_ids, models=models))
            report = await self._await(done.moment)
        except Conflict as error:  # a record that does not parse is in the way
            raise Unavailable("redis", str(error)) from error
        if not report.is_sure:
            why = f"not every worker is known to know of it: {report.why}"
            raise Unavailable("redis", why, Reason.NO_LEASE)
        return Ended(generation=done.generation, not_ours=len(not_ours))

    async def _find_not_ours(self, digests: Sequence[bytes]) -> list[KeyId]:
        """Those of the named keys whose records an operator wrote."""
        found = [await self.listing.find_key_by_digest(digest) for digest in digests]
        return [key.key_id for key in found if key is not None and key.source != SOURCE_PLATFORM]

    async def _await(self, moment: Moment) -> BarrierReport:
        # A tenant made for a platform's key is listed only once an operator has given it a degraded mode.
        tenants = [one for one in await self.listing.list_tenants() if one.tenant_id.startswith("platform-")]
        return await await_workers(
            self.store,
            moment,
            lease_seconds=self.lease_seconds,
            patience_seconds=self.lease_seconds + PATIENCE_SECONDS,
            clock=self.monotonic,
            degraded_periods=await load_degraded_periods(PlainFacts(self.store), tenants),
            is_settled=self.is_settled,
        )


def _some(kind: str, named: Sequence[str]) -> list[str]:
    shown = [f"{kind} {one}" for one in named[:NAMED_IN_RECORD]]
    left = len(named) - len(shown)
    return [*shown, f"{left} more {kind}s"] if left else shown
