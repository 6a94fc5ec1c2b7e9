"""Cache of loaded models, so that the next permitted load of the same thing costs nothing.

Optional and bounded. A model is found by the engine's digest of a whole request, which covers the key, the
device, the options and the runtime, and belongs to the key that it was loaded for. The access manager decides
anew before it returns one; nothing here decides.

The engine gives the digest when it asks for an instance and not when it has loaded one. In between, the same
thread may load the model's dependencies. So each thread notes what it asked for, and a loaded model is stored
under the latest question about it: under its own name, or under an alias that the engine reported for it. A
model that matches no question is not kept.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gateway.model.bounded_memory import BoundedMemory
from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from gateway.model.names import KeyId

MAX_ASKED = 64  # questions that a thread remembers: a load with all its dependencies has far fewer


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One loaded model, and the key that it belongs to."""

    model: Any
    canonical: str
    package: str
    key_id: KeyId

    def __repr__(self) -> str:
        return shown(self, hidden=("model",))


class _Asked(msgspec.Struct, frozen=True, gc=False):
    canonical: str
    digest: str


class Instances:
    """The kept models of a process. `limit` 0 keeps none. Used from any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: BoundedMemory[str, Kept] = BoundedMemory(max_entries=limit)
        self._lock = threading.Lock()
        self._thread = threading.local()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, requested: str, digest: str | None) -> Kept | None:
        """A kept model for exactly this request; the question is noted."""
        if not self._limit or digest is None:
            return None
        asked = self._asked()
        if not asked or asked[-1].digest != digest:
            asked.append(_Asked(requested, digest))
        with self._lock:
            return self._kept.find(digest)

    def stands_for(self, alias: str, canonical: str) -> None:
        """Replace the name of this thread's latest question by the canonical one that the engine reported."""
        asked = self._asked()
        if asked and asked[-1].canonical == alias:
            asked[-1] = replace(asked[-1], canonical=canonical)

    def keep(self, kept: Kept) -> None:
        """Keep a loaded model, under this thread's latest question about it."""
        if not self._limit:
            return
        asked = self._asked()
        found = next((one for one in reversed(asked) if one.canonical == kept.canonical), None)
        if found is None:
            return
        asked.remove(found)
        with self._lock:
            self._kept.put(found.digest, kept)

    def drop(self, digest: str | None) -> None:
        """Remove one that may no longer be returned."""
        with self._lock:
            self._kept.drop(digest or "")

    def clear(self) -> None:
        """Remove all."""
        with self._lock:
            self._kept = BoundedMemory(max_entries=self._limit)

    def _asked(self) -> deque[_Asked]:
        asked: deque[_Asked] | None = getattr(self._thread, "asked", None)
        if asked is None:
            asked = self._thread.asked = deque(maxlen=MAX_ASKED)
        return asked
