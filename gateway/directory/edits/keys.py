"""Creates, imports, rotates and revokes keys. Only their records are handled here, never the keys.

A suspended tenant gets no new keys in any way: suspension is for an incident, and a key made meanwhile would
become valid unnoticed when the tenant is resumed. Revoking always works.

The record of a revoked key is kept, so that the audit log can name the key that was refused, and the same key
cannot be imported again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.directory.edits.effect import Effect
from gateway.directory.edits.tenants import load_tenant
from gateway.model.errors import Conflict, UnknownName

if TYPE_CHECKING:
    from gateway.directory.edits.changes import Changes
    from gateway.model.facts import Key
    from gateway.model.names import KeyId, TenantId

MAX_OVERLAP_SECONDS = 30 * 86_400.0  # a month to roll out a new key; a longer overlap is simply a second key


async def create_key(changes: Changes, *, key: Key, digest: bytes) -> Effect:
    """Write a new key's record."""
    await _verify_may_have_keys(changes, key.tenant)
    if await changes.find_key_digest(key.key_id) is not None:
        raise Conflict(f"there is a key {key.key_id} already")
    if (known := await changes.find_key_by_digest(digest)) is not None:
        raise Conflict(f"this very key is known already, as {known.key_id}")
    await changes.put_key(key, digest)
    return Effect(is_changed=True, sentences=(f"key {key.key_id} created",))


async def import_key(changes: Changes, *, key: Key, digest: bytes) -> Effect:
    """Write a key that exists elsewhere. Importing the same key for the same tenant again changes nothing."""
    known = await changes.find_key_by_digest(digest)
    if known is not None and known.tenant == key.tenant and known.revoked_at is None:
        return Effect(is_changed=False, sentences=(f"this key was imported already, as {known.key_id}",))
    return await create_key(changes, key=key, digest=digest)


async def revoke_key(changes: Changes, *, key_id: KeyId, now: float) -> Effect:
    """Revoke a key. A second revocation changes nothing and keeps the time of the first."""
    key, digest = await _load_key(changes, key_id)
    if key.revoked_at is not None:
        return Effect(is_changed=False, sentences=(f"key {key_id} was revoked already",))
    await changes.put_key(replace(key, revoked_at=now), digest)
    return Effect(is_changed=True, sentences=(f"key {key_id} is revoked",))


def heir_of(old: Key, successor: Key) -> Key:
    """Return the successor with exactly the old key's rights.

    It has the old key's start, and the old key's expiry unless it has one of its own: rotation is for a new
    secret, and a longer life must be requested.
    """
    return replace(
        successor,
        tenant=old.tenant,
        name=old.name,
        scopes=old.scopes,
        set_role=old.set_role,
        networks=old.networks,
        not_before=old.not_before,
        expires_at=old.expires_at if successor.expires_at is None else successor.expires_at,
    )


async def rotate_key(
    changes: Changes, *, key_id: KeyId, successor: Key, digest: bytes, now: float, overlap_seconds: float
) -> Effect:
    """Write a new key that replaces another, which ends after the overlap or at its own expiry."""
    if not 0 <= overlap_seconds <= MAX_OVERLAP_SECONDS:  # NaN fails this comparison
        raise Conflict("the overlap of two keys is from 0 seconds to 30 days")
    old, old_digest = await _load_key(changes, key_id)
    if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
        raise Conflict(f"key {key_id} has ended; create a new one instead of rotating it")
    heir = heir_of(old, successor)
    if heir.expires_at is not None and heir.expires_at <= max(now, heir.not_before or now):
        raise Conflict(f"key {key_id} begins later than the new key would end; give a later --expires")
    await create_key(changes, key=heir, digest=digest)
    if overlap_seconds == 0:
        await changes.put_key(replace(old, revoked_at=now), old_digest)
        ending = "is revoked"
    else:
        ends_at = now + overlap_seconds
        await changes.put_key(
            replace(old, expires_at=ends_at if old.expires_at is None else min(old.expires_at, ends_at)),
            old_digest,
        )
        ending = "ends when the overlap is over"
    return Effect(is_changed=True, sentences=(f"key {heir.key_id} replaces {key_id}, which {ending}",))


async def _load_key(changes: Changes, key_id: KeyId) -> tuple[Key, bytes]:
    digest = await changes.find_key_digest(key_id)
    key = None if digest is None else await changes.find_key_by_digest(digest)
    if digest is None or key is None:
        raise UnknownName("key", key_id, "`cachegate keys list` shows them")
    return key, digest


async def _verify_may_have_keys(changes: Changes, tenant_id: TenantId | None) -> None:
    if tenant_id is None:
        return  # an admin key
    tenant = await load_tenant(changes, tenant_id)
    if tenant.is_suspended:
        raise Conflict(f"tenant {tenant_id} is suspended and gets no new keys; resume it first")
