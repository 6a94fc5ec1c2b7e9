from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.directory.edits.rulings import (
    disown_key,
    end_rulings,
    introduce_key,
    note_links,
    rule,
)
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.rulings import find_ruling
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.model.errors import Reason
from gateway.model.names import KeyId, ModelId, TenantId
from gateway.model.rulings import SOURCE_PLATFORM, Ruling

pytestmark = pytest.mark.anyio

KEY, OTHER = KeyId("key_000000000001"), KeyId("key_000000000002")
CARS, TRUCKS = ModelId("acme/cars/1"), ModelId("acme/trucks/2")
DIGEST, NOW = b"\x01" * 32, 100.0


@pytest.fixture
def reading(store):
    return PlainFacts(store)


@pytest.fixture
def listing(reading):
    return Listing(reading)


@pytest.fixture
def platform_key(make_key):
    return make_key(tenant="platform-1", source=SOURCE_PLATFORM, name="")


@pytest.fixture
def ruling(store):
    """A ruling whose question is asked now."""

    async def make(key_id=KEY, model=CARS, reason=Reason.PERMITTED, until=NOW + 60):
        return Ruling(key_id=key_id, model=model, reason=reason, until=until, asked=await store.generation())

    return make


@pytest.fixture
def introduce(run, ruling, platform_key):
    async def do(**more):
        return await run(introduce_key, key=platform_key, digest=DIGEST, ruling=await ruling(**more), now=NOW)

    return do


async def test_a_ruling_is_in_force_until_its_end(run, ruling, reading):
    new = await ruling()
    assert await run(rule, ruling=new, now=NOW)
    assert await find_ruling(reading, KEY, CARS, NOW + 59.9) == replace(new, generation=1)
    assert await find_ruling(reading, KEY, CARS, NOW + 60) is None
    assert await find_ruling(reading, OTHER, CARS, NOW) is None
    assert await find_ruling(reading, KEY, TRUCKS, NOW) is None


async def test_a_ruling_goes_away_by_itself(store, run, ruling, reading):
    await run(rule, ruling=await ruling(until=NOW + 0.05), now=NOW)
    name = names.ruling_fact(KEY, CARS)
    async with asyncio.timeout(30):  # the server lets it expire, by a clock of its own
        while (await store.read([name]))[1] != [None]:  # noqa: ASYNC110 -- another process makes it so
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("keys", "models"), [([KEY], []), ([], [CARS]), ([KEY, OTHER], [TRUCKS]), ([], []), ([OTHER], [CARS])]
)
async def test_an_ending_ends_what_was_asked_before_it_and_nothing_after(run, ruling, reading, keys, models):
    early = await ruling()
    assert await run(rule, ruling=early, now=NOW)
    await run(end_rulings, keys=keys, models=models)
    assert await find_ruling(reading, KEY, CARS, NOW) is None
    assert not await run(rule, ruling=early, now=NOW), "a late answer"
    assert await find_ruling(reading, KEY, CARS, NOW) is None
    assert await run(rule, ruling=await ruling(), now=NOW)
    assert await find_ruling(reading, KEY, CARS, NOW) is not None


@pytest.mark.parametrize(("keys", "models"), [([OTHER], []), ([], [TRUCKS]), ([OTHER], [TRUCKS])])
async def test_an_ending_ends_nothing_that_it_does_not_name(run, ruling, reading, keys, models):
    await run(rule, ruling=await ruling(), now=NOW)
    await run(end_rulings, keys=keys, models=models)
    assert await find_ruling(reading, KEY, CARS, NOW) is not None


async def test_an_introduced_key_has_a_tenant_of_its_own_that_is_not_listed(introduce, listing, platform_key):
    assert await introduce()
    key = await listing.find_key(KEY)
    tenant = await listing.find_tenant(platform_key.tenant)
    assert tenant.record_id is not None
    assert replace(key, generation=0, tenant_record=None) == platform_key
    assert key.tenant_record == tenant.record_id
    tenant = await listing.find_tenant(TenantId("platform-1"))
    assert (tenant.source, tenant.is_suspended) == (SOURCE_PLATFORM, False)
    assert await listing.list_tenants() == []


async def test_a_key_that_is_known_by_now_is_left_as_it_is(introduce, listing, run, platform_key):
    await introduce()
    await run(_revoke, key=platform_key)
    await introduce()
    assert (await listing.find_key(KEY)).revoked_at == 5.0


async def _revoke(changes, *, key):
    await changes.put_key(replace(key, revoked_at=5.0), DIGEST)


async def test_a_suspended_tenant_stays_suspended(introduce, listing, run):
    await introduce()
    tenant = await listing.find_tenant(TenantId("platform-1"))
    await run(_put_tenant, tenant=replace(tenant, is_suspended=True))
    await introduce()
    assert (await listing.find_tenant(TenantId("platform-1"))).is_suspended


async def _put_tenant(changes, *, tenant):
    await changes.put_tenant(tenant)


async def test_a_key_that_is_nobodys_is_gone_with_all_that_was_said_of_it(
    introduce, listing, reading, run, ruling
):
    await introduce()
    await run(note_links, key_id=KEY, model=CARS, until=NOW + 999, now=NOW)
    standing = await ruling(model=None, reason=Reason.UPSTREAM_UNAUTHORIZED, until=NOW + 10)
    assert await run(disown_key, standing=standing, now=NOW)
    assert await listing.find_key(KEY) is None
    assert await find_ruling(reading, KEY, CARS, NOW) is None
    assert await find_ruling(reading, KEY, CARS, NOW, of_links=True) is None
    found = await find_ruling(reading, KEY, None, NOW)
    assert found.reason is Reason.UPSTREAM_UNAUTHORIZED


async def test_a_key_that_was_revoked_here_stays_so_when_the_platform_disowns_it(
    introduce, listing, run, ruling, platform_key
):
    await introduce()
    await run(_revoke, key=platform_key)
    await run(
        disown_key,
        standing=await ruling(model=None, reason=Reason.UPSTREAM_UNAUTHORIZED, until=NOW + 10),
        now=NOW,
    )
    await run(end_rulings, keys=[KEY], models=[])
    assert (await listing.find_key(KEY)).revoked_at == 5.0


@pytest.mark.parametrize(
    "change",
    [{"expires_at": 5.0}, {"not_before": 5.0}, {"networks": ("10.0.0.0/8",)}, {"scopes": frozenset()}],
)
async def test_what_an_operator_changed_of_a_key_is_not_undone_by_the_platform(
    introduce, listing, run, ruling, platform_key, change
):
    await introduce()
    changed = replace(platform_key, **change)
    await run(_put_key, key=changed)
    await run(end_rulings, keys=[KEY], models=[])
    standing = await ruling(model=None, reason=Reason.UPSTREAM_UNAUTHORIZED, until=NOW + 10)
    await run(disown_key, standing=standing, now=NOW)
    assert replace(await listing.find_key(KEY), generation=0) == changed


@pytest.mark.parametrize("later", [Reason.PERMITTED, Reason.UPSTREAM_REFUSED])
async def test_an_answer_that_was_asked_for_earlier_does_not_replace_a_later_one(run, ruling, reading, later):
    early = await ruling()
    known = replace(early, reason=later, asked=early.asked + 1)
    assert await run(rule, ruling=known, now=NOW)
    assert not await run(rule, ruling=early, now=NOW)
    assert (await find_ruling(reading, KEY, CARS, NOW)).reason is later
    assert await run(rule, ruling=early, now=NOW + 60), "what has ended stands in nobody's way"


async def test_of_two_that_were_asked_for_at_once_the_denial_stays(run, ruling, reading):
    allow = await ruling()
    denial = replace(allow, reason=Reason.UPSTREAM_REFUSED)
    assert await run(rule, ruling=allow, now=NOW)
    assert await run(rule, ruling=denial, now=NOW)
    assert not await run(rule, ruling=allow, now=NOW)
    assert (await find_ruling(reading, KEY, CARS, NOW)).reason is Reason.UPSTREAM_REFUSED


async def test_a_key_is_not_disowned_by_an_answer_that_is_older_than_its_standing(
    introduce, listing, run, ruling
):
    await introduce()
    unknown = await ruling(model=None, reason=Reason.UPSTREAM_UNAUTHORIZED, until=NOW + 10)
    known = replace(unknown, reason=Reason.PERMITTED, asked=unknown.asked + 1)
    assert await run(rule, ruling=known, now=NOW)
    assert not await run(disown_key, standing=unknown, now=NOW)
    assert await listing.find_key(KEY) is not None


async def test_a_key_of_our_own_is_never_taken_away(run, listing, make_key, acme):
    await run(_put_tenant, tenant=acme)
    await run(_put_key, key=make_key())
    await run(end_rulings, keys=[KEY], models=[])
    assert await listing.find_key(KEY) is not None


async def _put_key(changes, *, key):
    await changes.put_key(key, DIGEST)


async def links(reading, now=NOW):
    return await find_ruling(reading, KEY, CARS, now, of_links=True)


async def test_links_outlive_the_allow_that_they_were_minted_under(introduce, reading, run):
    await introduce()
    assert await run(note_links, key_id=KEY, model=CARS, until=NOW + 3600, now=NOW)
    assert await find_ruling(reading, KEY, CARS, NOW + 61) is None
    assert (await links(reading, NOW + 3599)).is_allow
    assert await links(reading, NOW + 3600) is None


async def test_a_later_denial_ends_links_and_a_later_allow_does_not(introduce, reading, run, ruling):
    await introduce()
    await run(note_links, key_id=KEY, model=CARS, until=NOW + 3600, now=NOW)
    await run(rule, ruling=await ruling(), now=NOW)
    assert await links(reading) is not None
    await run(rule, ruling=await ruling(reason=Reason.UPSTREAM_REFUSED), now=NOW)
    assert await links(reading) is None
    await run(rule, ruling=await ruling(), now=NOW)
    assert await links(reading) is None


@pytest.mark.parametrize(("keys", "models"), [([KEY], []), ([], [CARS]), ([], [])])
async def test_an_ending_ends_links(introduce, reading, run, ruling, keys, models):
    await introduce()
    await run(note_links, key_id=KEY, model=CARS, until=NOW + 3600, now=NOW)
    await run(end_rulings, keys=keys, models=models)
    await run(rule, ruling=await ruling(), now=NOW)
    assert await links(reading) is None


async def test_no_links_are_noted_where_nothing_is_allowed(introduce, reading, run, ruling):
    await introduce(model=TRUCKS)
    assert not await run(note_links, key_id=KEY, model=CARS, until=NOW + 9, now=NOW)
    await run(rule, ruling=await ruling(reason=Reason.UPSTREAM_REFUSED), now=NOW)
    assert not await run(note_links, key_id=KEY, model=CARS, until=NOW + 9, now=NOW)
    await run(rule, ruling=await ruling(), now=NOW)
    assert not await run(note_links, key_id=KEY, model=CARS, until=NOW + 99, now=NOW + 60), "it has ended"
    assert await links(reading) is None


async def test_links_of_a_key_of_our_own_need_no_note(run, store, make_key, acme):
    await run(_put_tenant, tenant=acme)
    await run(_put_key, key=make_key())
    before = await store.generation()
    assert await run(note_links, key_id=KEY, model=CARS, until=NOW + 9, now=NOW)
    assert await store.generation() == before


@pytest.mark.parametrize(
    "name", [names.ruling_fact(KEY, CARS), names.ending_fact(CARS), names.ending_fact(None)]
)
async def test_what_does_not_parse_is_not_in_force(introduce, reading, corrupt, name):
    await introduce()
    await corrupt(name)
    assert await find_ruling(reading, KEY, CARS, NOW) is None


async def test_no_answer_is_written_past_an_ending_that_does_not_parse(run, ruling, corrupt):
    await corrupt(names.ending_fact(CARS))
    assert not await run(rule, ruling=await ruling(), now=NOW)
