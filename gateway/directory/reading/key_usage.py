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
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway.model.names import KeyId
    from gateway.model.stores import FactStore

_SECONDS = re.compile(rb"[0-9]{1,11}")  # since the epoch, for a thousand years
_NETWORK = re.compile(rb"[0-9a-f.:/]{3,49}")


class LastUse(msgspec.Struct, frozen=True, gc=False):
    """When a key was last used, and from which network, if that is known."""

    at: float
    network: str | None = None


MAX_FAILED_HASHES = 3  # more mean that the server is down, and each attempt takes time


async def note_last_uses(store: FactStore, uses: Mapping[KeyId, float]) -> Unavailable | None:
    """Store when keys were last used, to the second; return the failure, if any. The rest is written."""
    placed = {key_id: (*names.last_use(key_id), b"%d" % seen_at) for key_id, seen_at in uses.items()}
    return (await _put(store, placed))[1]


async def note_last_networks(store: FactStore, networks: Mapping[KeyId, str]) -> Unavailable | None:
    """Store the network that each of these keys was last used from; return the failure, if any."""
    placed = {key_id: (*names.last_network(key_id), one.encode()) for key_id, one in networks.items()}
    return (await _put(store, placed))[1]


async def find_last_uses(store: FactStore, key_ids: Sequence[KeyId]) -> dict[KeyId, float | None]:
    """Return when these keys were last used, as far as it is known."""
    stored = await _find(store, names.last_use, key_ids)
    return {
        key_id: float(value) if value is not None and _SECONDS.fullmatch(value) else None
        for key_id, value in stored.items()
    }


async def find_uses(store: FactStore, key_ids: Sequence[KeyId]) -> dict[KeyId, LastUse | None]:
    """Return when these keys were last used, and from which network, as far as it is known."""
    uses = await find_last_uses(store, key_ids)
    networks = await _find(
        store, names.last_network, [key_id for key_id, at in uses.items() if at is not None]
    )
    return {
        key_id: None if at is None else LastUse(at, _network_of(networks[key_id]))
        for key_id, at in uses.items()
    }


def _network_of(value: bytes | None) -> str | None:
    return value.decode() if value is not None and _NETWORK.fullmatch(value) else None


async def _find(
    store: FactStore, place_of: Callable[[KeyId], tuple[bytes, bytes]], key_ids: Sequence[KeyId]
) -> dict[KeyId, bytes | None]:
    """Return the field that each key has in its hash, one read for each hash."""
    found: dict[KeyId, bytes | None] = {}
    placed = sorted((*place_of(key_id), key_id) for key_id in key_ids)
    for bucket, entries in groupby(placed, key=itemgetter(0)):
        listed = list(entries)
        values = await store.hash_fields(bucket, [field for _, field, _ in listed])
        found.update((key_id, value) for (_, _, key_id), value in zip(listed, values, strict=True))
    return found


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
