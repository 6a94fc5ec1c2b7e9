"""Passes: what the guard came to for a caller and a path, used again while nothing it stands on moved.

A pass is the outcome of the pipeline up to the disk: who it is, what the path names, and that the
rules allow it. All of that is a function of the request's credential, address and path, of the facts,
and of the time. The first three are the key under which a pass is kept; the facts are its stamp, which
is looked at each time, leaf by leaf; and the time is judged anew by identity. So a pass never says
anything that the pipeline would not say now, and there is no time to live.

Only allows of files are kept. A refusal takes the whole way every time, so that its cost tells nothing
(I3); a blob asked for by its digest is found through the disk, which no stamp covers.

Non-goals: whether the file is there, and whether its content is what it was. That is asked of the
disk, each time.
"""

from __future__ import annotations

from operator import attrgetter
from sys import getsizeof
from typing import TYPE_CHECKING

import msgspec

from gateway.model.bounded_memory import BoundedMemory

if TYPE_CHECKING:
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Allowed

    PassKey = tuple[bytes, str, bytes]  # the credential's fingerprint, the client's address, the raw path

PASS_BYTES = 1_800  # with its access, caller, stamps and key, beside texts and records: measured, rounded up


class Pass(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An allow that stands. `since` is when its key was last judged the whole way."""

    allowed: Allowed
    key_stamp: Stamp
    stamp: Stamp  # the key's and the decision's
    since: float


class Passes(BoundedMemory["PassKey", Pass]):
    """A worker's passes. One that was overtaken while it was reached is not kept (I6)."""

    __slots__ = ()

    def __init__(self, *, max_bytes: int) -> None:
        super().__init__(max_bytes=max_bytes, weigh=_held_bytes, stands_on=attrgetter("stamp.leaves"))


def _held_bytes(key: PassKey, kept: Pass) -> int:
    """What a pass holds alone: the path in the key, and names that nobody else may hold by now."""
    allowed, resource = kept.allowed, kept.allowed.access.resource
    texts = (resource.model, allowed.model, resource.package, resource.file, allowed.grant)
    names = sum([getsizeof(text) for text in (*texts, *allowed.policies) if text is not None])
    tables = 16 * len(kept.stamp.leaves)  # of both stamps and the allow's own
    return PASS_BYTES + getsizeof(key[1]) + getsizeof(key[2]) + names + tables
