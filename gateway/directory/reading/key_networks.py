"""Stores the networks that each key was used from, each with the time when it was first seen.

Like last uses, these are no facts: writing them changes no generation and invalidates nothing, and no
decision uses them. A key has a bounded number of networks; beyond that, the one that was seen first goes, and
is new when it is used again.

Two workers that see a network of a key at the same time may both take it for new: it is reported twice, and
never missed.
"""

from __future__ import annotations

import re
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Protocol, TypeVar

from gateway.directory.records import names
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.names import KeyId
    from gateway.model.stores import FactStore

Networks = dict[str, float]
"""The networks of a key, each with when it was first seen."""

MAX_NETWORKS = 16  # of a key: a text of half a kilobyte

_FIELD = re.compile(rb"([0-9a-f.:/]{3,49})=([0-9]{1,11})")


class Use(Protocol):
    """A use of a key from a network."""

    @property
    def key_id(self) -> KeyId:
        """Whose use it is."""

    @property
    def network(self) -> str:
        """From where."""

    @property
    def at(self) -> float:
        """When."""


UseT = TypeVar("UseT", bound=Use)


async def find_networks(store: FactStore, key_ids: Sequence[KeyId]) -> dict[KeyId, Networks]:
    """Return the networks that these keys were used from, each with when it was first seen, oldest first."""
    found: dict[KeyId, Networks] = {}
    placed = sorted((*names.networks_of(key_id), key_id) for key_id in key_ids)
    for bucket, entries in groupby(placed, key=itemgetter(0)):
        listed = list(entries)
        values = await store.hash_fields(bucket, [field for _, field, _ in listed])
        for (_, _, key_id), value in zip(listed, values, strict=True):
            found[key_id] = _decoded(value)
    return found


async def note_networks(
    store: FactStore, uses: Sequence[UseT]
) -> tuple[list[UseT], list[UseT], Unavailable | None]:
    """Store these uses. Returns those from a network that is new to a key with others, and what failed.

    The second list has the uses that could not be stored.
    """
    new: list[UseT] = []
    by_bucket = sorted(uses, key=lambda use: (names.networks_of(use.key_id), use.at))
    failed: list[UseT] = []
    failure: Unavailable | None = None
    for bucket, in_bucket in groupby(by_bucket, key=lambda use: names.networks_of(use.key_id)[0]):
        listed = list(in_bucket)
        if failure is not None:
            failed += listed
            continue
        try:
            new += await _note_bucket(store, bucket, listed)
        except Unavailable as error:
            failure = error
            failed += listed
    return new, failed, failure


async def _note_bucket(store: FactStore, bucket: bytes, uses: Sequence[UseT]) -> list[UseT]:
    known = await find_networks(store, list(dict.fromkeys(use.key_id for use in uses)))
    new: list[UseT] = []
    changed: dict[bytes, bytes] = {}
    for key_id, of_key in groupby(uses, key=attrgetter("key_id")):
        networks = known[key_id]
        had_others = bool(networks)
        for use in of_key:
            if use.network not in networks:
                networks[use.network] = use.at
                if had_others:
                    new.append(use)
                changed[names.networks_of(key_id)[1]] = _encoded(networks)
    if changed:
        await store.put_hash(bucket, changed)
    return new


def _encoded(networks: Networks) -> bytes:
    kept = sorted(networks.items(), key=itemgetter(1))[-MAX_NETWORKS:]
    return b" ".join(b"%b=%d" % (network.encode(), seen_at) for network, seen_at in kept)


def _decoded(value: bytes | None) -> Networks:
    """The networks of a stored text; what does not parse is none."""
    found: Networks = {}
    for part in (value or b"").split(b" ")[:MAX_NETWORKS]:
        match = _FIELD.fullmatch(part)
        if match is not None:
            found[match[1].decode()] = float(match[2])
    return found
