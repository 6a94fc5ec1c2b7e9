"""Peppers: which ones the keys in the store were hashed under, known by their fingerprints.

A node has to hold all of them: under a pepper that it lacks, keys are unknown keys, and what it
stores under one that the others lack is unknown to them. So the known ones are compared as a whole.
Looking at the node's own ids alone would let a foreign pepper in under a new id.

The peppers themselves never come here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.directory.edits.effect import Effect
from gateway.model.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.directory.changes import Changes


def find_pepper_not_held(held: Mapping[str, str], known: Mapping[str, str]) -> str | None:
    """The id of a known pepper that a node lacks or has another one for; None when it holds all."""
    return next((one for one in sorted(known) if held.get(one) != known[one]), None)


async def remember_peppers(changes: Changes, *, held: Mapping[str, str]) -> Effect:
    """Note the fingerprints of a node's new peppers, if it holds all that are known. Both by pepper id."""
    known = await changes.pepper_fingerprints()
    missing = find_pepper_not_held(held, known)
    if missing is not None:
        raise Conflict(
            f"this node does not hold the pepper {missing} that keys in Redis were stored under: copy the "
            "state folder's peppers from the node that made them"
        )
    new = sorted(held.keys() - known.keys())
    for pepper_id in new:
        await changes.put_pepper_fingerprint(pepper_id, held[pepper_id])
    return Effect(is_changed=bool(new), sentences=tuple(f"pepper {pepper_id} noted" for pepper_id in new))
