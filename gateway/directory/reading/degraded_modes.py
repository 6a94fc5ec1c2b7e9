"""Computes how long workers without a lease may keep using what they last knew of a tenant.

A tenant's record holds its degraded period. When that period is shortened, a disconnected worker does not
learn of it and keeps using the longer one. So the former period is stored beside the tenants, with the
generation at which it ended: a worker that has not applied that generation may still use it. The barrier
waits for both. Only the longest former period is kept; the cost is a longer wait for workers that are
disconnected.

Non-goal: waiting (`gateway/barrier.py`).
"""

from __future__ import annotations

import re
from math import ceil
from typing import TYPE_CHECKING

import msgspec

from gateway.directory.records import names
from gateway.model.facts import MAX_DEGRADED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.directory.reading.uncached import PlainFacts
    from gateway.model.facts import Tenant
    from gateway.model.names import TenantId

_FORMER = re.compile(rb"([0-9]{1,7}):([0-9]{1,18})")  # milliseconds, generation


class DegradedPeriod(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A degraded period, and the workers that may use it."""

    seconds: float
    until_generation: int | None = None  # workers that have not applied this generation; None: all workers

    def counts_for(self, applied: int) -> bool:
        """Whether a worker that has applied this generation may use the period."""
        return self.until_generation is None or applied < self.until_generation


async def find_former(source: PlainFacts, tenant_ids: Sequence[TenantId]) -> list[DegradedPeriod]:
    """Return the former degraded periods of these tenants."""
    raw = await source.hash_fields(names.DEGRADED, [one.encode() for one in tenant_ids])
    return [_parse(value) for value in raw if value is not None]


async def load_degraded_periods(source: PlainFacts, tenants: Iterable[Tenant]) -> list[DegradedPeriod]:
    """Return the current and former degraded periods of these tenants."""
    listed = list(tenants)
    now = [DegradedPeriod(seconds=one.degraded_seconds) for one in listed if one.degraded_seconds > 0]
    return [*now, *await find_former(source, [one.tenant_id for one in listed])]


def encode_former(seconds: float, until_generation: int) -> bytes:
    """Encode a period that ends with this generation; rounded up."""
    return b"%d:%d" % (ceil(seconds * 1000), until_generation)


def _parse(raw: bytes) -> DegradedPeriod:
    found = _FORMER.fullmatch(raw)
    if found is None:
        return DegradedPeriod(seconds=MAX_DEGRADED_SECONDS)  # unreadable: assume the maximum for all workers
    return DegradedPeriod(seconds=int(found[1]) / 1000, until_generation=int(found[2]))
