"""Makes, imports, changes, rotates, disables and revokes keys. Only their records are handled here.

A suspended tenant gets no new keys in any way: suspension is for an incident, and a key made meanwhile would
become valid unnoticed when the tenant is resumed. Revoking always works.

The record of a revoked key is kept, so that the audit log can name the key that was refused, and the same key
cannot be imported again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.directory.edits.effect import Effect
from gateway.directory.edits.tenants import load_staying_tenant
from gateway.model.errors import Conflict, UnknownName
from gateway.model.facts import KeyLife
from gateway.model.moments import at
from gateway.model.roles import ROLE_SCOPES

if TYPE_CHECKING:
    from gateway.directory.edits.changes import Changes
    from gateway.model.facts import Key
    from gateway.model.key_changes import KeyChange
    from gateway.model.names import KeyId, TenantId
    from gateway.model.tenant_records import TenantRecordId

MAX_OVERLAP_SECONDS = 30 * 86_400.0  # a month to roll out a new key; a longer overlap is simply a second key


async def create_key(changes: Changes, *, key: Key, digest: bytes) -> Effect:
    """Write a new key's record."""
    key = replace(key, tenant_record=await _load_record_id(changes, key.tenant))
    if await changes.find_key_digest(key.key_id) is not None:
        raise Conflict(f"there is a key {key.key_id} already")
    if (known := await changes.find_key_by_digest(digest)) is not None:
        raise Conflict(f"this very key is known already, as {known.key_id}")
    await changes.put_key(key, digest)
    what = "decoy key" if key.life.is_decoy else "key"
    return Effect(is_changed=True, sentences=(f"{what} {key.key_id} created{_start_of(key)}",))


async def import_key(changes: Changes, *, key: Key, digest: bytes) -> Effect:
    """Write a key that exists elsewhere. Importing the same key for the same tenant again changes nothing."""
    known = await changes.find_key_by_digest(digest)
    of = None if known is None or known.tenant is None else await changes.find_tenant(known.tenant)
    is_of_record = known is not None and known.tenant_record == (None if of is None else of.record_id)
    if known is not None and is_of_record and known.tenant == key.tenant and not known.is_ended:
        return Effect(is_changed=False, sentences=(f"this key was imported already, as {known.key_id}",))
    return await create_key(changes, key=key, digest=digest)


async def revoke_key(changes: Changes, *, key_id: KeyId, now: float, reason: str = "") -> Effect:
    """Revoke a key. A second revocation changes nothing and keeps time and reason of the first."""
    key, digest = await _load_key(changes, key_id)
    if key.revoked_at is not None:
        sentence = f"key {key_id} was revoked already, at {at(key.revoked_at)}"
        return Effect(is_changed=False, sentences=(sentence,))
    await _put_revoked(changes, key, digest, now, reason)
    return Effect(is_changed=True, sentences=(f"key {key_id} is revoked",))


async def disable_key(changes: Changes, *, key_id: KeyId, now: float) -> Effect:
    """Refuse a key until it is enabled again. It is a revocation that can be taken back (I6)."""
    key, digest = await _load_key(changes, key_id)
    _verify_not_over(key, now)
    if key.life.disabled_at is not None:
        sentence = f"key {key_id} was disabled already, at {at(key.life.disabled_at)}"
        return Effect(is_changed=False, sentences=(sentence,))
    await changes.put_key(replace(key, life=replace(key.life, disabled_at=now)), digest)
    return Effect(is_changed=True, sentences=(f"key {key_id} is disabled",))


async def enable_key(changes: Changes, *, key_id: KeyId, now: float) -> Effect:
    """Accept a disabled key again."""
    key, digest = await _load_key(changes, key_id)
    _verify_not_over(key, now)
    if key.life.disabled_at is None:
        return Effect(is_changed=False, sentences=(f"key {key_id} was enabled already",))
    await _verify_of_its_tenant(changes, key)
    await changes.put_key(replace(key, life=replace(key.life, disabled_at=None)), digest)
    return Effect(is_changed=True, sentences=(f"key {key_id} is enabled{_times_of(key, now)}",))


async def change_key(changes: Changes, *, key_id: KeyId, wanted: KeyChange, now: float) -> Effect:
    """Change name, scopes, networks or expiry of a key that has not ended."""
    key, digest = await _load_key(changes, key_id)
    _verify_not_over(key, now)
    changed = replace(key, **{name: getattr(wanted, name) for name in wanted.named})
    if changed == key:
        return Effect(is_changed=False, sentences=(f"key {key_id} was so already",))
    if key.role is not None and not changed.scopes <= ROLE_SCOPES[key.role]:
        allowed = ", ".join(sorted(ROLE_SCOPES[key.role]))
        raise Conflict(f"key {key_id} has the role {key.role}, whose scopes are {allowed}")
    if changed.expires_at != key.expires_at:
        if key.life.replaced_by is not None:
            raise Conflict(
                f"key {key_id} is being replaced by {key.life.replaced_by} and ends with the overlap; "
                f"`cachegate keys close {key_id}` ends it now"
            )
        _verify_expiry(changed, now)
    await changes.put_key(changed, digest)
    other = " and ".join(_names_of_changed(key, changed))
    sentence = f"key {key_id} has another {other}{_times_of(changed, now)}"
    return Effect(is_changed=True, sentences=(sentence,))


async def close_overlap(changes: Changes, *, key_id: KeyId, now: float) -> Effect:
    """End the overlap of a rotation now, by the id of either of its two keys: the old one is revoked."""
    key, digest = await _load_key(changes, key_id)
    if key.life.replaced_by is None and key.life.replaces is not None:
        key, digest = await _load_key(changes, key.life.replaces)
    if key.life.replaced_by is None:
        raise Conflict(f"key {key_id} is in no rotation")
    if not is_rotating(key, now):
        return Effect(is_changed=False, sentences=(f"the overlap of key {key.key_id} is over already",))
    await _put_revoked(changes, key, digest, now, f"replaced by {key.life.replaced_by}")
    sentence = f"key {key.key_id} is revoked; {key.life.replaced_by} replaces it"
    return Effect(is_changed=True, sentences=(sentence,))


def is_rotating(key: Key, now: float) -> bool:
    """Whether a key was replaced by another and its overlap is not over."""
    return key.life.replaced_by is not None and not key.is_over(now)


def heir_of(old: Key, successor: Key) -> Key:
    """Return the successor with exactly the old key's rights.

    It has the old key's start, and the old key's expiry unless it has one of its own: rotation is for a new
    secret, and a longer life must be requested.
    """
    return replace(
        successor,
        tenant=old.tenant,
        tenant_record=old.tenant_record,
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
    """Write a new key that replaces another, which ends after the overlap or at its own expiry.

    Within an overlap a key may be rotated once more, which never makes the overlap longer.
    """
    if not 0 <= overlap_seconds <= MAX_OVERLAP_SECONDS:  # NaN fails this comparison
        raise Conflict("the overlap of two keys is from 0 seconds to 30 days")
    old, old_digest = await _load_key(changes, key_id)
    _verify_not_over(old, now)
    await _verify_of_its_tenant(changes, old)
    if old.life.disabled_at is not None:
        raise Conflict(f"key {key_id} is disabled; enable it first, or create a new one")
    heir = heir_of(old, successor)
    heir = replace(heir, life=KeyLife(replaces=key_id))
    if heir.expires_at is not None and heir.expires_at <= max(now, heir.not_before or now):
        raise Conflict(f"key {key_id} begins later than the new key would end; give a later --expires")
    await create_key(changes, key=heir, digest=digest)
    old = replace(old, life=replace(old.life, replaced_by=heir.key_id))
    if overlap_seconds == 0:
        await _put_revoked(changes, old, old_digest, now, f"replaced by {heir.key_id}")
        ending = "is revoked"
    else:
        ends_at = end_of_overlap(old, now, overlap_seconds)
        await changes.put_key(replace(old, expires_at=ends_at), old_digest)
        ending = f"ends at {at(ends_at)}"
    return Effect(is_changed=True, sentences=(f"key {heir.key_id} replaces {key_id}, which {ending}",))


def end_of_overlap(old: Key, now: float, overlap_seconds: float) -> float:
    """When a key that is rotated now ends."""
    ends_at = now + overlap_seconds
    return ends_at if old.expires_at is None else min(old.expires_at, ends_at)


async def _verify_of_its_tenant(changes: Changes, key: Key) -> None:
    """Raise `Conflict` for a key of a tenant that had the name before, or of one that gets no keys now."""
    if key.tenant_record != await _load_record_id(changes, key.tenant):
        raise Conflict(f"key {key.key_id} is of another tenant that had the name {key.tenant} before")


async def _put_revoked(changes: Changes, key: Key, digest: bytes, now: float, reason: str) -> None:
    await changes.put_key(replace(key, revoked_at=now, life=replace(key.life, revoked_for=reason)), digest)


def _verify_not_over(key: Key, now: float) -> None:
    """Raise `Conflict` for a key that has ended for good, and for a decoy, which can only be revoked."""
    if key.revoked_at is not None:
        raise Conflict(
            f"key {key.key_id} has ended: it was revoked at {at(key.revoked_at)}; create a new one"
        )
    if key.expires_at is not None and key.expires_at <= now:
        raise Conflict(f"key {key.key_id} has ended, at {at(key.expires_at)}; create a new one")
    if key.life.is_decoy:
        raise Conflict(f"key {key.key_id} is a decoy: it opens nothing, and can only be revoked")


def _verify_expiry(key: Key, now: float) -> None:
    if key.expires_at is not None and key.expires_at <= max(now, key.not_before or now):
        raise Conflict(f"key {key.key_id} would end before it begins, or before now; revoke it instead")


def _names_of_changed(before: Key, after: Key) -> list[str]:
    fields = {"name": "name", "scopes": "scopes", "networks": "networks", "expires_at": "expiry"}
    return [title for name, title in fields.items() if getattr(before, name) != getattr(after, name)]


def _start_of(key: Key) -> str:
    """When a new key begins, if that is ahead."""
    is_ahead = key.not_before is not None and key.not_before > key.created_at
    return f"; it begins at {at(key.not_before)}" if key.not_before is not None and is_ahead else ""


def _times_of(key: Key, now: float) -> str:
    """When a key begins, if that is ahead, and when it ends, if it does."""
    begins = key.not_before is not None and key.not_before > now
    parts = [f"begins at {at(key.not_before)}"] if key.not_before is not None and begins else []
    parts += [] if key.expires_at is None else [f"ends at {at(key.expires_at)}"]
    return "; it " + " and ".join(parts) if parts else ""


async def _load_key(changes: Changes, key_id: KeyId) -> tuple[Key, bytes]:
    digest = await changes.find_key_digest(key_id)
    key = None if digest is None else await changes.find_key_by_digest(digest)
    if digest is None or key is None:
        raise UnknownName("key", key_id, "`cachegate keys list` shows them")
    return key, digest


async def _load_record_id(changes: Changes, tenant_id: TenantId | None) -> TenantRecordId | None:
    """Return the id of the record that a new key belongs to. Raises `Conflict` where it gets no new keys."""
    if tenant_id is None:
        return None  # an admin key
    tenant = await load_staying_tenant(changes, tenant_id)
    if tenant.is_suspended:
        raise Conflict(f"tenant {tenant_id} is suspended and gets no new keys; resume it first")
    return tenant.record_id
