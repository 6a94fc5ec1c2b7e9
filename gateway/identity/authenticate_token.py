"""Authenticate an access token: the token in, the principal of the key that it names out, or a `Refusal`.

Signature, issuer, audience and times are checked first, without reading any fact. Then the token depends on
its key at every request, as a signed link does: the key's record is found, checked by the same rules
(revoked, expired, networks, tenant), and becomes part of the stamp, so that a revocation ends the token where
it would end the key (I6).

The principal has the scopes that both token and key have, is narrowed to the token's model, and ends with the
token: the time checks of a principal cover it without knowing of it.

A token that was verified is remembered by its digest, until it ends, a record that it stands on changes, or
the keys that verify tokens change.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.identity.platform_keys import sha256_of
from gateway.identity.recent_callers import Caller, RecentCallers, is_unbounded
from gateway.model.errors import Reason, Refusal
from gateway.model.rulings import SOURCE_PLATFORM

if TYPE_CHECKING:
    from gateway.identity.access_tokens import AccessTokens
    from gateway.identity.authenticate import Authenticator
    from gateway.identity.keys_by_id import KeysById
    from gateway.model.access import Credential, Principal
    from gateway.model.access_claims import AccessClaims
    from gateway.model.facts import Key, Tenant
    from gateway.model.stamps import Stamp


class TokenAuthenticator:
    """Authenticates access tokens. Without `tokens` every one is refused: this installation issues none."""

    __slots__ = ("_by_id", "_keys", "_recent", "_ring", "_tokens")

    def __init__(self, keys: Authenticator, by_id: KeysById, tokens: AccessTokens | None) -> None:
        self._keys = keys
        self._by_id = by_id
        self._tokens = tokens
        self._ring = None if tokens is None else tokens.ring  # what all that is remembered was verified with
        self._recent = RecentCallers()

    @property
    def issuer(self) -> str | None:
        """The issuer of our tokens; None where there are none."""
        return None if self._tokens is None else self._tokens.issuer

    @property
    def memories(self) -> tuple[RecentCallers, ...]:
        """The bounded memory, for the periodic sweep."""
        return (self._recent,)

    def recall(self, credential: Credential, client: str, now: float) -> tuple[Principal, Stamp] | None:
        """A caller whose token was verified and still is valid, from memory, without waiting; else None."""
        if self._tokens is None or self._ring is not self._tokens.ring:
            return None
        caller = self._recent.find(sha256_of(credential))
        if caller is None:
            return None
        principal = caller.principal
        if principal.expires_at is None or not self._keys.latest(now) < principal.expires_at:
            return None
        if caller.is_unbounded and -math.inf < now < math.inf:
            return principal, caller.stamp
        try:
            self._keys.verify(caller.key, caller.tenant, client, now)
        except Refusal:
            return None
        return principal, caller.stamp

    async def authenticate(self, credential: Credential, client: str, now: float) -> tuple[Principal, Stamp]:
        """The caller, and the stamp of the records read. Raises `Refusal` for every token not valid now."""
        ring = None if self._tokens is None else self._tokens.ring
        claims, key, tenant, stamp = await self.find(credential.secret, now)
        principal = self._keys.judge(key, tenant, client, now)
        expiries = (principal.expires_at, float(claims.expires_at))
        principal = replace(
            principal,
            scopes=principal.scopes & claims.scopes,
            expires_at=min(expiry for expiry in expiries if expiry is not None),
            token_id=claims.token_id,
            only=claims.only,
        )
        if self._ring is ring:  # else the key that signed may have been withdrawn while facts were read
            self._recent.put(sha256_of(credential), Caller(key, tenant, principal, stamp, is_unbounded(key)))
        return principal, stamp

    async def find(self, text: str, now: float) -> tuple[AccessClaims, Key, Tenant | None, Stamp]:
        """The claims of a token that is signed by us and has not ended, and its key, whether valid or not."""
        if self._tokens is None:
            raise Refusal(Reason.MALFORMED_TOKEN)
        if self._ring is not self._tokens.ring:
            self._ring = self._tokens.ring
            for memory in self.memories:
                memory.clear()
        claims = self._tokens.verify(text, self._keys.latest(now))
        _, key, tenant, stamp = await self._by_id.find(claims.key_id)
        is_of_key = (claims.subject, claims.tenant_record) == (key.tenant or key.key_id, key.tenant_record)
        if not is_of_key or key.source == SOURCE_PLATFORM:
            raise Refusal(
                Reason.INVALID_TOKEN, key_id=key.key_id, tenant=key.tenant, tenant_record=key.tenant_record
            )
        return claims, key, tenant, stamp
