"""Make keys: create, import, rotate. The token of a new key is in the result, and nowhere else (I8)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.assembly.credential_marks import note_mark
from gateway.directory.edits import keys as edits
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.directory.edits.effect import Effect
    from gateway.identity.new_keys import NewKey
    from gateway.model.names import KeyId
    from gateway.operations.session import OperatorSession
    from gateway.registrar import Done


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A new key and what making it came to. `old_ends_at` is when the key that it replaces ends."""

    new: NewKey
    done: Done[Effect]
    old_ends_at: float | None = None


async def create_key(session: OperatorSession, order: KeyOrder, *, wait: bool = True) -> Made:
    """Create a key of ours."""
    new = issue_key(order, environment=session.settings.token_env, peppers=session.peppers)
    return await add_key(session, "keys.create", edits.create_key, new, new.token, wait=wait)


async def add_key(
    session: OperatorSession,
    action: str,
    edit: Callable[..., Awaitable[Effect]],
    new: NewKey,
    raw_key: str | None,
    *,
    wait: bool = True,
) -> Made:
    """Add a key that was made or imported; `raw_key` is the key itself, where it is known."""
    whose = None if new.key.tenant is None else await session.listing.find_tenant(new.key.tenant)
    if whose is not None:  # the edit sets it too, from what is there then; this is what is shown
        new = replace(new, key=replace(new.key, tenant_record=whose.record_id))
    done = await session.perform(
        action,
        partial(edit, key=new.key, digest=new.digest),
        tenant=new.key.tenant,
        key_id=new.key.key_id,
        wait=wait,
    )
    if done.result.is_changed:  # else it has another id already, and its mark belongs to that one
        await note_mark(session.store, session.peppers, new.key.key_id, raw_key)
    return Made(new=new, done=done)


async def rotate_key(
    session: OperatorSession,
    key_id: KeyId,
    *,
    overlap_seconds: float = 0.0,
    expires_at: float | None = None,
    wait: bool = True,
) -> Made:
    """Replace a key by one with the same rights. The old one ends after the overlap, or at its own expiry."""
    now = session.clock.now()
    old = await session.listing.find_key(key_id)
    if old is None:
        raise UnknownName("key", key_id, "`cachegate keys list` shows them")
    order = KeyOrder(now=now, kind=old.kind, tenant=old.tenant, expires_at=expires_at)
    new = issue_key(order, environment=session.settings.token_env, peppers=session.peppers)
    new = replace(new, key=edits.heir_of(old, new.key))
    done = await session.perform(
        "keys.rotate",
        partial(
            edits.rotate_key,
            key_id=key_id,
            successor=new.key,
            digest=new.digest,
            now=now,
            overlap_seconds=overlap_seconds,
        ),
        tenant=old.tenant,
        tenant_record=old.tenant_record,
        key_id=key_id,
        subject=(new.key.key_id,),
        wait=wait,
    )
    await note_mark(session.store, session.peppers, new.key.key_id, new.token)
    return Made(new=new, done=done, old_ends_at=edits.end_of_overlap(old, now, overlap_seconds))
