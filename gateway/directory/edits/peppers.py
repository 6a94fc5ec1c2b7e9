"""Checks that a node holds every pepper under which keys in the store were hashed, by their fingerprints.

Under a pepper that a node lacks, keys are unknown to it, and keys that it stores under a pepper of its own
are unknown to other nodes. So all known fingerprints are compared. Comparing only the ids that the node has
would accept a foreign pepper under a new id.

The peppers themselves are not handled here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.directory.edits.effect import Effect
from gateway.model.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.directory.edits.changes import Changes


def find_pepper_not_held(held: Mapping[str, str], known: Mapping[str, str]) -> str | None:
    """Return the id of a known pepper that a node lacks or has a different one for; None if it holds all."""
    return next((one for one in sorted(known) if held.get(one) != known[one]), None)


async def remember_peppers(changes: Changes, *, held: Mapping[str, str]) -> Effect:
    """Store the fingerprints of a node's new peppers, by id, if the node holds all that are known."""
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
