from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.redis_store import RedisStore
from gateway.directory.edits.changes import change
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.directory.transfer.lines import StoredKey
from gateway.directory.transfer.whole import bring_in, compare, each_fact
from gateway.model.errors import Conflict
from gateway.model.facts import Alias, Grant, Grants, KeyLife, ModelRule, Scope, Visibility
from gateway.model.issuers import Binding, ClaimMatch, Issuer, MappingRule, issuer_digest
from gateway.model.names import BindingId, KeyId, ModelId, Pattern, TenantId

pytestmark = pytest.mark.anyio

ISSUER = Issuer(
    source="policies:issuers/ci",
    url="https://ci.example",
    audience="us",
    key_set_url="https://ci.example/keys",
    algorithms=("RS256",),
    types=("jwt", ""),
    leeway_seconds=30,
    max_lifetime_seconds=600,
    max_bindings=10,
    rules=(
        MappingRule(
            name="main",
            tenant=TenantId("acme"),
            claims=(
                ClaimMatch(claim="ref", values=("main", "v/*")),
                ClaimMatch(claim="repository", values=("a/b",)),
            ),
            scopes=frozenset({Scope.READ, Scope.INFER}),
            networks=("10.0.0.0/8",),
            only=Pattern("acme/*"),
        ),
    ),
)
BINDING = Binding(
    binding_id=BindingId("bnd_000000000001"),
    url="https://ci.example",
    subject="repo:a/b:ref:main",
    tenant=TenantId("acme"),
    rules=("main",),
    created_at=1.0,
)


@pytest.fixture
def listing(store):
    return Listing(PlainFacts(store))


@pytest.fixture
async def filled(store, acme, policy, make_key):
    """A server with a fact of every kind, and a thousand keys, which are several pages."""

    async def fill(changes):
        await changes.put_policy(policy)
        await changes.put_tenant(acme)
        await changes.put_tenant(replace(acme, tenant_id=TenantId("globex"), is_suspended=True))
        await changes.put_rule(ModelRule(pattern=Pattern("acme/*"), owner=acme.tenant_id))
        await changes.put_rule(ModelRule(pattern=Pattern("acme/open"), visibility=Visibility.PUBLIC))
        await changes.put_alias(Alias(alias=ModelId("best"), canonical=ModelId("acme/open")))
        grant = Grant(grant_id="g", actions=frozenset({"read"}), models=(Pattern("acme/x"),))
        await changes.put_grants(Grants(tenant_id=TenantId("globex"), grants=(grant,)))
        await changes.put_issuer(ISSUER)
        await changes.put_binding(BINDING)
        await changes.put_binding(
            replace(BINDING, binding_id=BindingId("bnd_000000000002"), url="https://gone")
        )
        await changes.put_key(make_key(0, None), bytes(32))
        for number in range(1, 1001):
            tenant = "acme" if number % 3 else "globex"
            key = make_key(tenant=tenant, key_id=KeyId(f"key_{number % 97:02d}{number:010d}"))
            await changes.put_key(key, number.to_bytes(32, "big"))

    await change(store, fill)
    return store


async def all_facts(store):
    return [fact async for fact in each_fact(Listing(PlainFacts(store)))]


async def test_what_was_exported_and_imported_is_every_fact_and_every_index(filled, tmp_path):
    facts = await all_facts(filled)
    with EmbeddedValkey(tmp_path).running() as url:
        other = RedisStore(url)
        for start in range(0, len(facts), 100):
            batch = facts[start : start + 100]
            await change(other, lambda changes, batch=batch: bring_in(changes, batch, merge=False))
        assert await all_facts(other) == facts
        for index in (
            *(names.TENANTS, names.PATTERNS, names.ALIASES, names.ADMIN_KEYS),
            *(names.ISSUERS, names.BOUND_ISSUERS, names.issuer_bindings(issuer_digest("https://gone"))),
        ):
            assert set(await other.members(index)) == set(await filled.members(index)) != set()
        for tenant in ("acme", "globex"):
            index = names.tenant_keys(TenantId(tenant))
            assert set(await other.members(index)) == set(await filled.members(index)) != set()
        await other.close()
    assert len(facts) == 8 + 3 + 1001 - 1


async def test_an_export_tells_first_how_many_facts_there_are(filled):
    told = []
    count = 0
    async for _ in each_fact(Listing(PlainFacts(filled)), told.append):
        count += 1
    assert told == [count]


async def test_bringing_the_same_in_again_changes_nothing(filled, listing):
    facts = await all_facts(filled)
    before = await filled.generation()
    compared, moment = await change(filled, lambda changes: bring_in(changes, facts, merge=False))
    assert (compared.new, compared.same, compared.other) == (0, len(facts), ())
    assert moment.generation == before
    assert await compare(listing, facts) == compared


async def test_a_fact_that_says_something_else_is_refused_unless_merging(store, listing, acme):
    await change(store, lambda changes: changes.put_tenant(acme))
    renamed = replace(acme, name="Another")
    compared = await compare(listing, [renamed])
    assert (compared.new, compared.same, compared.other) == (0, 0, ("the tenant acme",))
    with pytest.raises(Conflict):
        await change(store, lambda changes: bring_in(changes, [renamed], merge=False))
    assert (await listing.find_tenant(acme.tenant_id)).name == "Acme"
    await change(store, lambda changes: bring_in(changes, [renamed], merge=True))
    assert (await listing.find_tenant(acme.tenant_id)).name == "Another"


async def test_a_refused_batch_writes_none_of_its_facts(store, listing, acme):
    await change(store, lambda changes: changes.put_tenant(acme))
    batch = [replace(acme, tenant_id=TenantId("aaaa")), replace(acme, name="Another")]
    with pytest.raises(Conflict):
        await change(store, lambda changes: bring_in(changes, batch, merge=False))
    assert [tenant.tenant_id for tenant in await listing.list_tenants()] == ["acme"]


async def test_merging_an_older_file_revives_neither_a_revoked_key_nor_a_suspended_tenant(
    store, listing, acme, make_key
):
    digest = b"\x07" * 32

    async def ended(changes):
        await changes.put_tenant(replace(acme, is_suspended=True))
        await changes.put_key(make_key(1, revoked_at=5.0), digest)

    await change(store, ended)
    older = [acme, StoredKey(digest=digest, key=make_key(1, name="as it was"))]
    await change(store, lambda changes: bring_in(changes, older, merge=True))
    assert (await listing.find_tenant(acme.tenant_id)).is_suspended
    key = await listing.find_key_by_digest(digest)
    assert (key.name, key.revoked_at) == ("as it was", 5.0)


async def test_merging_an_older_file_neither_enables_a_key_nor_makes_a_decoy_one(
    store, listing, acme, make_key
):
    lives = [KeyLife(disabled_at=5.0), KeyLife(is_decoy=True), KeyLife(revoked_for="leaked")]
    keys = [make_key(number, life=life) for number, life in enumerate(lives, 1)]
    keys[2] = replace(keys[2], revoked_at=6.0)

    async def put(changes):
        await changes.put_tenant(acme)
        for number, key in enumerate(keys):
            await changes.put_key(key, bytes([number]) * 32)

    await change(store, put)
    older = [StoredKey(digest=bytes([n]) * 32, key=make_key(n + 1, name="as it was")) for n in range(3)]
    await change(store, lambda changes: bring_in(changes, older, merge=True))
    found = [await listing.find_key_by_digest(bytes([number]) * 32) for number in range(3)]
    assert [(key.name, key.life, key.revoked_at) for key in found] == [
        ("as it was", life, key.revoked_at) for life, key in zip(lives, keys, strict=True)
    ]


@pytest.mark.parametrize(("before", "after"), [(None, 65.0), (90.0, 65.0), (30.0, 30.0)])
async def test_merging_an_older_file_does_not_make_the_overlap_of_a_rotation_longer(
    store, listing, acme, make_key, before, after
):
    digest, life = b"\x07" * 32, KeyLife(replaced_by=make_key(2).key_id)

    async def rotated(changes):
        await changes.put_tenant(acme)
        await changes.put_key(make_key(1, expires_at=after, life=life), digest)

    await change(store, rotated)
    older = [StoredKey(digest=digest, key=make_key(1, name="as it was", expires_at=before))]
    await change(store, lambda changes: bring_in(changes, older, merge=True))
    key = await listing.find_key_by_digest(digest)
    assert (key.name, key.expires_at, key.life) == ("as it was", after, life)


async def test_merging_repairs_a_record_that_does_not_parse(store, listing, corrupt, acme):
    await change(store, lambda changes: changes.put_tenant(acme))
    await corrupt(names.tenant_fact(acme.tenant_id))
    with pytest.raises(Conflict):
        await change(store, lambda changes: bring_in(changes, [acme], merge=False))
    await change(store, lambda changes: bring_in(changes, [acme], merge=True))
    assert (await listing.find_tenant(acme.tenant_id)).name == "Acme"


async def test_two_keys_never_share_an_id_or_a_digest(store, listing, acme, make_key):
    async def fill(changes):
        await changes.put_tenant(acme)
        await changes.put_key(make_key(1), b"\x01" * 32)

    await change(store, fill)
    same_id = StoredKey(digest=b"\x02" * 32, key=make_key(1))
    same_digest = StoredKey(digest=b"\x01" * 32, key=make_key(2))
    for clash in (same_id, same_digest):
        with pytest.raises(Conflict):
            await compare(listing, [clash])
    for merge in (False, True):
        with pytest.raises(Conflict):
            await change(store, lambda changes, merge=merge: bring_in(changes, [same_digest], merge=merge))
    twins = [StoredKey(digest=b"\x03" * 32, key=make_key(number)) for number in (3, 4)]
    with pytest.raises(Conflict):
        await change(store, lambda changes: bring_in(changes, twins, merge=True))


async def test_a_binding_that_was_revoked_here_stays_revoked(filled, listing):
    facts = await all_facts(filled)
    revoked = replace(BINDING, revoked_at=5.0)
    await change(filled, lambda changes: changes.put_binding(revoked))
    await change(filled, lambda changes: bring_in(changes, facts, merge=True))
    assert (await listing.find_binding_by_id(BINDING.binding_id)).revoked_at == 5.0
