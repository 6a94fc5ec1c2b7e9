from __future__ import annotations

import threading

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.memory.near_cache import ENTRY_BYTES
from gateway.directory.reading import read_set as read_set_module
from gateway.directory.reading import reader as reader_module
from gateway.directory.reading.read_set import DECODED_HERE_BYTES, MAX_NAMES_PER_READ
from gateway.directory.reading.reader import DirectoryReader
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.directory.records.codec import decode_grants, encode
from gateway.directory.records.fact_sizes import FACT_BYTES
from gateway.directory.records.policies import encode_policy
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.facts import Alias, Grant, Grants, KeyLife, ModelRule, Visibility
from gateway.model.names import GroupName, KeyId, ModelId, Pattern, TenantId
from gateway.model.stamps import LEAF_BYTES

pytestmark = pytest.mark.anyio

CARS = ModelId("acme/cars/1")
LATEST = ModelId("acme/latest")
DIGEST, OTHER_DIGEST = b"\x01" * 32, b"\x02" * 32
GRANT = Grant(grant_id="grant_1", actions=frozenset({"read"}), models=(Pattern("globex/*"),))


class CountingStore:
    """A real store that counts its reads."""

    def __init__(self, store):
        self.inner = store
        self.reads = []

    async def read(self, wanted):
        self.reads.append(list(wanted))
        return await self.inner.read(wanted)

    async def generation(self):
        return await self.inner.generation()


@pytest.fixture
async def facts(store, acme, policy, make_key):
    """A tenant with a key, grants, rules on each level and an alias; the policy in force."""

    async def fill(changes):
        await changes.put_tenant(acme)
        await changes.put_key(make_key(), DIGEST)
        await changes.put_policy(policy)
        await changes.put_grants(Grants(tenant_id=acme.tenant_id, grants=(GRANT,)))
        await changes.put_rule(ModelRule(pattern=Pattern("acme/*"), owner=acme.tenant_id))
        await changes.put_rule(ModelRule(pattern=Pattern("acme/cars/*"), groups=(GroupName("cars"),)))
        await changes.put_rule(ModelRule(pattern=Pattern(CARS), visibility=Visibility.PUBLIC))
        await changes.put_alias(Alias(alias=LATEST, canonical=CARS))

    await change(store, fill)
    return store


@pytest.fixture
def reported():
    return []


@pytest.fixture
def reader(facts, reported):
    return DirectoryReader(facts, PlainFacts(facts), on_unreadable=reported.append)


@pytest.fixture
async def near_reader(facts, worker):
    """A worker's reader, with a near cache and a feed."""
    await worker.catches_up()
    return DirectoryReader(facts, worker.facts)


def named(stamp):
    return {leaf.name: leaf.value for leaf in stamp.leaves}


async def test_a_key_comes_with_its_tenant_and_with_all_that_was_looked_at(reader, make_key, acme):
    key, tenant, stamp = await reader.find_key([OTHER_DIGEST, DIGEST])
    assert key == replace(make_key(), generation=1)
    assert tenant == replace(acme, generation=1)
    values = named(stamp)
    assert values.keys() == {
        names.key_fact(OTHER_DIGEST),
        names.key_fact(DIGEST),
        names.tenant_fact(acme.tenant_id),
    }
    assert values[names.key_fact(OTHER_DIGEST)] is None
    assert stamp.generation == 1


async def test_an_unknown_key_is_none_and_its_absence_is_in_the_stamp(reader):
    key, tenant, stamp = await reader.find_key([OTHER_DIGEST])
    assert (key, tenant) == (None, None)
    assert named(stamp) == {names.key_fact(OTHER_DIGEST): None}


@pytest.mark.parametrize(
    "whose", ["its own", "another tenant's", "nobody's", "an admin's", "an earlier one's"]
)
async def test_a_key_that_is_asked_about_is_read_in_one_way_whoever_has_it(whose, facts, make_key, acme):
    for number, tenant, record in ((2, "globex", None), (3, None, None), (5, "acme", "ten_0000000000AB")):
        key = make_key(number, tenant, tenant_record=record)
        await change(
            facts, lambda changes, key=key, number=number: changes.put_key(key, bytes([number]) * 32)
        )
    asked = {"its own": 1, "another tenant's": 2, "an admin's": 3, "nobody's": 4, "an earlier one's": 5}[
        whose
    ]
    counting = CountingStore(facts)
    reader = DirectoryReader(facts, PlainFacts(counting))
    key, tenant, stamp = await reader.find_key_of(make_key(asked).key_id, acme.tenant_id)
    [read] = counting.reads
    assert len(read) == 2
    assert read[1] == names.tenant_fact(acme.tenant_id)
    if whose == "its own":
        assert (key.key_id, tenant.tenant_id) == (make_key().key_id, acme.tenant_id)
        assert named(stamp).keys() == {names.key_fact(DIGEST), names.tenant_fact(acme.tenant_id)}
    else:
        assert (key, tenant) == (None, None)
        assert named(stamp).keys() == {names.tenant_fact(acme.tenant_id)}


async def test_a_key_that_is_asked_about_is_read_from_the_store_whatever_is_in_memory(
    near_reader, make_key, acme
):
    await near_reader.find_key([DIGEST])
    before = near_reader._source
    reads = []

    class Source:
        def __getattr__(self, name):
            reads.append(name)
            return getattr(before, name)

    near_reader._source = Source()
    key, _, _ = await near_reader.find_key_of(make_key().key_id, acme.tenant_id)
    assert key is not None
    assert reads == ["read_afresh"]


async def test_a_tenant_that_is_asked_about_is_none_where_it_is_not_there(reader, acme):
    tenant, stamp = await reader.find_tenant(acme.tenant_id)
    assert tenant == replace(acme, generation=1)
    assert stamp.leaves[0].value is not None
    tenant, stamp = await reader.find_tenant(TenantId("nobody"))
    assert tenant is None
    assert named(stamp) == {names.tenant_fact(TenantId("nobody")): None}


async def test_the_first_digest_that_has_a_record_decides(facts, reader, make_key):
    await change(facts, lambda changes: changes.put_key(make_key(2), OTHER_DIGEST))
    key, _, _ = await reader.find_key([OTHER_DIGEST, DIGEST])
    assert key.key_id == make_key(2).key_id


async def test_a_key_whose_tenant_is_gone_comes_without_one(reader, corrupt, acme):
    await corrupt(names.tenant_fact(acme.tenant_id), None)
    key, tenant, _ = await reader.find_key([DIGEST])
    assert key is not None
    assert tenant is None


@pytest.mark.parametrize(
    "changes",
    [
        {"revoked_at": 5.0},
        {"revoked_at": 5.0, "life": KeyLife(revoked_for="in a build log", replaced_by="key_000000000009")},
        {"life": KeyLife(disabled_at=5.0)},
        {"life": KeyLife(is_decoy=True)},
        {"revoked_at": 5.0, "tenant_record": "ten_000000000001"},  # of a tenant that was removed
    ],
)
async def test_a_key_that_has_ended_costs_the_reads_of_one_that_nobody_has(facts, make_key, changes):
    await change(facts, lambda facts_now: facts_now.put_key(make_key(**changes), DIGEST))
    read = []
    for digest in (DIGEST, b"\x09" * 32):
        counting = CountingStore(facts)
        found, _, stamp = await DirectoryReader(counting, PlainFacts(counting)).find_key([digest])
        read.append(([len(names_read) for names_read in counting.reads], len(stamp.leaves), found is None))
    assert read == [([1], 1, False), ([1], 1, True)]


async def test_an_admin_key_has_no_tenant(facts, reader, make_key):
    admin = make_key(3, tenant=None)
    await change(facts, lambda changes: changes.put_key(admin, OTHER_DIGEST))
    assert (await reader.find_key([OTHER_DIGEST]))[:2] == (replace(admin, generation=2), None)


async def test_a_malformed_key_or_tenant_record_refuses_and_is_reported(
    facts, reader, corrupt, acme, make_key, reported
):
    tenant_name, key_name = names.tenant_fact(acme.tenant_id), names.key_fact(DIGEST)
    of_record = make_key(tenant_record="ten_000000000001")
    await change(facts, lambda changes: changes.put_key(of_record, DIGEST))
    await corrupt(tenant_name)
    with pytest.raises(Refusal) as refused:
        await reader.find_key([DIGEST])
    assert refused.value.reason is Reason.UNREADABLE_KEY
    assert (refused.value.key_id, refused.value.tenant) == (of_record.key_id, acme.tenant_id)
    assert refused.value.tenant_record == of_record.tenant_record
    await corrupt(key_name)
    with pytest.raises(Refusal) as refused:
        await reader.find_key([DIGEST])
    assert refused.value.reason is Reason.UNREADABLE_KEY
    assert reported == [tenant_name.decode(), key_name.decode()]


async def test_facts_hold_the_grants_the_policy_and_the_standing(reader, principal, policy):
    (facts,) = await reader.gather(principal, [CARS])
    assert facts.grants == (GRANT,)
    assert facts.policy == replace(policy, generation=1)
    assert facts.requested == facts.model == CARS
    assert facts.model_standing.owner == "acme"
    assert facts.model_standing.visibility is Visibility.PUBLIC
    assert facts.model_standing.groups == {"cars"}
    assert facts.requested_standing == facts.model_standing
    assert facts.unreadable == ()


async def test_what_is_decoded_is_charged_to_the_near_cache(near_reader, worker, principal):
    await near_reader.gather(principal, [CARS])
    leaves = list(worker.facts.cache._leaves.values())
    decoded = [leaf for leaf in leaves if leaf.decoded is not None]
    assert len(decoded) >= 5  # the policy, the grants, and a rule on each level
    for leaf in decoded:
        assert leaf.held_bytes >= LEAF_BYTES + len(leaf.name) + len(leaf.value) + FACT_BYTES
    assert worker.facts.cache.held_bytes == sum(ENTRY_BYTES + leaf.held_bytes for leaf in leaves)


async def test_many_grants_are_decoded_off_the_loop_and_once(reader, facts, principal, monkeypatch):
    threads = []

    def decode(raw, tenant_id):
        threads.append(threading.current_thread())
        return decode_grants(raw, tenant_id)

    for module in (reader_module, read_set_module):
        monkeypatch.setattr(module, "decode_grants", decode)
    await reader.gather(principal, [CARS])
    assert threads == [threading.main_thread()]
    many = tuple(replace(GRANT, grant_id=f"grant_{number}") for number in range(2_000))
    await change(facts, lambda changes: changes.put_grants(Grants(tenant_id=principal.tenant, grants=many)))
    [about] = await reader.gather(principal, [CARS])
    assert len(about.grants) == len(many)
    assert len(threads) == 2
    assert threads[1] is not threading.main_thread()


async def test_a_large_record_that_does_not_parse_denies_as_a_small_one_does(
    reader, principal, corrupt, reported
):
    name = names.grants_fact(principal.tenant)
    await corrupt(name, b"x" * (DECODED_HERE_BYTES + 1))
    [about] = await reader.gather(principal, [CARS])
    assert about.unreadable == (name.decode(),)
    assert reported == [name.decode()]


async def test_an_alias_brings_the_standing_of_both_names(reader, principal):
    (facts,) = await reader.gather(principal, [LATEST])
    assert (facts.requested, facts.model) == (LATEST, CARS)
    assert facts.requested_standing.visibility is Visibility.PRIVATE
    assert facts.model_standing.visibility is Visibility.PUBLIC
    stamped = named(facts.stamp).keys()
    assert {names.alias_fact(LATEST), names.alias_fact(CARS), names.rule_fact(Pattern(CARS))} <= stamped


async def test_a_decision_costs_the_same_round_trips_for_an_alias_a_model_and_nothing_at_all(
    facts, worker, principal
):
    await worker.catches_up()
    counting = CountingStore(facts)
    worker.facts._store = counting
    reader = DirectoryReader(counting, worker.facts)
    for model in (LATEST, CARS, ModelId("nobody/knows"), CARS, LATEST):
        await reader.gather(principal, [CARS])  # cached now; the next call must read it from the store again
        counting.reads.clear()
        await reader.gather(principal, [model])
        assert len(counting.reads) == 2


async def test_a_known_caller_costs_no_round_trip(facts, worker, principal):
    await worker.catches_up()
    counting = CountingStore(facts)
    worker.facts._store = counting
    reader = DirectoryReader(counting, worker.facts)
    await reader.find_key([OTHER_DIGEST, DIGEST])
    await reader.gather(principal, [None])
    counting.reads.clear()
    await reader.find_key([OTHER_DIGEST, DIGEST])
    await reader.gather(principal, [None])
    assert counting.reads == []


async def test_a_key_is_found_again_by_what_it_stood_on(near_reader, facts, worker, make_key):
    _, _, stamp = await near_reader.find_key([OTHER_DIGEST, DIGEST])
    revoked = make_key(revoked_at=9.0)
    await change(facts, lambda changes: changes.put_key(revoked, DIGEST))
    await worker.catches_up()
    key, _, _ = await near_reader.find_key_again(stamp)
    assert key.revoked_at == 9.0


async def test_the_index_leads_from_a_key_id_to_a_digest_and_from_no_other_id_anywhere(reader, make_key):
    assert await reader.find_key_digest(make_key().key_id) == DIGEST
    assert await reader.find_key_digest(KeyId("key_zzzzzzzzzzzz")) is None


async def test_an_index_entry_that_is_no_digest_leads_nowhere_and_is_reported(
    facts, reader, reported, make_key
):
    name, field = names.key_digest(make_key().key_id)
    await facts.put_hash(name, {field: b"short"})
    assert await reader.find_key_digest(make_key().key_id) is None
    assert [name.decode() in one for one in reported] == [True]


async def test_a_key_record_under_another_digest_is_refused(facts, reader, corrupt):
    # A record that was moved, or a reply that reached the wrong reader, is not used for another key.
    _, [record] = await facts.read([names.key_fact(DIGEST)])
    await corrupt(names.key_fact(OTHER_DIGEST), record)
    with pytest.raises(Refusal) as refused:
        await reader.find_key([OTHER_DIGEST])
    assert refused.value.reason is Reason.UNREADABLE_KEY


async def test_thousands_of_models_are_read_in_bounded_pages(facts, principal):
    counting = CountingStore(facts)
    models = [ModelId(f"acme/m/{number}") for number in range(MAX_NAMES_PER_READ)]
    found = await DirectoryReader(counting, PlainFacts(counting)).gather(principal, models)
    assert [entry.model for entry in found] == models
    assert {entry.model_standing.owner for entry in found} == {"acme"}
    assert max(map(len, counting.reads)) == MAX_NAMES_PER_READ


async def test_facts_about_no_model_are_the_callers_own(reader, principal):
    (facts,) = await reader.gather(principal, [None])
    assert (facts.requested, facts.model, facts.requested_standing, facts.model_standing) == (None,) * 4
    assert facts.grants == (GRANT,)


async def test_an_admin_brings_no_grants(reader, principal):
    (facts,) = await reader.gather(replace(principal, tenant=None), [CARS])
    assert facts.grants == ()
    assert names.grants_fact(TenantId("acme")) not in named(facts.stamp)


async def test_an_alias_of_an_alias_is_unresolved_and_denies(reader, principal, corrupt):
    chained = ModelId("acme/chained")
    await corrupt(names.alias_fact(chained), encode(Alias(alias=chained, canonical=LATEST)))
    (facts,) = await reader.gather(principal, [chained])
    assert facts.model is None
    assert facts.model_standing is None
    assert facts.unreadable == (names.alias_fact(chained).decode(),)


@pytest.mark.parametrize(
    "name",
    [
        names.grants_fact(TenantId("acme")),
        names.rule_fact(Pattern("acme/*")),
        names.rule_fact(Pattern("acme/cars/*")),
        names.rule_fact(Pattern(CARS)),
        names.alias_fact(CARS),
        names.alias_fact(LATEST),
    ],
)
async def test_a_malformed_record_anywhere_on_the_way_denies_and_is_reported(
    reader, principal, corrupt, reported, name
):
    await corrupt(name)
    (facts,) = await reader.gather(principal, [LATEST])
    assert name.decode() in facts.unreadable
    assert reported == [name.decode()]


async def test_a_malformed_record_of_another_model_denies_nothing_here(reader, principal, corrupt):
    broken = ModelId("acme/broken")
    await corrupt(names.rule_fact(Pattern(broken)))
    sound, unsound = await reader.gather(principal, [CARS, broken])
    assert sound.unreadable == ()
    assert unsound.unreadable == (names.rule_fact(Pattern(broken)).decode(),)


@pytest.mark.parametrize("raw", [None, b"\xc1garbage"])
async def test_without_a_usable_policy_nothing_is_decided(reader, principal, corrupt, raw):
    await corrupt(names.POLICY, raw)
    with pytest.raises(Unavailable) as unavailable:
        await reader.gather(principal, [CARS])
    assert unavailable.value.reason is Reason.NO_POLICY


@pytest.mark.parametrize("raw", [None, b"\xc1garbage"])
async def test_without_the_texts_of_the_policy_nothing_is_decided(facts, reader, principal, corrupt, raw):
    text_name = next(name for name in await raw_fact_names(facts) if name.startswith(names.FACTS + b"x:"))
    await corrupt(text_name, raw)
    with pytest.raises(Unavailable) as unavailable:
        await reader.gather(principal, [CARS])
    assert unavailable.value.reason is Reason.NO_POLICY


async def raw_fact_names(store):
    return await store._client.execute_command("KEYS", names.FACTS + b"*")


async def test_a_policy_applied_between_two_looks_is_found(facts, principal, policy):
    newer = replace(policy, schema="entity Newer;", digest="d2")

    _, text_digest, _ = encode_policy(replace(policy, generation=1))

    class ApplyingStore(CountingStore):
        async def read(self, wanted):
            if wanted == [names.policy_text(text_digest)]:  # the head was read, its texts were not
                await change(facts, lambda changes: changes.put_policy(newer))
            return await super().read(wanted)

    store = ApplyingStore(facts)
    (found,) = await DirectoryReader(store, PlainFacts(store)).gather(principal, [CARS])
    assert found.policy == replace(newer, generation=2)


async def test_an_answer_is_true_until_one_of_its_records_moves(
    facts, near_reader, worker, principal, corrupt
):
    (found,) = await near_reader.gather(principal, [LATEST])
    assert near_reader.still_true(found.stamp, 0.0)
    await corrupt(b"{cachegate}:f:t:somebody-else", b"x")
    await worker.catches_up()
    assert near_reader.still_true(found.stamp, 0.0)
    rule = ModelRule(pattern=Pattern(CARS), visibility=Visibility.PRIVATE)
    await change(facts, lambda changes: changes.put_rule(rule))
    await worker.catches_up()
    assert not near_reader.still_true(found.stamp, 0.0)


async def test_a_fact_that_was_absent_and_appears_moves_the_answer(facts, near_reader, worker, principal):
    (found,) = await near_reader.gather(principal, [ModelId("initech/x")])
    rule = ModelRule(pattern=Pattern("initech/*"), owner=TenantId("initech"))
    await change(facts, lambda changes: changes.put_rule(rule))
    await worker.catches_up()
    assert not near_reader.still_true(found.stamp, 0.0)


async def test_a_revocation_moves_what_stands_on_the_key(facts, near_reader, worker, principal, make_key):
    _, _, stamp = await near_reader.find_key([DIGEST])
    (found,) = await near_reader.gather(principal, [CARS])
    await change(facts, lambda changes: changes.put_key(make_key(revoked_at=2.0), DIGEST))
    await worker.catches_up()
    assert not near_reader.still_true(stamp.joined(found.stamp), 0.0)
    assert near_reader.still_true(found.stamp, 0.0)


async def test_nothing_is_true_without_a_lease_and_nothing_lasts_longer_than_was_allowed(
    near_reader, worker, principal
):
    (found,) = await near_reader.gather(principal, [CARS])
    assert near_reader.is_leased()
    worker.lease.until = worker.facts._clock.monotonic() - 10.0
    assert not near_reader.is_leased()
    for seconds, is_fresh in ((0.0, False), (9.0, False), (60.0, True)):
        assert near_reader.is_fresh(seconds) is is_fresh
        if is_fresh:
            near_reader.verify_fresh(seconds)
            assert near_reader.still_true(found.stamp, seconds)
            continue
        for check in (near_reader.verify_fresh, lambda s: near_reader.still_true(found.stamp, s)):
            with pytest.raises(Unavailable) as unavailable:
                check(seconds)
            assert unavailable.value.reason is Reason.NO_LEASE


async def test_known_models_are_the_exact_ids_that_facts_name(facts, reader):
    grant = replace(GRANT, models=(Pattern("globex/shared/1"), Pattern("globex/*")))
    await change(
        facts, lambda changes: changes.put_grants(Grants(tenant_id=TenantId("acme"), grants=(grant,)))
    )
    assert await reader.known_models() == {CARS, "globex/shared/1"}


class Clock:
    def __init__(self, time):
        self.time = time

    def now(self):
        return self.time


class TestPeriods:
    """What begins and ends, in a worker's memory that nobody tells of a change."""

    @pytest.fixture
    def clock(self):
        return Clock(10.0)

    @pytest.fixture
    def timed(self, facts, worker, clock):
        return DirectoryReader(facts, worker.facts, clock=clock)

    async def test_grants_are_parted_by_their_state_and_the_stamp_ends_with_it(
        self, store, worker, timed, clock, principal, acme
    ):
        grants = tuple(replace(GRANT, grant_id=name, **times) for name, times in (
            ("ends", {"expires_at": 20.0}), ("begins", {"not_before": 15.0}), ("always", {}),
        ))  # fmt: skip
        await change(
            store, lambda changes: changes.put_grants(Grants(tenant_id=acme.tenant_id, grants=grants))
        )
        await worker.catches_up()

        async def look():
            [found] = await timed.gather(principal, [CARS])
            groups = (found.grants, found.ahead, found.ended)
            return found, tuple({grant.grant_id for grant in group} for group in groups)

        first, states = await look()
        assert states == ({"ends", "always"}, {"begins"}, set())
        again, _ = await look()
        assert again.grants is first.grants  # so that what is made of them is made once
        assert first.stamp.is_current
        clock.time = 15.0
        assert not first.stamp.is_current
        second, states = await look()
        assert states == ({"ends", "begins", "always"}, set(), set())
        clock.time = 20.0
        assert not second.stamp.is_current
        assert (await look())[1] == ({"begins", "always"}, set(), {"ends"})
        clock.time = 10.0
        assert (await look())[1] == ({"always"}, {"begins"}, {"ends"})

    async def test_a_large_record_is_charged_once_for_all_answers_until_the_next_moment(
        self, store, worker, timed, principal, acme
    ):
        grants = tuple(replace(GRANT, grant_id=f"g{number}", expires_at=20.0) for number in range(100))
        await change(
            store, lambda changes: changes.put_grants(Grants(tenant_id=acme.tenant_id, grants=grants))
        )
        await worker.catches_up()
        one, two = [(await timed.gather(principal, [model]))[0] for model in (CARS, LATEST)]
        name = names.grants_fact(acme.tenant_id)
        leaves = [next(leaf for leaf in found.stamp.leaves if leaf.name == name) for found in (one, two)]
        assert leaves[0] is leaves[1]

    async def test_a_publication_ends_and_leaves_the_model_private_under_a_public_prefix(
        self, store, worker, timed, clock, principal
    ):
        async def publish(changes):
            await changes.put_rule(ModelRule(pattern=Pattern("hub/*"), visibility=Visibility.PUBLIC))
            await changes.put_rule(
                ModelRule(
                    pattern=Pattern("hub/x"), visibility=Visibility.PUBLIC, not_before=12.0, expires_at=20.0
                )
            )

        await change(store, publish)
        await worker.catches_up()
        seen = []
        for time in (10.0, 12.0, 19.999, 20.0):
            clock.time = time
            found, other = await timed.gather(principal, [ModelId("hub/x"), ModelId("hub/y")])
            assert other.model_standing.visibility is Visibility.PUBLIC
            seen.append(found.model_standing.visibility)
        private, public = Visibility.PRIVATE, Visibility.PUBLIC
        assert seen == [private, public, public, private]

    async def test_without_a_clock_only_what_has_no_times_counts(self, store, facts, principal, acme):
        grants = (replace(GRANT, expires_at=4e12), replace(GRANT, grant_id="always"))
        await change(
            store, lambda changes: changes.put_grants(Grants(tenant_id=acme.tenant_id, grants=grants))
        )
        [found] = await DirectoryReader(facts, PlainFacts(facts)).gather(principal, [CARS])
        assert [grant.grant_id for grant in found.grants] == ["always"]


class TestRecordsOfOneName:
    """A caller has what names its own tenant's record, and nothing of another record of the name."""

    @pytest.mark.parametrize(
        ("of_caller", "of_facts", "has_it"),
        [
            (None, None, True),
            ("ten_00000000000A", "ten_00000000000A", True),
            ("ten_00000000000B", "ten_00000000000A", False),
            ("ten_00000000000B", None, False),
            (None, "ten_00000000000A", False),
        ],
    )
    async def test_grants_and_ownership(self, store, reader, principal, acme, of_caller, of_facts, has_it):
        async def fill(changes):
            held = Grants(tenant_id=acme.tenant_id, tenant_record=of_facts, grants=(GRANT,))
            await changes.put_grants(held)
            await changes.put_rule(
                ModelRule(pattern=Pattern("acme/*"), owner=acme.tenant_id, owner_record=of_facts)
            )

        await change(store, fill)
        [found] = await reader.gather(replace(principal, tenant_record=of_caller), [CARS])
        assert (found.model_standing.owner == acme.tenant_id) is has_it
        assert bool(found.grants) is has_it
        assert (found.ended, found.ahead) == ((), ())
