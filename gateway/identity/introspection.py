"""Whether an access token is active (RFC 7662): for servers that verify tokens of ours themselves.

Who verifies a token offline, by our published keys, does not learn that its key was revoked. It may ask. The
answer is what a request with the token would meet now: the token is signed by us and has not ended, its key
and tenant are valid. A key that is bound to networks is judged without them, because only the server that was
sent the token knows from where.

A tenant's caller is told about tokens of its own tenant; about all others it is told what it would be told
about a text that is no token at all. An admin key, which the operator gave to a server of its own, is told
about all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.model.access import Credential
from gateway.model.errors import Refusal
from gateway.model.facts import KeyKind
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Introspected

if TYPE_CHECKING:
    from gateway.identity.authenticate import Authenticator
    from gateway.identity.authenticate_token import TokenAuthenticator
    from gateway.model.access import Principal

_NOTHING = Stamp(0, ())


class Introspection:
    """Tells callers about tokens."""

    def __init__(self, tokens: TokenAuthenticator, keys: Authenticator) -> None:
        self._tokens = tokens
        self._keys = keys

    async def look(self, text: str, asking: Principal, now: float) -> tuple[Introspected, Stamp]:
        """What this caller is told, and the stamp of the records that it depends on."""
        if not Credential(text).is_token:
            return Introspected(claims=None), _NOTHING
        try:
            claims, key, tenant, stamp = await self._tokens.find(text, now)
        except Refusal:
            return Introspected(claims=None), _NOTHING
        whose = key.tenant, key.tenant_record
        if asking.kind is KeyKind.TENANT and (asking.tenant, asking.tenant_record) != whose:
            return Introspected(claims=None), stamp
        try:
            self._keys.verify(replace(key, networks=()), tenant, "", now)
        except Refusal:
            return Introspected(claims=None), stamp
        scopes = claims.scopes & key.scopes
        ends_at = claims.expires_at if key.expires_at is None else min(claims.expires_at, int(key.expires_at))
        return Introspected(claims=replace(claims, scopes=scopes, expires_at=ends_at)), stamp
