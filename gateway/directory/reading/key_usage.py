"""Stores when each key was last used, and the mark that finds a key's entries in the engine's cache.

Both are written without a transaction, possibly late or never, and no decision uses them. They are not facts:
writing them does not change the generation and invalidates nothing.

A mark is a keyed hash of the hash by which the engine identifies keys in its own cache. It is stored when a
key is made or first seen, the only times when the key itself is available. An entry of the engine's cache is
attributed to a key by it. Without the pepper it reveals nothing.
"""

from __future__ import annotations

import random
import re
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import msgspec

from gateway.directory.records import names
from gateway.model.errors import BadNameError, Unavailable
from gateway.model.names import parse_key_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.model.names import KeyId
    from gateway.model.stores import FactStore

# Seconds since the epoch, for a thousand years, and the network, if it is known.
_USE = re.compile(rb"([0-9]{1,11})(?: ([0-9a-f.:/]{3,49}))?")

MAX_FAILED_HASHES = 3  # more mean that the server is down, and each attempt takes time


class LastUse(msgspec.Struct, frozen=True, gc=False):
    """When a key was last used, and from which network, if that is known."""

    at: float
    network: str | None = None


async def note_last_uses(
    store: FactStore, uses: Mapping[KeyId, float], networks: Mapping[KeyId, str] | None = None
) -> Unavailable | None:
    """Store when keys were last used, to the second; return the failure, if any. The rest is written."""
    known = networks or {}
    placed = {}
    for key_id, seen_at in uses.items():
        network = known.get(key_id)
        value = b"%d" % seen_at if network is None else b"%d %b" % (seen_at, network.encode())
        placed[key_id] = (*names.last_use(key_id), value)
    return (await _put(store, placed))[1]


async def find_uses(store: FactStore, key_ids: Sequence[KeyId]) -> dict[KeyId, LastUse | None]:
    """Return when these keys were last used, and from where, as far as it is known."""
    found: dict[KeyId, LastUse | None] = {}
    placed = sorted((*names.last_use(key_id), key_id) for key_id in key_ids)
    for bucket, entries in groupby(placed, key=itemgetter(0)):
        listed = list(entries)
        values = await store.hash_fields(bucket, [field for _, field, _ in listed])
        for (_, _, key_id), value in zip(listed, values, strict=True):
            match = None if value is None else _USE.fullmatch(value)
            network = None if match is None or match[2] is None else match[2].decode()
            found[key_id] = None if match is None else LastUse(float(match[1]), network)
    return found


async def find_last_uses(store: FactStore, key_ids: Sequence[KeyId]) -> dict[KeyId, float | None]:
    """Return when these keys were last used, as far as it is known."""
    found = await find_uses(store, key_ids)
    return {key_id: None if use is None else use.at for key_id, use in found.items()}


async def note_credential_marks(
    store: FactStore, marks: Mapping[KeyId, bytes]
) -> tuple[dict[KeyId, bytes], Unavailable | None]:
    """Store the marks of these keys. Returns those that could not be written, and the failure."""
    placed = {
        key_id: (*names.credential_mark(mark), names.short_key_id(key_id)) for key_id, mark in marks.items()
    }
    unwritten, failure = await _put(store, placed)
    return {key_id: marks[key_id] for key_id in unwritten}, failure


async def _put(
    store: FactStore, placed: Mapping[KeyId, tuple[bytes, bytes, bytes]]
) -> tuple[list[KeyId], Unavailable | None]:
    """Write each field into its hash. Returns the keys whose field was not written, and the failure.

    A hash that cannot be written, for example because it was replaced by a string, must not prevent the
    others from being written, now or later. So the order is random, and only several failures mean that the
    server is down.
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
    """Return the known keys of these marks, by mark. A stored value that is no key id is ignored."""
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
