"""Doctor, freshness: whether these facts are the known ones, which workers serve, and the lease's length."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.adapters.history_file import HistoryFile
from gateway.assembly.pipeline import RENEWALS_PER_LEASE
from gateway.identity.times import format_duration
from gateway.model.errors import UnknownHistory
from gateway.model.stores import Moment
from gateway.operations.doctor.findings import fail, ok, warning

if TYPE_CHECKING:
    from gateway.adapters.redis_fleet import Fleet
    from gateway.adapters.redis_store import RedisStore
    from gateway.configuration.settings import Settings
    from gateway.directory.reading.listing import Listing
    from gateway.model.facts import Tenant
    from gateway.operations.doctor.findings import Finding

SHORTEST_LEASE_SECONDS = 0.3  # below that a busy moment of Redis or of a worker loses the lease
LONGEST_LEASE_SECONDS = 5.0
LONGEST_LOOK_SECONDS = 1.0
MAX_NAMED = 5


async def check_history(store: RedisStore, settings: Settings) -> Finding:
    """Whether the history is the known one: nothing is served on other facts."""
    present = await store.moment()
    seen = HistoryFile(settings.history_file).load()
    if seen is None:
        return ok("history", "this node has seen no facts yet, so it takes these")
    try:
        await store.verify_history()
    except UnknownHistory:
        return fail(
            "history",
            f"generation {present.generation} of history {present.history or '(none)'}; what this node saw, "
            f"generation {seen.generation} of {seen.history}, is not in its past",
            "the server was restored, replaced or failed over, and revocations may be missing: look what it "
            "holds, then run `cachegate directory accept` on each node",
        )
    return ok(
        "history", f"generation {present.generation}; this node has noted {seen.generation} of the same"
    )


async def check_workers(store: RedisStore, settings: Settings) -> Finding:
    """Which workers serve and which are behind: two reads, a lease apart, show which do not renew."""
    first = await store.look(Moment())
    if not first.workers:
        return judge_workers(first, first, settings.lease_milliseconds / 1000)
    seconds = settings.lease_milliseconds / 1000
    await asyncio.sleep(min(seconds, LONGEST_LOOK_SECONDS))
    return judge_workers(first, await store.look(Moment()), seconds)


def judge_workers(first: Fleet, last: Fleet, lease_seconds: float) -> Finding:
    """Whether every registered worker renews, and has applied the generation of the first read."""
    if not last.workers:
        return ok("workers", "none is registered")
    # A change may come between the two reads: workers may be as far as the second, and must be as the first.
    generation, newest = first.moment.generation, last.moment.generation
    before = {one.worker: one.renewal for one in first.workers}
    silent = {one.worker for one in last.workers if before.get(one.worker) == one.renewal}
    behind = {one.worker for one in last.workers if one.applied < generation} - silent
    rows = [
        f"{one.worker} has acknowledged {one.applied} of {newest}"
        + (f", silent for {max(one.silent_seconds, lease_seconds):.1f} s" if one.worker in silent else "")
        for one in sorted(last.workers, key=lambda one: (one.applied, one.worker))
    ]
    more = len(rows) - MAX_NAMED
    found = "; ".join(rows[:MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")
    if not silent and not behind:
        return ok("workers", found)
    advice = [
        f"{len(silent)} do not renew: stopped, cut off from Redis, or gone without a goodbye"
        if silent
        else "",
        f"{len(behind)} are behind: look again in a moment" if behind else "",
    ]
    return warning("workers", found, "; ".join(filter(None, advice)))


async def check_lease(listing: Listing, settings: Settings) -> Finding:
    """What the settings mean for the duration of a revocation, at worst."""
    return judge_lease(settings, await listing.list_tenants())


def judge_lease(settings: Settings, tenants: list[Tenant]) -> Finding:
    """Whether the lease has a reasonable length, and which tenants have a degraded mode that outlasts it."""
    seconds = settings.lease_milliseconds / 1000
    found = f"{seconds:g} s, renewed every {seconds * RENEWALS_PER_LEASE:g} s"
    lasting = sorted(
        (one for one in tenants if one.degraded_seconds),
        key=lambda one: (-one.degraded_seconds, one.tenant_id),
    )
    advice: list[str] = []
    if seconds < SHORTEST_LEASE_SECONDS:
        advice.append(
            "a busy moment loses so short a lease, and answers 503: raise CACHEGATE_LEASE_MILLISECONDS"
        )
    if seconds > LONGEST_LEASE_SECONDS:
        advice.append("a revocation waits so long for a worker that died: lower CACHEGATE_LEASE_MILLISECONDS")
    if lasting:
        named = ", ".join(
            f"{one.tenant_id} {format_duration(one.degraded_seconds)}" for one in lasting[:MAX_NAMED]
        )
        more = f" and {len(lasting) - MAX_NAMED} more" if len(lasting) > MAX_NAMED else ""
        found += f"; without one, served on what was last known: {named}{more}"
    if not advice:
        return ok("lease", found)
    return warning("lease", found, "; ".join(advice))
