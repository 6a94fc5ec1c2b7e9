from __future__ import annotations

from functools import partial

import pytest
from msgspec.structs import replace

from gateway.directory.edits.bindings import forget_binding, make_binding, revoke_binding
from gateway.directory.edits.changes import Changes, change
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.model.errors import Reason, Refusal, UnknownName
from gateway.model.facts import Scope, Tenant
from gateway.model.issuers import Binding, ClaimMatch, Issuer, MappingRule
from gateway.model.names import BindingId, TenantId

pytestmark = pytest.mark.anyio

URL = "https://ci.example"


def rule(name, tenant="acme"):
    return MappingRule(
        name=name,
        tenant=TenantId(tenant),
        claims=(ClaimMatch(claim="ref", values=(name,)),),
        scopes=frozenset({Scope.READ}),
    )


ONE, TWO, THEIRS = rule("one"), rule("two"), rule("theirs", "globex")


def issuer(*rules, max_bindings=3):
    return Issuer(
        source="policies:issuers/ci",
        url=URL,
        audience="a",
        key_set_url="https://ci.example/keys",
        algorithms=("RS256",),
        types=("jwt",),
        leeway_seconds=0,
        max_lifetime_seconds=60,
        max_bindings=max_bindings,
        rules=rules or (ONE, TWO, THEIRS),
    )


def binding(number=1, subject="s", by=ONE):
    return Binding(
        binding_id=BindingId(f"bnd_{number:012d}"),
        url=URL,
        subject=subject,
        tenant=by.tenant,
        rules=(by.name,),
        created_at=1.0,
    )


@pytest.fixture
def listing(store):
    return Listing(PlainFacts(store))


@pytest.fixture(autouse=True)
async def _tenants(store):
    for tenant_id in ("acme", "globex"):
        tenant = Tenant(tenant_id=TenantId(tenant_id), name="", is_suspended=False, created_at=1.0)
        await change(store, partial(Changes.put_tenant, tenant=tenant))


@pytest.fixture
def put(store):
    async def put(fact):
        await change(store, lambda changes: changes.put(fact))

    return put


async def test_a_rule_in_force_makes_a_binding(run, put, listing):
    await put(issuer())
    await run(make_binding, issuer=issuer(), rule=ONE, new=binding())
    [found] = await listing.list_bindings(URL)
    assert replace(found, generation=0) == binding()
    assert await listing.find_binding_by_id(BindingId("bnd_000000000001")) == found


async def test_a_rule_that_is_no_longer_in_force_makes_none(run, put, listing):
    await put(issuer(TWO))
    await run(make_binding, issuer=issuer(), rule=ONE, new=binding())
    await run(make_binding, issuer=issuer(), rule=replace(TWO, tenant=TenantId("other")), new=binding())
    assert await listing.list_bindings(URL) == []


async def test_a_second_rule_for_the_same_tenant_is_added(run, put, listing):
    await put(issuer())
    for by in (ONE, TWO, ONE, TWO):
        await run(make_binding, issuer=issuer(), rule=by, new=binding(by=by))
    [found] = await listing.list_bindings(URL)
    assert found.rules == ("one", "two")


async def test_a_subject_is_of_one_tenant(run, put, listing):
    await put(issuer())
    await run(make_binding, issuer=issuer(), rule=ONE, new=binding())
    with pytest.raises(Refusal) as caught:
        await run(make_binding, issuer=issuer(), rule=THEIRS, new=binding(2, by=THEIRS))
    assert (caught.value.reason, caught.value.key_id, caught.value.tenant) == (
        Reason.AMBIGUOUS_TOKEN,
        "bnd_000000000001",
        "acme",
    )
    assert [one.tenant for one in await listing.list_bindings(URL)] == ["acme"]


async def test_a_binding_moves_where_the_document_has_changed(run, put, listing):
    await put(issuer())
    await run(make_binding, issuer=issuer(), rule=ONE, new=binding())
    await put(issuer(THEIRS))
    await run(make_binding, issuer=issuer(THEIRS), rule=THEIRS, new=binding(2, by=THEIRS))
    [found] = await listing.list_bindings(URL)
    assert (found.binding_id, found.tenant, found.rules) == ("bnd_000000000001", "globex", ("theirs",))


async def test_the_mapping_never_makes_a_binding_again_that_was_revoked(run, put, listing):
    await put(issuer())
    await run(make_binding, issuer=issuer(), rule=ONE, new=binding())
    revoked = await run(revoke_binding, binding_id=BindingId("bnd_000000000001"), now=5.0)
    assert revoked.is_changed
    again = await run(revoke_binding, binding_id=BindingId("bnd_000000000001"), now=9.0)
    assert not again.is_changed
    for by in (ONE, TWO, THEIRS):
        await run(make_binding, issuer=issuer(), rule=by, new=binding(2, by=by))
    await put(issuer(TWO))
    await run(make_binding, issuer=issuer(TWO), rule=TWO, new=binding(2, by=TWO))
    [found] = await listing.list_bindings(URL)
    assert (found.binding_id, found.revoked_at, found.rules) == ("bnd_000000000001", 5.0, ("one",))


async def test_a_revocation_outlives_the_document(run, put, listing, store):
    await put(issuer())
    await run(make_binding, issuer=issuer(), rule=ONE, new=binding())
    await run(revoke_binding, binding_id=BindingId("bnd_000000000001"), now=5.0)
    await change(store, lambda changes: changes.delete_issuer(URL))
    await put(issuer())
    await run(make_binding, issuer=issuer(), rule=ONE, new=binding(2))
    assert [one.revoked_at for one in await listing.list_bindings(URL)] == [5.0]


async def test_the_bindings_of_an_issuer_are_bounded_and_revoked_ones_count(run, put, listing):
    await put(issuer(max_bindings=2))
    for number in (1, 2):
        await run(make_binding, issuer=issuer(), rule=ONE, new=binding(number, f"s{number}"))
    await run(revoke_binding, binding_id=BindingId("bnd_000000000001"), now=5.0)
    with pytest.raises(Refusal) as caught:
        await run(make_binding, issuer=issuer(), rule=ONE, new=binding(3, "s3"))
    assert caught.value.reason is Reason.TOO_MANY_BINDINGS
    await run(make_binding, issuer=issuer(), rule=TWO, new=binding(4, "s2", by=TWO))  # known: no new one
    await run(forget_binding, binding_id=BindingId("bnd_000000000001"))
    await run(make_binding, issuer=issuer(), rule=ONE, new=binding(3, "s3"))
    assert [one.subject for one in await listing.list_bindings(URL)] == ["s2", "s3"]


async def test_a_binding_that_is_not_there_is_named(run):
    for edit in (forget_binding, revoke_binding):
        more = {"now": 1.0} if edit is revoke_binding else {}
        with pytest.raises(UnknownName):
            await run(edit, binding_id=BindingId("bnd_000000000009"), **more)


async def test_a_binding_is_of_the_record_of_its_tenant(run, put, listing):
    first = Tenant(
        tenant_id="acme", name="", is_suspended=False, created_at=1.0, record_id="ten_00000000000A"
    )
    await put(first)
    await put(issuer())
    await run(make_binding, issuer=issuer(), rule=ONE, new=binding())
    [found] = await listing.list_bindings(URL)
    assert found.tenant_record == first.record_id
    await put(replace(first, record_id="ten_00000000000B"))  # another tenant of the name
    with pytest.raises(Refusal) as caught:
        await run(make_binding, issuer=issuer(), rule=ONE, new=binding(2))
    assert caught.value.reason is Reason.AMBIGUOUS_TOKEN
    await put(issuer())  # the operator says again that the rule means this one
    await run(make_binding, issuer=issuer(), rule=TWO, new=binding(2))
    [found] = await listing.list_bindings(URL)
    assert (found.tenant_record, found.rules) == ("ten_00000000000B", ("two",))


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_tenant_that_is_gone_or_being_removed_gets_none(run, put, listing, store, is_there):
    removing = Tenant(tenant_id="acme", name="", is_suspended=True, created_at=1.0, removal="rem_1")
    if is_there:
        await put(removing)
    else:
        await change(store, lambda changes: changes.delete_tenant("acme"))
    await put(issuer())
    await run(make_binding, issuer=issuer(), rule=ONE, new=binding())
    assert await listing.list_bindings(URL) == []
