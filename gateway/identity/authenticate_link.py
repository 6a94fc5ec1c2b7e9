"""A signed link in, the principal of the key that it names out, or the reason why not.

The signature and the expiry are judged first, with no fact at hand: a stranger with a made-up link costs
a few microseconds and no look into Redis. Then the link stands on its key as every request does, at
every request: the record is found, judged by the same rules (revoked, expired, networks, tenant), and
goes into the stamp, so that a revocation ends the link where it would end the key (I6).

A link names its key by id, and a record lies under a digest of the key. An index leads from the one to
the other; it is not part of the facts, nobody tells us of its changes, and it decides nothing: the record
that it leads to has to name the same id itself. So what it said may be remembered, and is looked up
anew once it leads nowhere.

The principal has the scope `read` at most, and ends with the link: what depends on the time of a
principal (`is_valid_still`, the last check before the first byte) covers the link without knowing of it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from hmac import compare_digest
from typing import TYPE_CHECKING

from gateway.identity.links import verify
from gateway.identity.recent_callers import Caller, RecentCallers
from gateway.model.access import Credential
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import Scope

if TYPE_CHECKING:
    from gateway.identity.authenticate import Authenticator
    from gateway.identity.links import LinkKeys
    from gateway.model.access import Principal, SignedLink
    from gateway.model.facts import Key, Stamp, Tenant
    from gateway.model.names import KeyId
    from gateway.model.ports import KeyDirectory

MAX_DIGESTS = 10_000  # keys of links; about 300 bytes each, none of them more

LINK_SCOPES = frozenset({Scope.READ})


class LinkAuthenticator:
    """`Authenticate` of the ports, for keys and for signed links of keys."""

    __slots__ = ("_digests", "_directory", "_keys", "_link_keys", "_recent")

    def __init__(self, keys: Authenticator, directory: KeyDirectory, link_keys: LinkKeys | None) -> None:
        """Without `link_keys` no link is ours: this installation hands none out."""
        self._keys = keys
        self._directory = directory
        self._link_keys = link_keys
        self._recent = RecentCallers()
        self._digests: OrderedDict[KeyId, bytes] = OrderedDict()

    @property
    def memories(self) -> tuple[RecentCallers, ...]:
        """What is remembered, of keys and of links, to be swept."""
        return (self._recent, *self._keys.memories)

    def recall(
        self, credential: Credential | SignedLink, client: str, now: float
    ) -> tuple[Principal, Stamp] | None:
        """A caller who was valid lately and still is, without waiting for anything; else None."""
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
        """The caller, and what that answer stands on. Raises `Refusal` for every one not valid now."""
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
        """Whether a caller who was authenticated then, and whose records have not moved, is valid now."""
        return self._keys.is_valid_still(principal, since, now)

    def _verify(self, link: SignedLink, now: float) -> None:
        if self._link_keys is None:
            raise Refusal(Reason.INVALID_LINK)
        verify(self._link_keys, link, self._keys.latest(now))

    async def _find_key(self, key_id: KeyId) -> tuple[bytes, Key, Tenant | None, Stamp]:
        """The key with this id: where its record lies, the record, its tenant, and what was read."""
        for find_digest in (self._remembered_digest, self._directory.find_key_digest):
            digest = await find_digest(key_id)
            if digest is None:
                continue
            key, tenant, stamp = await self._directory.find_key([digest])
            if key is not None and key.key_id == key_id:
                self._remember(key_id, digest)
                return digest, key, tenant, stamp
        raise Refusal(Reason.UNKNOWN_KEY, key_id=key_id)

    async def _remembered_digest(self, key_id: KeyId) -> bytes | None:
        return self._digests.get(key_id)

    def _remember(self, key_id: KeyId, digest: bytes) -> None:
        self._digests[key_id] = digest
        self._digests.move_to_end(key_id)
        if len(self._digests) > MAX_DIGESTS:
            self._digests.popitem(last=False)

    def _verify_is_stored_under(self, digest: bytes, beside: Credential) -> None:
        """Raises unless the key in the header is the one that the link names."""
        is_same = False
        for candidate in self._keys.digests(beside):
            is_same |= compare_digest(candidate, digest)
        if not is_same:
            raise Refusal(Reason.CONFLICTING_CREDENTIALS)


def _name_of(link: SignedLink) -> bytes:
    """By what a link's caller is remembered: all links of one key with one expiry are one caller."""
    return b"%b %d" % (link.key_id.encode(), link.expires_at)
