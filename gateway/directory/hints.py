"""Hints: when each key was last seen. Written outside of transactions, late or never; they decide nothing.

They live outside of the facts, so that noting a use neither moves the generation nor wakes a worker.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from gateway.directory import names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.model.names import KeyId
    from gateway.model.ports import FactStore


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
            found[key_id] = float(value) if value is not None and value.isdigit() else None
    return found
