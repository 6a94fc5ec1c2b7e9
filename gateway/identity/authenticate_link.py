"""Authenticate a signed link: the link in, the principal of the key that it names out, or a `Refusal`.

Signature and expiry are checked first, without reading any fact: an invalid link costs a few microseconds
and no read of Redis. Then the link depends on its key at every request: the key's record is found, checked
by the same rules (revoked, expired, networks, tenant), and becomes part of the stamp, so that a revocation
ends the link where it would end the key (I6).

A key or an access token that comes beside a link has to be of the very key that the link names.

The principal has the scope `read` at most, and ends with the link: the time checks of a principal
(`is_valid_still`, the last check before the first byte) cover the link without knowing of it.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.identity.links import verify
from gateway.identity.recent_callers import Caller, RecentCallers
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import Scope

if TYPE_CHECKING:
    from gateway.identity.authenticate import Authenticator
    from gateway.identity.authenticate_token import TokenAuthenticator
    from gateway.identity.keys_by_id import KeysById
    from gateway.identity.links import LinkKeys
    from gateway.model.access import Credential, Principal, SignedLink
    from gateway.model.stamps import Stamp

LINK_SCOPES = frozenset({Scope.READ})


class LinkAuthenticator:
    """Authenticates signed links of keys."""

    __slots__ = ("_by_id", "_keys", "_link_keys", "_recent", "_tokens")

    def __init__(
        self,
        keys: Authenticator,
        by_id: KeysById,
        link_keys: LinkKeys | None,
        tokens: TokenAuthenticator,
    ) -> None:
        """Without `link_keys` every link is refused: this installation issues none."""
        self._keys = keys
        self._by_id = by_id
        self._link_keys = link_keys
        self._tokens = tokens
        self._recent = RecentCallers()

    @property
    def memories(self) -> tuple[RecentCallers, ...]:
        """The bounded memory, for the periodic sweep."""
        return (self._recent,)

    def recall(self, link: SignedLink, client: str, now: float) -> tuple[Principal, Stamp] | None:
        """A caller who was valid recently and still is, from memory, without waiting; else None."""
        if link.beside is not None:
            return None
        caller = self._recent.find(_name_of(link))
        if caller is None:
            return None
        try:
            self._verify(link, now)
            self._keys.verify(caller.key, caller.tenant, client, now)
        except Refusal:
            return None
        return caller.principal, caller.stamp

    async def authenticate(self, link: SignedLink, client: str, now: float) -> tuple[Principal, Stamp]:
        """The caller, and the stamp of the records read. Raises `Refusal` for every one not valid now."""
        self._verify(link, now)
        digest, key, tenant, stamp = await self._by_id.find(link.key_id)
        if link.beside is not None:
            await self._verify_is_of(digest, link, link.beside, now)
        principal = self._keys.judge(key, tenant, client, now)
        expiries = (principal.expires_at, float(link.expires_at))
        principal = replace(
            principal,
            scopes=principal.scopes & LINK_SCOPES,
            expires_at=min(expiry for expiry in expiries if expiry is not None),
            is_link=True,
        )
        self._recent.put(_name_of(link), Caller(key, tenant, principal, stamp))
        return principal, stamp

    def _verify(self, link: SignedLink, now: float) -> None:
        if self._link_keys is None:
            raise Refusal(Reason.INVALID_LINK)
        verify(self._link_keys, link, self._keys.latest(now))

    async def _verify_is_of(self, digest: bytes, link: SignedLink, beside: Credential, now: float) -> None:
        """Raise unless the credential in the header is of the key that the link names."""
        if beside.is_token:
            claims, *_ = await self._tokens.find(beside.secret, now)
            is_same = claims.key_id == link.key_id
        else:
            is_same = False
            for candidate in self._keys.digests(beside):
                is_same |= compare_digest(candidate, digest)
        if not is_same:
            raise Refusal(Reason.CONFLICTING_CREDENTIALS)


def _name_of(link: SignedLink) -> bytes:
    """The memory key of a link's caller: all links of one key with one expiry share an entry."""
    return b"%b %d" % (link.key_id.encode(), link.expires_at)
