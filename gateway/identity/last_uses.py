"""Note in memory when each key was last used, to be written to Redis later, outside of any request.

It serves operators who search for unused keys. It decides nothing, and what a worker has not written when it
is killed is lost.

The first time a worker sees a key, it also notes the key's mark, by which an entry of the engine's own cache
is attributed to that key. The function `mark_of`, passed in, computes a mark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.identity.key_networks import KeyNetworks
from gateway.model.access import Credential

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model.access import Principal, SignedLink
    from gateway.model.names import KeyId
    from gateway.model.ports import Authenticate
    from gateway.model.stamps import Stamp


MAX_SEEN = 100_000  # keys between two calls of `take`: some 15 MB; further keys are not noted
MAX_MARKED = 100_000  # keys remembered as marked: some 10 MB; beyond that, keys are marked again


class LastUses:
    """The keys used since the last `take`, each with the time of its latest use."""

    def __init__(
        self, mark_of: Callable[[str], bytes] | None = None, networks: KeyNetworks | None = None
    ) -> None:
        """`networks` is told from where keys are used."""
        self._seen: dict[KeyId, float] = {}
        self._marks = _Marks(mark_of)
        self._networks = KeyNetworks() if networks is None else networks

    def noting(self, inner: Authenticate) -> Authenticate:
        """Wrap an authenticator so that it notes every valid key."""
        return _Noting(inner, self._seen, self._marks, self._networks)

    def take(self) -> dict[KeyId, float]:
        """Return the notes and clear them."""
        taken = dict(self._seen)
        self._seen.clear()
        return taken

    def take_marks(self) -> dict[KeyId, bytes]:
        """Return the marks of keys seen for the first time, and clear them."""
        return self._marks.take()

    def give_back_marks(self, marks: dict[KeyId, bytes]) -> None:
        """Keep marks that could not be written: a lost time is noted again at the next use, a mark is not."""
        self._marks.give_back(marks)


class _Marks:
    """The marks of keys, each computed once."""

    def __init__(self, mark_of: Callable[[str], bytes] | None) -> None:
        self._mark_of = mark_of
        self._new: dict[KeyId, bytes] = {}
        self.marked: set[KeyId] = set()

    def note(self, key_id: KeyId, credential: Credential) -> None:
        if self._mark_of is None or key_id in self.marked or len(self._new) >= MAX_MARKED:
            return
        if len(self.marked) >= MAX_MARKED:
            self.marked.clear()
        self.marked.add(key_id)
        self._new[key_id] = self._mark_of(credential.secret)

    def take(self) -> dict[KeyId, bytes]:
        taken, self._new = self._new, {}
        return taken

    def give_back(self, marks: dict[KeyId, bytes]) -> None:
        self._new = {**marks, **self._new}


class _Noting:
    def __init__(
        self, inner: Authenticate, seen: dict[KeyId, float], marks: _Marks, networks: KeyNetworks
    ) -> None:
        self._inner = inner
        self._seen = seen
        self._marks = marks
        self._networks = networks
        self._latest = networks.latest

    def recall(
        self, credential: Credential | SignedLink, client: str, now: float
    ) -> tuple[Principal, Stamp] | None:
        found = self._inner.recall(credential, client, now)
        if found is not None:
            key_id = found[0].key_id
            if (  # the usual case, without calls
                key_id in self._seen and key_id in self._marks.marked and self._latest.get(key_id) == client
            ):
                self._seen[key_id] = now
            else:
                self._note(key_id, credential, now)
                self._networks.note(found[0], client, now)
        return found

    async def authenticate(
        self, credential: Credential | SignedLink, client: str, now: float
    ) -> tuple[Principal, Stamp]:
        principal, stamp = await self._inner.authenticate(credential, client, now)
        self._note(principal.key_id, credential, now)
        self._networks.note(principal, client, now)
        return principal, stamp

    def _note(self, key_id: KeyId, credential: Credential | SignedLink, now: float) -> None:
        self._see(key_id, now)
        if isinstance(credential, Credential) and not credential.is_token:  # only a key is its own secret
            self._marks.note(key_id, credential)

    def is_valid_still(self, principal: Principal, since: float, now: float) -> bool:
        if not self._inner.is_valid_still(principal, since, now):
            return False
        self._see(principal.key_id, now)
        return True

    def _see(self, key_id: KeyId, now: float) -> None:
        if key_id in self._seen or len(self._seen) < MAX_SEEN:
            self._seen[key_id] = now
