from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.reading.degraded_modes import DegradedPeriod, find_former, load_degraded_periods
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.model.facts import MAX_DEGRADED_SECONDS
from gateway.model.names import TenantId

pytestmark = pytest.mark.anyio


@pytest.fixture
def put(store, acme):
    """Writes the tenant with each of these degraded periods, one change after the other."""

    async def write(*seconds):
        for one in seconds:
            tenant = replace(acme, degraded_seconds=one)
            await change(store, lambda changes, tenant=tenant: changes.put_tenant(tenant))
        return tenant

    return write


async def test_a_shortened_time_is_remembered_for_those_who_did_not_hear_of_it(store, put):
    tenant = await put(600.0, 60.0)
    now, former = await load_degraded_periods(PlainFacts(store), [tenant])
    assert (now, former) == (DegradedPeriod(seconds=60.0), DegradedPeriod(seconds=600.0, until_generation=2))
    assert now.counts_for(1)
    assert now.counts_for(10**9)
    assert former.counts_for(1)
    assert not former.counts_for(2)


@pytest.mark.parametrize("times", [(0.0,), (60.0,), (0.0, 60.0), (60.0, 60.0), (1.0, 60.0, 600.0)])
async def test_a_time_that_was_never_shortened_leaves_nothing_behind(store, put, times):
    tenant = await put(*times)
    degraded_periods = await load_degraded_periods(PlainFacts(store), [tenant])
    assert degraded_periods == ([DegradedPeriod(seconds=times[-1])] if times[-1] else [])


async def test_the_longest_former_time_stays_until_the_last_shortening(store, put, acme):
    await put(600.0, 0.0, 5.0, 0.0)
    former = await find_former(PlainFacts(store), [acme.tenant_id])
    assert former == [DegradedPeriod(seconds=600.0, until_generation=4)]


async def test_half_milliseconds_are_rounded_up(store, put, acme):
    await put(0.0005, 0.0)
    assert await find_former(PlainFacts(store), [acme.tenant_id]) == [
        DegradedPeriod(seconds=0.001, until_generation=2)
    ]


async def test_a_record_that_did_not_parse_may_have_said_anything(store, put, corrupt, acme):
    await corrupt(names.tenant_fact(acme.tenant_id))
    await put(0.0)
    assert await find_former(PlainFacts(store), [acme.tenant_id]) == [
        DegradedPeriod(seconds=MAX_DEGRADED_SECONDS, until_generation=2)
    ]


async def test_a_former_time_that_does_not_parse_counts_as_the_longest_for_everybody(store, acme):
    await store.put_hash(names.DEGRADED, {acme.tenant_id.encode(): b"soon"})
    assert await find_former(PlainFacts(store), [acme.tenant_id, TenantId("other")]) == [
        DegradedPeriod(seconds=MAX_DEGRADED_SECONDS)
    ]
