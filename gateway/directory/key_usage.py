"""Hints: when each key was last seen, and by which mark the engine's cache names it.

Written outside of transactions, late or never; they decide nothing. They live outside of the facts, so
that noting one neither moves the generation nor wakes a worker.

A mark is a keyed hash of the hash by which the engine tells keys apart in its own cache. It is noted when
a key is made or first seen, because the key is at hand then and at no other time, and it is how an entry
of that cache is found to be this key's. Without the pepper it tells nothing.
"""

from __future__ import annotations

import random
import re
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from gateway.directory import names
from gateway.model.errors import BadNameError, Unavailable
from gateway.model.names import parse_key_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.model.names import KeyId
    from gateway.model.stores import FactStore

_SECONDS = re.compile(rb"[0-9]{1,11}")  # since the epoch, for some thousand years

MAX_FAILED_HASHES = 3  # then it is the server that does not answer, and each try costs its time


async def note_last_uses(store: FactStore, uses: Mapping[KeyId, float]) -> Unavailable | None:
    """Note when keys were last seen, to the second. What failed, if anything did; the rest is written."""
    placed = {key_id: (*names.last_use(key_id), b"%d" % seen_at) for key_id, seen_at in uses.items()}
    return (await _put(store, placed))[1]


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


async def note_credential_marks(
    store: FactStore, marks: Mapping[KeyId, bytes]
) -> tuple[dict[KeyId, bytes], Unavailable | None]:
    """Note by which mark each of these keys is found again. Those that could not be written, and why."""
    placed = {
        key_id: (*names.credential_mark(mark), names.short_key_id(key_id)) for key_id, mark in marks.items()
    }
    unwritten, failure = await _put(store, placed)
    return {key_id: marks[key_id] for key_id in unwritten}, failure


async def _put(
    store: FactStore, placed: Mapping[KeyId, tuple[bytes, bytes, bytes]]
) -> tuple[list[KeyId], Unavailable | None]:
    """Write each field into its hash; the keys whose field could not be, and why.

    One hash that cannot be written, such as one that somebody made a string of, must not keep the others from
    being written, now or ever: so the order differs each time, and only several in a row mean the server.
    """
    buckets: dict[bytes, list[KeyId]] = {}
    for key_id, (bucket, _, _) in placed.items():
        buckets.setdefault(bucket, []).append(key_id)
    waiting = list(buckets)
    random.shuffle(waiting)
    unwritten: list[KeyId] = []
    failure: Unavailable | None = None
    failed = 0
    for bucket in waiting:
        key_ids = buckets[bucket]
        if failed >= MAX_FAILED_HASHES:
            unwritten += key_ids
            continue
        try:
            await store.put_hash(bucket, dict(placed[key_id][1:] for key_id in key_ids))
        except Unavailable as error:
            failed, failure = failed + 1, error
            unwritten += key_ids
    return unwritten, failure


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
