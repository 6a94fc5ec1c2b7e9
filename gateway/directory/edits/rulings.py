"""Writes the platform's rulings, and ends them by its notices or by later answers.

With the first ruling on it, a key that the platform knows gets a record and a tenant of its own. Both are
found by name and are not in the list of tenants: there may be as many as the platform has customers, and
listed tenants are read once a second. A key that the platform no longer knows loses its record, on which
links and transfers depend. A record that an operator has changed (revoked, rotated) is kept.

An answer is not written if its question was asked before an ending that is already there, or before the
question of the current ruling. The edit then reports that it was overtaken, and the caller may ask again. Of
two answers to questions asked at the same generation, a denial wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.directory.reading.rulings import find_ruling, is_overtaken
from gateway.directory.records import names
from gateway.directory.records.codec import encode
from gateway.model.errors import Reason
from gateway.model.facts import DEFAULT_SCOPES, Key, Tenant
from gateway.model.rulings import SOURCE_PLATFORM, EndMark, Ruling
from gateway.model.tenant_records import new_record_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.directory.edits.changes import Changes
    from gateway.model.names import KeyId, ModelId

ENDING_SECONDS = 2 * 86_400.0  # longer than what it ends: a link lives for a day at most


async def rule(changes: Changes, *, ruling: Ruling, now: float) -> bool:
    """Write a ruling on a known key; return whether it was written (False: overtaken).

    A denial also ends the links of the model: nothing minted under an allow stays valid.
    """
    if not await _is_timely(changes, ruling, now):
        return False
    await _put(changes, names.ruling_fact(ruling.key_id, ruling.model), ruling, now)
    if ruling.model is not None and not ruling.is_allow:
        await changes.put_for(0, names.links_fact(ruling.key_id, ruling.model), None)
    return True


async def introduce_key(changes: Changes, *, key: Key, digest: bytes, ruling: Ruling, now: float) -> bool:
    """Write a key that the platform knows, its tenant, and the first ruling on it.

    A key that is already known here, in whatever state, is left unchanged.
    """
    if not await rule(changes, ruling=ruling, now=now):
        return False
    if key.tenant is not None:
        tenant = await changes.find_tenant(key.tenant)
        if tenant is None:
            tenant = Tenant(
                tenant_id=key.tenant,
                name="",
                is_suspended=False,
                created_at=now,
                record_id=new_record_id(),
                source=SOURCE_PLATFORM,
            )
            await changes.put_tenant(tenant, is_listed=False)
        key = replace(key, tenant_record=tenant.record_id)
    if await changes.find_key_by_digest(digest) is None:
        await changes.put_key(key, digest)
    return True


async def disown_key(changes: Changes, *, standing: Ruling, now: float) -> bool:
    """Write that the platform does not know a key: everything it said of the key before is ended."""
    if not await _is_timely(changes, standing, now):
        return False
    await _end(changes, names.ending_fact(standing.key_id, is_key=True))
    # Its question predates this ending, which is its own; so it is written as asked at this generation.
    await _put(changes, names.ruling_fact(standing.key_id, None), standing, now, asked=changes.generation)
    await _forget_key(changes, standing.key_id)
    return True


async def end_rulings(changes: Changes, *, keys: Sequence[KeyId], models: Sequence[ModelId]) -> None:
    """End all rulings on these keys and on these models; without any, all rulings."""
    about = [names.ending_fact(key_id, is_key=True) for key_id in keys]
    about += [names.ending_fact(model) for model in models]
    for name in about or [names.ending_fact(None)]:
        await _end(changes, name)
    for key_id in keys:
        await _forget_key(changes, key_id)


async def note_links(changes: Changes, *, key_id: KeyId, model: ModelId, until: float, now: float) -> bool:
    """Write that URLs were minted which live until `until`; return whether they may be handed out.

    The URLs of a key that is not the platform's depend on our own facts and need no record.
    """
    key = await changes.find_key(key_id)
    if key is not None and key.source != SOURCE_PLATFORM:
        return True
    ruling = await find_ruling(changes.source, key_id, model, now)
    if ruling is None or not ruling.is_allow:
        return False
    minted = Ruling(key_id=key_id, model=model, reason=Reason.PERMITTED, until=until, asked=ruling.asked)
    await _put(changes, names.links_fact(key_id, model), minted, now)
    return True


async def _put(
    changes: Changes, name: bytes, ruling: Ruling, now: float, *, asked: int | None = None
) -> None:
    asked = ruling.asked if asked is None else asked
    record = replace(ruling, asked=asked, generation=changes.generation)
    await changes.put_for(ruling.until - now, name, encode(record))


async def _end(changes: Changes, name: bytes) -> None:
    await changes.put_for(ENDING_SECONDS, name, encode(EndMark(generation=changes.generation)))


async def _forget_key(changes: Changes, key_id: KeyId) -> None:
    key = await changes.find_key(key_id)
    if key is not None and _is_as_introduced(key):
        await changes.delete_key(key_id)


def _is_as_introduced(key: Key) -> bool:
    """Whether the record is unchanged since the platform's ruling made it."""
    return key == Key(
        key_id=key.key_id,
        tenant=key.tenant,
        tenant_record=key.tenant_record,
        name="",
        scopes=DEFAULT_SCOPES,
        networks=(),
        created_at=key.created_at,
        pepper_id=key.pepper_id,
        generation=key.generation,
        source=SOURCE_PLATFORM,
    )


async def _is_timely(changes: Changes, ruling: Ruling, now: float) -> bool:
    """Whether no ending and no other answer is younger than this ruling's question."""
    if await is_overtaken(changes.source, ruling.key_id, ruling.model, ruling.asked):
        return False
    known = await find_ruling(changes.source, ruling.key_id, ruling.model, now)
    if known is None or known.asked < ruling.asked:
        return True
    return known.asked == ruling.asked and (known.is_allow or not ruling.is_allow)
