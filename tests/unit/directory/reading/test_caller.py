from __future__ import annotations

from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.edits.rulings import end_rulings, introduce_key, note_links, rule
from gateway.directory.reading.reader import DirectoryReader
from gateway.directory.records import names
from gateway.model.errors import Reason
from gateway.model.facts import DEFAULT_SCOPES, Alias, Grant, Grants
from gateway.model.names import KeyId, ModelId, Pattern, TenantId
from gateway.model.rulings import SOURCE_PLATFORM, Ruling
from tests import samples

pytestmark = pytest.mark.anyio

KEY, TENANT = KeyId("key_000000000001"), TenantId("platform-1")
CARS, TRUCKS, ALIAS = ModelId("acme/cars/1"), ModelId("acme/trucks/2"), ModelId("the-cars")
GIVEN = Grant(grant_id="given", actions=frozenset({"read"}), models=(Pattern("globex/*"),))
CALLER = samples.principal(key_id=KEY, tenant=TENANT, scopes=DEFAULT_SCOPES, is_of_platform=True)
LINK = replace(CALLER, is_link=True)


@dataclass
class ManualClock:
    time: float = 100.0

    def now(self):
        return self.time


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def reader(store, worker, policy, make_key, clock):
    async def fill(changes):
        await changes.put_policy(policy)
        await changes.put_alias(Alias(alias=ALIAS, canonical=CARS))
        await changes.put_grants(Grants(tenant_id=TENANT, grants=(GIVEN,)))
        ruling = Ruling(key_id=KEY, model=CARS, reason=Reason.PERMITTED, until=160.0, asked=0)
        key = make_key(tenant=TENANT, source=SOURCE_PLATFORM)
        await introduce_key(changes, key=key, digest=b"\x01" * 32, ruling=ruling, now=100.0)

    await change(store, fill)
    await worker.catches_up()
    return DirectoryReader(store, worker.facts, clock=clock)


async def gather(reader, *models, principal=CALLER):
    return await reader.gather(principal, models)


async def test_an_allow_is_a_grant_on_exactly_that_model_beside_the_tenants_own(reader):
    allowed, other = await gather(reader, CARS, TRUCKS)
    platform = allowed.grants[1]
    assert allowed.grants[0] == GIVEN
    assert (platform.grant_id, platform.source, platform.models) == ("platform", "platform", (Pattern(CARS),))
    assert platform.actions == {"discover", "read", "infer"}
    assert (allowed.is_confirmed, other.is_confirmed) == (True, False)
    assert allowed.grants is other.grants, "they can be decided in one go"


async def test_an_alias_stands_on_what_was_said_of_its_model(reader):
    [facts] = await gather(reader, ALIAS)
    assert (facts.model, facts.is_confirmed) == (CARS, True)
    assert names.ruling_fact(KEY, CARS) in {leaf.name for leaf in facts.stamp.leaves}


async def test_what_stands_on_an_allow_ends_with_it(reader, clock):
    [facts] = await gather(reader, CARS)
    clock.time = 159.9
    assert facts.stamp.is_current
    clock.time = 160.0
    assert not facts.stamp.is_current
    [facts] = await gather(reader, CARS)
    assert not facts.is_confirmed
    assert facts.grants == (GIVEN,)


async def test_a_key_that_is_not_the_platforms_has_nothing_of_all_this(reader):
    [facts] = await gather(reader, CARS, principal=replace(CALLER, is_of_platform=False))
    assert (facts.grants, facts.ruling, facts.is_confirmed) == ((GIVEN,), None, True)
    assert not any(leaf.name.startswith(names.FACTS + b"r:") for leaf in facts.stamp.leaves)


async def test_a_denial_settles_and_grants_nothing(store, reader, worker):
    denial = Ruling(
        key_id=KEY, model=TRUCKS, reason=Reason.UPSTREAM_REFUSED, until=110.0, asked=await store.generation()
    )
    await change(store, lambda changes: rule(changes, ruling=denial, now=100.0))
    await worker.catches_up()
    [facts] = await gather(reader, TRUCKS)
    assert (facts.is_confirmed, facts.ruling.reason, facts.grants) == (
        True,
        Reason.UPSTREAM_REFUSED,
        (GIVEN,),
    )


@pytest.mark.parametrize(("keys", "models"), [([KEY], []), ([], [CARS]), ([], [])])
async def test_an_ending_reaches_what_stands_on_the_allow(store, reader, worker, keys, models):
    [facts] = await gather(reader, CARS)
    await change(store, lambda changes: end_rulings(changes, keys=keys, models=models))
    await worker.catches_up()
    assert not facts.stamp.is_current
    [facts] = await gather(reader, CARS)
    assert not facts.is_confirmed


async def test_a_link_stands_on_its_minting_and_not_on_the_allow(store, reader, worker, clock):
    [facts] = await gather(reader, CARS, principal=LINK)
    assert not facts.is_confirmed, "nothing was minted"
    await change(store, lambda changes: note_links(changes, key_id=KEY, model=CARS, until=500.0, now=100.0))
    await worker.catches_up()
    clock.time = 300.0
    [facts] = await gather(reader, CARS, principal=LINK)
    assert facts.is_confirmed
    assert [grant.grant_id for grant in facts.grants] == ["given", "platform"]
    clock.time = 500.0
    assert not facts.stamp.is_current


async def test_what_the_platform_says_of_a_key_settles_what_names_no_model(store, reader, worker):
    [facts] = await gather(reader, None)
    assert not facts.is_confirmed
    standing = Ruling(
        key_id=KEY, model=None, reason=Reason.PERMITTED, until=160.0, asked=await store.generation()
    )
    await change(store, lambda changes: rule(changes, ruling=standing, now=100.0))
    await worker.catches_up()
    [facts] = await gather(reader, None)
    assert (facts.is_confirmed, facts.grants) == (True, (GIVEN,))


async def test_without_a_clock_nothing_is_in_force(store, worker, reader):
    [facts] = await DirectoryReader(store, worker.facts).gather(CALLER, [CARS])
    assert (facts.is_confirmed, facts.grants) == (False, (GIVEN,))


@pytest.mark.parametrize(
    "name", [names.ruling_fact(KEY, CARS), names.ending_fact(CARS), names.ending_fact(KEY, is_key=True)]
)
async def test_what_does_not_parse_leaves_it_unsettled(store, reader, worker, corrupt, name):
    await corrupt(name)
    await worker.catches_up()
    [facts] = await gather(reader, CARS)
    assert (facts.is_confirmed, facts.grants) == (False, (GIVEN,))


async def test_hidden_and_absent_are_read_alike(store, worker, reader):
    class Counting:
        def __init__(self):
            self.reads = []

        async def read(self, wanted):
            return await worker.facts.read(wanted)

        async def read_afresh(self, wanted):
            self.reads.append([len(name) for name in wanted])
            return await worker.facts.read_afresh(wanted)

    hidden, absent = Counting(), Counting()
    await DirectoryReader(store, hidden).gather(CALLER, [TRUCKS])
    await DirectoryReader(store, absent).gather(CALLER, [ModelId("acme/absent/2"[: len(TRUCKS)])])
    assert hidden.reads == absent.reads
