"""When keys were last seen: noted in memory on the way, written out later, off the way of requests.

A hint for operators who look for keys that nobody uses. It decides nothing, and what a worker has
not written when it is killed is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model.access import Credential, Principal
    from gateway.model.facts import Stamp
    from gateway.model.names import KeyId
    from gateway.model.ports import Authenticate


class LastUses:
    """The keys that were seen since they were last taken out, each with its latest moment."""

    def __init__(self) -> None:
        self._seen: dict[KeyId, float] = {}

    def noting(self, inner: Authenticate) -> Authenticate:
        """The same authentication; it notes every key that is valid."""
        return _Noting(inner, self._seen)

    def take(self) -> dict[KeyId, float]:
        """What was noted; starts anew."""
        taken = dict(self._seen)
        self._seen.clear()
        return taken


class _Noting:
    def __init__(self, inner: Authenticate, seen: dict[KeyId, float]) -> None:
        self._inner = inner
        self._seen = seen

    def recall(self, credential: Credential, client: str, now: float) -> tuple[Principal, Stamp] | None:
        found = self._inner.recall(credential, client, now)
        if found is not None:
            self._seen[found[0].key_id] = now
        return found

    async def authenticate(self, credential: Credential, client: str, now: float) -> tuple[Principal, Stamp]:
        principal, stamp = await self._inner.authenticate(credential, client, now)
        self._seen[principal.key_id] = now
        return principal, stamp

    def is_valid_still(self, principal: Principal, since: float, now: float) -> bool:
        if not self._inner.is_valid_still(principal, since, now):
            return False
        self._seen[principal.key_id] = now
        return True
