"""Authenticate a signed link: the link in, the principal of the key that it names out, or a `Refusal`.

Signature and expiry are checked first, without reading any fact: an invalid link costs a few microseconds
and no read of Redis. Then the link depends on its key at every request: the key's record is found, checked
by the same rules (revoked, expired, networks, tenant), and becomes part of the stamp, so that a revocation
ends the link where it would end the key (I6).

A link names its key by id, but a record is stored under a digest of the key. An index leads from id to
digest. It is not part of the facts, its changes are not pushed to workers, and it decides nothing: the record
found through it has to have the same id. So its entries may be remembered, and are looked up again when they
lead to no such record.

The principal has the scope `read` at most, and ends with the link: the time checks of a principal
(`is_valid_still`, the last check before the first byte) cover the link without knowing of it.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.identity.links import verify
from gateway.identity.recent_callers import Caller, RecentCallers
from gateway.model.access import Credential
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import Scope

if TYPE_CHECKING:
    from gateway.identity.authenticate import Authenticator
    from gateway.identity.links import LinkKeys
    from gateway.model.access import Principal, SignedLink
    from gateway.model.facts import Key, Tenant
    from gateway.model.names import KeyId
    from gateway.model.ports import KeyDirectory
    from gateway.model.stamps import Stamp

DIGESTS_BYTES = 4 << 20  # some 10,000 remembered index entries
DIGEST_BYTES = 120  # of an entry: a key id and a digest

LINK_SCOPES = frozenset({Scope.READ})


class LinkAuthenticator:
    """Implements the port `Authenticate` for keys and for signed links of keys."""

    __slots__ = ("_digests", "_directory", "_keys", "_link_keys", "_recent")

    def __init__(self, keys: Authenticator, directory: KeyDirectory, link_keys: LinkKeys | None) -> None:
        """Without `link_keys` every link is refused: this installation issues none."""
        self._keys = keys
        self._directory = directory
        self._link_keys = link_keys
        self._recent = RecentCallers()
        self._digests: BoundedMemory[KeyId, bytes] = BoundedMemory(
            max_bytes=DIGESTS_BYTES, weigh=lambda _key_id, _digest: DIGEST_BYTES
        )

    @property
    def memories(self) -> tuple[RecentCallers, ...]:
        """The bounded memories, of keys and of links, for the periodic sweep."""
        return (self._recent, *self._keys.memories)

    def recall(
        self, credential: Credential | SignedLink, client: str, now: float
    ) -> tuple[Principal, Stamp] | None:
        """A caller who was valid recently and still is, from memory, without waiting; else None."""
        if isinstance(credential, Credential):
            return self._keys.recall(credential, client, now)
        if credential.beside is not None:
            return None
        caller = self._recent.find(_name_of(credential))
        if caller is None:
            return None
        try:
            self._verify(credential, now)
            self._keys.judge(caller.key, caller.tenant, client, now)
        except Refusal:
            return None
        return caller.principal, caller.stamp

    async def authenticate(
        self, credential: Credential | SignedLink, client: str, now: float
    ) -> tuple[Principal, Stamp]:
        """The caller, and the stamp of the records read. Raises `Refusal` for every one not valid now."""
        if isinstance(credential, Credential):
            return await self._keys.authenticate(credential, client, now)
        self._verify(credential, now)
        digest, key, tenant, stamp = await self._find_key(credential.key_id)
        if credential.beside is not None:
            self._verify_is_stored_under(digest, credential.beside)
        principal = self._keys.judge(key, tenant, client, now)
        expiries = (principal.expires_at, float(credential.expires_at))
        principal = replace(
            principal,
            scopes=principal.scopes & LINK_SCOPES,
            expires_at=min(expiry for expiry in expiries if expiry is not None),
            is_link=True,
        )
        self._recent.put(_name_of(credential), Caller(key, tenant, principal, stamp))
        return principal, stamp

    def is_valid_still(self, principal: Principal, since: float, now: float) -> bool:
        """Whether a caller authenticated at `since`, whose records have not changed, is valid now."""
        return self._keys.is_valid_still(principal, since, now)

    def _verify(self, link: SignedLink, now: float) -> None:
        if self._link_keys is None:
            raise Refusal(Reason.INVALID_LINK)
        verify(self._link_keys, link, self._keys.latest(now))

    async def _find_key(self, key_id: KeyId) -> tuple[bytes, Key, Tenant | None, Stamp]:
        """Find a key by id: the digest of its record, the record, its tenant, and the stamp."""
        for find_digest in (self._remembered_digest, self._directory.find_key_digest):
            digest = await find_digest(key_id)
            if digest is None:
                continue
            key, tenant, stamp = await self._directory.find_key([digest])
            if key is not None and key.key_id == key_id:
                self._digests.put(key_id, digest)
                return digest, key, tenant, stamp
        raise Refusal(Reason.UNKNOWN_KEY, key_id=key_id)

    async def _remembered_digest(self, key_id: KeyId) -> bytes | None:
        return self._digests.find(key_id)

    def _verify_is_stored_under(self, digest: bytes, beside: Credential) -> None:
        """Raise unless the key in the header is the one that the link names."""
        is_same = False
        for candidate in self._keys.digests(beside):
            is_same |= compare_digest(candidate, digest)
        if not is_same:
            raise Refusal(Reason.CONFLICTING_CREDENTIALS)


def _name_of(link: SignedLink) -> bytes:
    """The memory key of a link's caller: all links of one key with one expiry share an entry."""
    return b"%b %d" % (link.key_id.encode(), link.expires_at)
