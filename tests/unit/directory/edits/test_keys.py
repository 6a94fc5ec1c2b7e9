from __future__ import annotations

from functools import partial

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.edits.keys import (
    MAX_OVERLAP_SECONDS,
    change_key,
    close_overlap,
    create_key,
    disable_key,
    enable_key,
    import_key,
    is_rotating,
    revoke_key,
    rotate_key,
)
from gateway.directory.edits.tenants import suspend_tenant
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.model.errors import Conflict
from gateway.model.facts import UNCHANGED, KeyLife, Role, Scope
from gateway.model.key_changes import KeyChange
from gateway.model.names import TenantId

pytestmark = pytest.mark.anyio

OLD, NEW = b"\x01" * 32, b"\x02" * 32


@pytest.fixture(autouse=True)
async def tenant(store, acme):
    await change(store, lambda changes: changes.put_tenant(acme))


@pytest.fixture
def listing(store):
    return Listing(PlainFacts(store))


async def test_a_created_key_is_found_by_id_and_digest(run, listing, make_key):
    key = make_key(expires_at=9.0)
    await run(create_key, key=key, digest=OLD)
    assert (
        await listing.find_key(key.key_id)
        == await listing.find_key_by_digest(OLD)
        == replace(key, generation=2)
    )


async def test_a_key_is_created_once(run, make_key):
    await run(create_key, key=make_key(1), digest=OLD)
    with pytest.raises(Conflict, match="already"):
        await run(create_key, key=make_key(1), digest=NEW)
    with pytest.raises(Conflict, match=make_key(1).key_id):
        await run(create_key, key=make_key(2), digest=OLD)


async def test_importing_the_same_key_again_changes_nothing_unless_it_was_revoked(run, make_key):
    assert (await run(import_key, key=make_key(1), digest=OLD)).is_changed
    assert not (await run(import_key, key=make_key(2), digest=OLD)).is_changed
    await run(revoke_key, key_id=make_key(1).key_id, now=5.0)
    with pytest.raises(Conflict, match="known already"):
        await run(import_key, key=make_key(3), digest=OLD)


async def test_a_suspended_tenant_gets_no_new_keys_but_loses_old_ones(run, listing, make_key):
    await run(create_key, key=make_key(1), digest=OLD)
    await run(suspend_tenant, tenant_id=TenantId("acme"))
    for operation in (create_key, import_key):
        with pytest.raises(Conflict, match="suspended"):
            await run(operation, key=make_key(2), digest=NEW)
    rotation = {"successor": make_key(2), "digest": NEW, "now": 5.0, "overlap_seconds": 1.0}
    with pytest.raises(Conflict, match="suspended"):
        await run(rotate_key, key_id=make_key(1).key_id, **rotation)
    await run(revoke_key, key_id=make_key(1).key_id, now=5.0)
    assert (await listing.find_key(make_key(1).key_id)).revoked_at == 5.0


async def test_nobody_gets_a_key_of_an_unknown_tenant_and_admins_need_none(run, make_key):
    with pytest.raises(Conflict, match="no tenant"):
        await run(create_key, key=make_key(tenant="globex"), digest=OLD)
    assert (await run(create_key, key=make_key(tenant=None), digest=OLD)).is_changed


async def test_a_second_revocation_keeps_the_time_of_the_first(run, listing, make_key):
    key_id = make_key().key_id
    await run(create_key, key=make_key(), digest=OLD)
    assert (await run(revoke_key, key_id=key_id, now=5.0)).is_changed
    assert not (await run(revoke_key, key_id=key_id, now=6.0)).is_changed
    assert (await listing.find_key(key_id)).revoked_at == 5.0


async def test_a_key_that_is_not_there_is_not_revoked(run, make_key):
    with pytest.raises(Conflict, match="no key"):
        await run(revoke_key, key_id=make_key().key_id, now=5.0)


async def test_a_successor_takes_over_what_the_old_key_may_do(run, listing, make_key):
    old = make_key(1, name="ci", scopes=frozenset({Scope.READ}), networks=("10.0.0.0/8",))
    await run(create_key, key=old, digest=OLD)
    wider = make_key(2, tenant=None, name="x", expires_at=99.0, pepper_id="p2")
    await run(rotate_key, key_id=old.key_id, successor=wider, digest=NEW, now=5.0, overlap_seconds=60.0)
    new = await listing.find_key(wider.key_id)
    assert (new.tenant, new.kind, new.name, new.scopes, new.networks) == (
        old.tenant,
        old.kind,
        old.name,
        old.scopes,
        old.networks,
    )
    assert (new.expires_at, new.pepper_id) == (99.0, "p2")
    assert [key.key_id for key in await listing.list_keys(old.tenant)] == [old.key_id, new.key_id]


@pytest.mark.parametrize(
    ("expires_at", "overlap", "ends_at", "revoked_at"),
    [
        (None, 60.0, 65.0, None),
        (30.0, 60.0, 30.0, None),
        (90.0, 60.0, 65.0, None),
        (90.0, 0.0, 90.0, 5.0),
        (None, 0, None, 5.0),
        (None, MAX_OVERLAP_SECONDS, 5.0 + MAX_OVERLAP_SECONDS, None),
    ],
)
async def test_the_old_key_ends_with_the_overlap_or_before(
    run, listing, make_key, expires_at, overlap, ends_at, revoked_at
):
    old = make_key(1, expires_at=expires_at)
    await run(create_key, key=old, digest=OLD)
    rotation = {"successor": make_key(2), "digest": NEW, "now": 5.0, "overlap_seconds": overlap}
    await run(rotate_key, key_id=old.key_id, **rotation)
    found = await listing.find_key(old.key_id)
    assert (found.expires_at, found.revoked_at) == (ends_at, revoked_at)


@pytest.mark.parametrize("overlap", [-1.0, MAX_OVERLAP_SECONDS + 1, float("nan"), float("inf")])
async def test_an_overlap_out_of_bounds_is_refused(run, make_key, overlap):
    await run(create_key, key=make_key(1), digest=OLD)
    rotation = {"successor": make_key(2), "digest": NEW, "now": 5.0, "overlap_seconds": overlap}
    with pytest.raises(Conflict, match="30 days"):
        await run(rotate_key, key_id=make_key(1).key_id, **rotation)


@pytest.mark.parametrize("ended", [{"revoked_at": 4.0}, {"expires_at": 5.0}])
async def test_a_key_that_has_ended_is_not_rotated(store, run, make_key, ended):
    await change(store, lambda changes: changes.put_key(make_key(1, **ended), OLD))
    rotation = {"successor": make_key(2), "digest": NEW, "now": 5.0, "overlap_seconds": 1.0}
    with pytest.raises(Conflict, match="has ended"):
        await run(rotate_key, key_id=make_key(1).key_id, **rotation)


@pytest.mark.parametrize(("asked", "expires_at"), [(None, 90.0), (70.0, 70.0), (99.0, 99.0)])
async def test_a_successor_begins_and_ends_with_the_old_key_unless_an_end_was_asked_for(
    run, listing, make_key, asked, expires_at
):
    await run(create_key, key=make_key(1, not_before=20.0, expires_at=90.0), digest=OLD)
    rotation = {"successor": make_key(2, expires_at=asked), "digest": NEW, "now": 5.0, "overlap_seconds": 1.0}
    await run(rotate_key, key_id=make_key(1).key_id, **rotation)
    heir = await listing.find_key(make_key(2).key_id)
    assert (heir.not_before, heir.expires_at) == (20.0, expires_at)


async def test_a_successor_that_would_end_before_it_begins_is_refused(run, make_key):
    await run(create_key, key=make_key(1, not_before=20.0), digest=OLD)
    rotation = {"successor": make_key(2, expires_at=10.0), "digest": NEW, "now": 5.0, "overlap_seconds": 1.0}
    with pytest.raises(Conflict, match="--expires"):
        await run(rotate_key, key_id=make_key(1).key_id, **rotation)


async def test_a_disabled_key_stays_so_until_it_is_enabled(run, listing, make_key):
    key_id = make_key().key_id
    await run(create_key, key=make_key(), digest=OLD)
    assert (await run(disable_key, key_id=key_id, now=5.0)).is_changed
    assert not (await run(disable_key, key_id=key_id, now=6.0)).is_changed
    assert (await listing.find_key(key_id)).life.disabled_at == 5.0
    assert (await run(enable_key, key_id=key_id, now=7.0)).is_changed
    assert not (await run(enable_key, key_id=key_id, now=8.0)).is_changed
    assert (await listing.find_key(key_id)).life == UNCHANGED


async def test_a_key_of_a_suspended_tenant_is_disabled_and_not_enabled(run, make_key):
    key_id = make_key().key_id
    await run(create_key, key=make_key(), digest=OLD)
    await run(suspend_tenant, tenant_id=TenantId("acme"))
    await run(disable_key, key_id=key_id, now=5.0)
    with pytest.raises(Conflict, match="suspended"):
        await run(enable_key, key_id=key_id, now=6.0)


@pytest.mark.parametrize("ended", [{"revoked_at": 4.0}, {"expires_at": 5.0}])
@pytest.mark.parametrize("edit", [disable_key, enable_key, partial(change_key, wanted=KeyChange(name="x"))])
async def test_a_key_that_has_ended_is_changed_no_more(store, run, make_key, ended, edit):
    await change(store, lambda changes: changes.put_key(make_key(1, **ended), OLD))
    with pytest.raises(Conflict, match="has ended"):
        await run(edit, key_id=make_key(1).key_id, now=5.0)


@pytest.mark.parametrize("edit", [disable_key, enable_key, partial(change_key, wanted=KeyChange(name="x"))])
async def test_a_decoy_can_only_be_revoked(run, listing, make_key, edit):
    decoy = make_key(1, life=KeyLife(is_decoy=True))
    await run(create_key, key=decoy, digest=OLD)
    rotation = {"successor": make_key(2), "digest": NEW, "now": 5.0, "overlap_seconds": 1.0}
    for refused in (partial(edit, now=5.0), partial(rotate_key, **rotation)):
        with pytest.raises(Conflict, match="decoy"):
            await run(refused, key_id=decoy.key_id)
    await run(revoke_key, key_id=decoy.key_id, now=6.0)
    assert (await listing.find_key(decoy.key_id)).revoked_at == 6.0


async def test_a_revocation_keeps_its_reason(run, listing, make_key):
    key_id = make_key().key_id
    await run(create_key, key=make_key(), digest=OLD)
    await run(revoke_key, key_id=key_id, now=5.0, reason="in a build log")
    await run(revoke_key, key_id=key_id, now=6.0, reason="another")
    found = await listing.find_key(key_id)
    assert (found.revoked_at, found.life.revoked_for) == (5.0, "in a build log")


async def test_what_is_named_is_changed_and_nothing_else(run, listing, make_key):
    key = make_key(name="ci", networks=("10.0.0.0/8",), expires_at=90.0)
    await run(create_key, key=key, digest=OLD)
    wanted = KeyChange(scopes=frozenset({Scope.READ}), networks=(), expires_at=None)
    effect = await run(change_key, key_id=key.key_id, wanted=wanted, now=5.0)
    found = await listing.find_key(key.key_id)
    assert effect.is_changed
    assert (found.name, found.scopes, found.networks, found.expires_at) == (
        "ci", frozenset({Scope.READ}), (), None,
    )  # fmt: skip
    assert not (await run(change_key, key_id=key.key_id, wanted=wanted, now=5.0)).is_changed


@pytest.mark.parametrize(
    ("owner", "role", "scope"),
    [
        (None, Role.AUDITOR, Scope.KEYS_MANAGE),
        (None, None, Scope.READ),
        ("acme", Role.TENANT_ADMIN, Scope.READ),
        ("acme", Role.TENANT_ADMIN, Scope.TOKENS_INTROSPECT),
    ],
)
async def test_a_key_is_not_given_a_scope_that_its_role_has_not(run, listing, make_key, owner, role, scope):
    key = make_key(tenant=owner, set_role=role, scopes=frozenset({Scope.AUDIT_READ}))
    await run(create_key, key=key, digest=OLD)
    wanted = KeyChange(scopes=frozenset({Scope.AUDIT_READ, scope}))
    with pytest.raises(Conflict, match="role"):
        await run(change_key, key_id=key.key_id, wanted=wanted, now=5.0)
    assert (await listing.find_key(key.key_id)).scopes == {Scope.AUDIT_READ}


@pytest.mark.parametrize(("not_before", "expires_at"), [(None, 5.0), (None, 4.0), (20.0, 20.0)])
async def test_an_expiry_that_leaves_no_time_is_refused(run, make_key, not_before, expires_at):
    await run(create_key, key=make_key(not_before=not_before), digest=OLD)
    wanted = KeyChange(expires_at=expires_at)
    with pytest.raises(Conflict, match="revoke"):
        await run(change_key, key_id=make_key().key_id, wanted=wanted, now=5.0)


@pytest.fixture
def rotated(run, make_key):
    """Two keys in the overlap of a rotation, from 5 to 65."""

    async def make():
        old, new = make_key(1), make_key(2)
        await run(create_key, key=old, digest=OLD)
        rotation = {"successor": new, "digest": NEW, "now": 5.0, "overlap_seconds": 60.0}
        effect = await run(rotate_key, key_id=old.key_id, **rotation)
        assert effect.sentences[0].endswith("ends at 1970-01-01T00:01:05Z")
        return old.key_id, new.key_id

    return make


async def test_both_keys_of_a_rotation_name_each_other(rotated, listing):
    old_id, new_id = await rotated()
    old, new = await listing.find_key(old_id), await listing.find_key(new_id)
    assert (old.life.replaced_by, new.life.replaces) == (new_id, old_id)
    assert is_rotating(old, 64.0)
    assert not is_rotating(old, 65.0)
    assert not is_rotating(new, 6.0)


@pytest.mark.parametrize("by", [0, 1])
async def test_an_overlap_is_closed_early_by_either_key(run, rotated, listing, by):
    key_ids = await rotated()
    assert (await run(close_overlap, key_id=key_ids[by], now=9.0)).is_changed
    old, new = await listing.find_key(key_ids[0]), await listing.find_key(key_ids[1])
    assert (old.revoked_at, new.revoked_at) == (9.0, None)
    assert not (await run(close_overlap, key_id=key_ids[by], now=10.0)).is_changed


async def test_a_key_in_an_overlap_is_not_given_another_end(run, rotated):
    old_id, _ = await rotated()
    with pytest.raises(Conflict, match="overlap"):
        await run(change_key, key_id=old_id, wanted=KeyChange(expires_at=None), now=6.0)
    assert (await run(change_key, key_id=old_id, wanted=KeyChange(name="old"), now=6.0)).is_changed


async def test_a_second_rotation_of_a_key_does_not_make_its_overlap_longer(run, rotated, listing, make_key):
    old_id, _ = await rotated()
    rotation = {"successor": make_key(3), "digest": b"\x03" * 32, "now": 6.0, "overlap_seconds": 900.0}
    await run(rotate_key, key_id=old_id, **rotation)
    old = await listing.find_key(old_id)
    assert (old.expires_at, old.life.replaced_by) == (65.0, make_key(3).key_id)


async def test_a_disabled_key_gets_no_successor_that_is_not(run, make_key):
    await run(create_key, key=make_key(1), digest=OLD)
    await run(disable_key, key_id=make_key(1).key_id, now=5.0)
    rotation = {"successor": make_key(2), "digest": NEW, "now": 5.0, "overlap_seconds": 1.0}
    with pytest.raises(Conflict, match="disabled"):
        await run(rotate_key, key_id=make_key(1).key_id, **rotation)


async def test_a_key_that_is_in_no_rotation_has_no_overlap_to_close(run, make_key):
    await run(create_key, key=make_key(), digest=OLD)
    with pytest.raises(Conflict, match="no rotation"):
        await run(close_overlap, key_id=make_key().key_id, now=5.0)


async def test_a_key_that_was_disabled_or_is_a_decoy_is_not_imported_again(run, make_key):
    await run(create_key, key=make_key(1), digest=OLD)
    await run(disable_key, key_id=make_key(1).key_id, now=5.0)
    await run(create_key, key=make_key(2, life=KeyLife(is_decoy=True)), digest=NEW)
    for digest in (OLD, NEW):
        with pytest.raises(Conflict, match="known already"):
            await run(import_key, key=make_key(3), digest=digest)
