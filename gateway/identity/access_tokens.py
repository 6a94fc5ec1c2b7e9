"""Our access tokens: what is in one, how one is ordered, made and verified. A profile of RFC 9068.

    {"alg":"EdDSA","kid":"<thumbprint>","typ":"at+jwt"}
    {"iss":"https://gateway.example","aud":"https://gateway.example","sub":"acme",
     "client_id":"key_0123456789ab","jti":"...","iat":1795170000,"exp":1795170900,
     "scope":"discover read","model":"acme/cars/*"}

A token stands for the key that its `client_id` names: it may what that key may, cut to `scope` and to `model`
(one model, or all below a prefix; absent: all), and ends with it. `sub` is the tenant of the key, or the key
itself where it has none (an admin key). RFC 9068 requires RS256 of every server; we sign with EdDSA alone.

Issuer and audience are both the URL by which clients reach us: a token of ours is for us and for nobody else.

Non-goals: whether the key is valid now (`authenticate_token.py`), and which key signs (`signing_keys.py`).
"""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.identity.json_web_tokens import EDDSA, Rules, parse, sign, verify
from gateway.model.access_claims import MAX_TOKEN_SECONDS, AccessClaims
from gateway.model.errors import BadNameError, Reason, Refusal, Unavailable
from gateway.model.facts import Scope
from gateway.model.names import Pattern, parse_key_id, parse_pattern
from gateway.model.tenant_records import parse_tenant_record_id

if TYPE_CHECKING:
    from gateway.identity.signing_keys import KeyRing
    from gateway.model.access import Principal

TYPE = "at+jwt"
LEEWAY_SECONDS = 60  # between the clocks of two nodes: one may get a token that the other has just made
TOKEN_ID_BYTES = 12  # random: two of a billion tokens share an id with a chance of 1 in 10^11


class TokenOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a token is asked for. None: all that the key has."""

    scopes: frozenset[Scope] | None = None
    only: Pattern | None = None
    audience: str | None = None


class AccessTokens:
    """Makes and verifies the tokens of one installation."""

    __slots__ = ("_rules", "_seconds", "issuer", "ring")

    def __init__(self, *, issuer: str, seconds: int) -> None:
        self.issuer = issuer
        self.ring: KeyRing | None = None  # replaced whenever the keys change; None: not known yet
        self._seconds = seconds
        self._rules = Rules(
            issuer=issuer,
            audience=issuer,
            algorithms=frozenset({EDDSA}),
            types=frozenset({TYPE}),
            leeway_seconds=LEEWAY_SECONDS,
            max_lifetime_seconds=MAX_TOKEN_SECONDS,
        )

    def grant(self, principal: Principal, order: TokenOrder, now: float) -> AccessClaims:
        """The claims of a token for this caller: never more than it may, never longer than its key lives.

        Raises `Refusal`.
        """
        if principal.token_id is not None or principal.is_link or principal.is_of_platform:
            # A platform rules on each use of its keys, and is asked with the key itself.
            raise Refusal(Reason.NOT_EXCHANGEABLE)
        if order.audience not in {None, self.issuer}:
            raise Refusal(Reason.FOREIGN_AUDIENCE)
        scopes = principal.scopes if order.scopes is None else order.scopes
        if not scopes or not scopes <= principal.scopes:
            raise Refusal(Reason.EXCESS_SCOPE)
        issued_at = math.floor(now)
        ends_at = issued_at + self._seconds
        if principal.expires_at is not None:
            ends_at = min(ends_at, math.floor(principal.expires_at))
        if ends_at <= now:
            raise Refusal(
                Reason.EXPIRED_KEY,
                key_id=principal.key_id,
                tenant=principal.tenant,
                tenant_record=principal.tenant_record,
            )
        return AccessClaims(
            key_id=principal.key_id,
            subject=principal.tenant or principal.key_id,
            tenant_record=principal.tenant_record,
            token_id=secrets.token_urlsafe(TOKEN_ID_BYTES),
            issued_at=issued_at,
            expires_at=ends_at,
            scopes=scopes,
            only=order.only,
        )

    def sign(self, claims: AccessClaims) -> str:
        """The token with these claims. Raises `Unavailable` where this node lacks the key that signs."""
        key = self.known_ring().signing
        if key is None:
            raise Unavailable("signing keys", "this node does not hold the key that signs tokens")
        return sign(self.members(claims), kid=key.kid, kind=TYPE, key=key.private)

    def known_ring(self) -> KeyRing:
        """The keys as they are now. Raises `Unavailable` as long as that is not known."""
        if self.ring is None:
            raise Unavailable("signing keys", "nobody has said yet which of them signs")
        return self.ring

    def members(self, claims: AccessClaims) -> dict[str, Any]:
        """The claims as the members of a token."""
        members = {
            "iss": self.issuer,
            "aud": self.issuer,
            "sub": claims.subject,
            "client_id": claims.key_id,
            "jti": claims.token_id,
            "iat": claims.issued_at,
            "exp": claims.expires_at,
            "scope": " ".join(sorted(claims.scopes)),
        }
        if claims.tenant_record is not None:
            members["tenant_record"] = claims.tenant_record
        return members if claims.only is None else {**members, "model": claims.only}

    def verify(self, text: str, now: float) -> AccessClaims:
        """The claims of a token that we have signed and that has not ended.

        Raises `Refusal`. That of an ended token names its key, for the record: it was ours.
        """
        token = parse(text)
        try:
            found = verify(token, self.known_ring().trusted, self._rules, now)
        except Refusal as refusal:
            if refusal.reason is not Reason.EXPIRED_TOKEN:
                raise
            claims = _claims(token.unverified_claims)  # verified: only the end was wrong
            raise Refusal(refusal.reason, key_id=claims.key_id) from None
        if found.token_id is None:
            raise Refusal(Reason.INVALID_TOKEN)
        return _claims(token.unverified_claims)


def parse_scope(text: str) -> frozenset[Scope]:
    """The scopes of a `scope` parameter or claim, separated by one space each. Raises `Refusal`."""
    try:
        return frozenset(map(Scope, text.split(" ")))
    except ValueError:
        raise Refusal(Reason.EXCESS_SCOPE) from None


def _claims(members: Any) -> AccessClaims:
    """The claims from the members of a token that is signed by us. Raises `Refusal(INVALID_TOKEN)`."""
    try:
        only, record_id = members.get("model"), members.get("tenant_record")
        return AccessClaims(
            key_id=parse_key_id(members["client_id"]),
            subject=members["sub"],
            tenant_record=None if record_id is None else parse_tenant_record_id(record_id),
            token_id=members["jti"],
            issued_at=members["iat"],
            expires_at=members["exp"],
            scopes=parse_scope(members["scope"]),
            only=None if only is None else parse_pattern(only),
        )
    except (BadNameError, KeyError, TypeError, AttributeError, Refusal):  # we have signed no such token
        raise Refusal(Reason.INVALID_TOKEN) from None
