"""Authenticate whatever credential a request has: an API key, an access token or a signed link.

What a credential is follows from its form alone, and it is tried as nothing else: a text that begins like a
token is never looked up as a key, nor sent to a platform that might know it. Whose token it is follows from
the issuer that it names. One that names us is ours, whatever a document of outside issuers says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.identity.json_web_tokens import parse
from gateway.model.access import Credential

if TYPE_CHECKING:
    from gateway.identity.authenticate import Authenticator
    from gateway.identity.authenticate_link import LinkAuthenticator
    from gateway.identity.authenticate_token import TokenAuthenticator
    from gateway.identity.outside_tokens import OutsideTokens
    from gateway.model.access import Principal, SignedLink
    from gateway.model.bounded_memory import BoundedMemory
    from gateway.model.stamps import Stamp


class AnyAuthenticator:
    """Implements the port `Authenticate` for keys, tokens and links."""

    __slots__ = ("_keys", "_links", "_outside", "_tokens")

    def __init__(
        self,
        keys: Authenticator,
        links: LinkAuthenticator,
        tokens: TokenAuthenticator,
        outside: OutsideTokens | None = None,
    ) -> None:
        """Without `outside`, every token is read as one of ours."""
        self._keys = keys
        self._links = links
        self._tokens = tokens
        self._outside = outside

    @property
    def memories(self) -> tuple[BoundedMemory[Any, Any], ...]:
        """The bounded memories of all of them, for the periodic sweep."""
        outside = () if self._outside is None else self._outside.memories
        return (*self._links.memories, *self._tokens.memories, *outside, *self._keys.memories)

    def recall(
        self, credential: Credential | SignedLink, client: str, now: float
    ) -> tuple[Principal, Stamp] | None:
        """A caller who was valid recently and still is, from memory, without waiting; else None."""
        if not isinstance(credential, Credential):
            return self._links.recall(credential, client, now)
        if credential.is_token:
            ours = self._tokens.recall(credential, client, now)
            if ours is not None or self._outside is None:
                return ours
            return self._outside.recall(credential, client, now)
        return self._keys.recall(credential, client, now)

    async def authenticate(
        self, credential: Credential | SignedLink, client: str, now: float
    ) -> tuple[Principal, Stamp]:
        """The caller, and the stamp of the records read. Raises `Refusal` for every one not valid now."""
        if not isinstance(credential, Credential):
            return await self._links.authenticate(credential, client, now)
        if credential.is_token:
            return await self._authenticate_token(credential, client, now)
        return await self._keys.authenticate(credential, client, now)

    async def _authenticate_token(
        self, credential: Credential, client: str, now: float
    ) -> tuple[Principal, Stamp]:
        if self._outside is not None:
            token = parse(credential.secret)
            if token.claimed_issuer != self._tokens.issuer:
                return await self._outside.authenticate(credential, token, client, now)
        return await self._tokens.authenticate(credential, client, now)

    async def reauthenticate(self, stamp: Stamp, client: str, now: float) -> tuple[Principal, Stamp]:
        """Authenticate the key or the binding of a transfer again. Raises `Refusal` when it is not valid."""
        bound = None if self._outside is None else await self._outside.reauthenticate(stamp, client, now)
        return bound or await self._keys.reauthenticate(stamp, client, now)

    def is_in_time(self, principal: Principal, now: float) -> bool:
        """Whether the caller's key, if its record has not changed, is within its times now."""
        return self._keys.is_in_time(principal, now)

    def is_valid_still(self, principal: Principal, since: float, now: float) -> bool:
        """Whether a caller authenticated at `since`, whose records have not changed, is valid now."""
        return self._keys.is_valid_still(principal, since, now)
