"""Pins blobs at first sight, quarantines them on a mismatch, and releases them for an operator.

A pin is written once. Later findings either agree with it or put the blob into quarantine, and both edits
read the record again within the transaction, so that two nodes that hash two contents at the same time cannot
both succeed.

A release states that an operator has checked the blob, not that its content is good: what is on disk is
checked at the next read, and quarantined again if it still does not match. The pinned SHA-256 stays in force
unless the operator has it forgotten (`forget`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.directory.edits.effect import Effect
from gateway.model.errors import Conflict
from gateway.model.pins import Pin, Quarantine, find_cause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.directory.edits.changes import Changes
    from gateway.model.names import Md5
    from gateway.model.pins import Measured


async def pin_blobs(
    changes: Changes, *, contents: Sequence[tuple[Md5, Measured]], now: float, source: str
) -> tuple[Md5, ...]:
    """Pin each content that has no pin yet and matches its blob's name; return these. Others stay unchanged.

    A record that does not parse also stays unchanged: what it said is unknown, so it keeps denying.
    """
    pinned: list[Md5] = []
    for md5, measured in contents:
        try:
            known = await changes.find_pin(md5)
        except Conflict:
            continue
        is_open = known is None or (known.sha256 is None and known.quarantine is None)
        if is_open and find_cause(md5, measured, known) is None:
            pin = Pin(md5=md5, sha256=measured.sha256, size=measured.size, pinned_at=now, source=source)
            await changes.put_pin(pin)
            pinned.append(md5)
    return tuple(pinned)


async def quarantine_blob(
    changes: Changes, *, md5: Md5, measured: Measured, now: float, source: str
) -> Pin | None:
    """Quarantine a blob, if this content still contradicts it; return the pin if it was quarantined now.

    A record that does not parse already denies, and is kept for the operator.
    """
    try:
        known = await changes.find_pin(md5)
    except Conflict:
        return None
    cause = find_cause(md5, measured, known)
    if cause is None or (known is not None and known.quarantine is not None):
        return None
    bare = known or Pin(md5=md5, sha256=None, size=measured.size, pinned_at=now, source=source)
    quarantine = Quarantine(cause=cause, since=now, found_sha256=measured.sha256)
    pin = replace(bare, quarantine=quarantine)
    await changes.put_pin(pin)
    return pin


async def release_blob(changes: Changes, *, md5: Md5, forget: bool = False) -> Effect:
    """End a quarantine; with `forget`, delete the pin too, so that the next matching content is pinned."""
    known = await changes.find_pin(md5)
    if known is None:
        raise Conflict(f"blob {md5} has no pin and is not in quarantine")
    if forget:
        await changes.delete_pin(md5)
        return Effect(is_changed=True, sentences=(f"the pin of blob {md5} is forgotten",))
    if known.quarantine is None:
        return Effect(is_changed=False, sentences=(f"blob {md5} is not in quarantine",))
    await changes.put_pin(replace(known, quarantine=None))
    sentence = f"blob {md5} is released; it goes back into quarantine unless its content is right now"
    return Effect(is_changed=True, sentences=(sentence,))
