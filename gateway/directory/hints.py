"""Hints: when each key was last seen, and by which mark the engine's cache names it.

Written outside of transactions, late or never; they decide nothing. They live outside of the facts, so
that noting one neither moves the generation nor wakes a worker.

A mark is a keyed hash of the hash by which the engine tells keys apart in its own cache. It is noted when
a key is made or first seen, because the key is at hand then and at no other time, and it is how an entry
of that cache is found to be this key's. Without the pepper it tells nothing.
"""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from gateway.directory import names
from gateway.model.errors import BadNameError
from gateway.model.names import parse_key_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.model.names import KeyId
    from gateway.model.stores import FactStore

_SECONDS = re.compile(rb"[0-9]{1,11}")  # since the epoch, for some thousand years


async def note_last_uses(store: FactStore, uses: Mapping[KeyId, float]) -> None:
    """Note when keys were last seen, to the second."""
    placed = sorted((*names.last_use(key_id), b"%d" % seen_at) for key_id, seen_at in uses.items())
    for bucket, entries in groupby(placed, key=itemgetter(0)):
        await store.put_hash(bucket, {field: seen_at for _, field, seen_at in entries})


async def find_last_uses(store: FactStore, key_ids: Sequence[KeyId]) -> dict[KeyId, float | None]:
    """When these keys were last seen, as far as it is known."""
    found: dict[KeyId, float | None] = {}
    placed = sorted((*names.last_use(key_id), key_id) for key_id in key_ids)
    for bucket, entries in groupby(placed, key=itemgetter(0)):
        listed = list(entries)
        values = await store.hash_fields(bucket, [field for _, field, _ in listed])
        for (_, _, key_id), value in zip(listed, values, strict=True):
            found[key_id] = float(value) if value is not None and _SECONDS.fullmatch(value) else None
    return found


async def note_credential_marks(store: FactStore, marks: Mapping[KeyId, bytes]) -> None:
    """Note by which mark each of these keys is found again."""
    placed = sorted(
        (*names.credential_mark(mark), names.short_key_id(key_id)) for key_id, mark in marks.items()
    )
    for bucket, entries in groupby(placed, key=itemgetter(0)):
        await store.put_hash(bucket, {field: short_id for _, field, short_id in entries})


async def find_marked_keys(store: FactStore, marks: Iterable[bytes]) -> dict[bytes, KeyId]:
    """The keys that have these marks, by mark, as far as they are known. What is no key id is no hint."""
    found: dict[bytes, KeyId] = {}
    placed = sorted((*names.credential_mark(mark), mark) for mark in set(marks))
    for bucket, entries in groupby(placed, key=itemgetter(0)):
        listed = list(entries)
        values = await store.hash_fields(bucket, [field for _, field, _ in listed])
        for (_, _, mark), raw_short_id in zip(listed, values, strict=True):
            if raw_short_id is not None:
                with suppress(BadNameError):
                    found[mark] = parse_key_id(names.long_key_id(raw_short_id))
    return found
