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

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model.facts import Stamp
    from gateway.model.verdicts import Allowed

    PassKey = tuple[bytes, str, bytes]  # the credential's fingerprint, the client's address, the raw path

PASS_BYTES = 2_500  # with its stamps and its key; the leaves are shared with the near cache


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pass:
    """An allow that stands. `since` is when its key was last judged the whole way."""

    allowed: Allowed
    key_stamp: Stamp
    stamp: Stamp  # the key's and the decision's
    since: float


@dataclass(slots=True)
class PassCounts:
    """For the metrics."""

    hits: int = 0


class Passes:
    """A worker's passes; the least recently used goes first."""

    def __init__(self, *, max_bytes: int) -> None:
        self.counts = PassCounts()
        self._limit = max(1, max_bytes // PASS_BYTES)
        self._passes: OrderedDict[PassKey, Pass] = OrderedDict()

    def find(self, key: PassKey) -> Pass | None:
        """The pass under this key, if nothing that it stands on has moved."""
        found = self._passes.get(key)
        if found is None:
            return None
        if not found.stamp.is_current:
            del self._passes[key]
            return None
        self._passes.move_to_end(key)
        self.counts.hits += 1
        return found

    def put(self, key: PassKey, new: Pass) -> None:
        """Keep it, unless something moved since it was reached: no late writer (I6)."""
        if not new.stamp.is_current:
            return
        self._passes[key] = new
        self._passes.move_to_end(key)
        while len(self._passes) > self._limit:
            self._passes.popitem(last=False)
