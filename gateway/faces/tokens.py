"""The token face: makes access tokens, tells about them, and publishes the keys that verify them.

    POST     /v1/token                                 a token for a key: an exchange, or client credentials
    POST     /v1/introspect                            whether a token is active (scope tokens:introspect)
    GET/HEAD /.well-known/jwks.json                    the public keys
    GET/HEAD /.well-known/oauth-authorization-server   where all this is, for OAuth clients (RFC 8414)

Every token that is made or refused was decided by the guard and is recorded. Which key asks is the caller of
the request, wherever in the request the key stands (`credential/extract_client.py`). `scope` and `model`
narrow a token: `model` is a model id, or `prefix/*` for all models below a prefix.

The last two are the same for everybody, and nobody needs a key for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.credential.extract_client import (
    ACCESS_TOKEN,
    GRANT_TYPES,
    has_client,
    parse_token_request,
)
from gateway.credential.forms import MAX_FORM_BYTES, parse_form
from gateway.delivery.document import answer_document
from gateway.delivery.headers import content_headers
from gateway.faces.route import FaceRoute
from gateway.identity.access_tokens import TokenOrder, parse_scope
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.answers import Answer
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.facts import Scope
from gateway.model.header_block import Headers
from gateway.model.names import parse_pattern
from gateway.model.routes import GuardedRoute, PublicRoute
from gateway.model.verdicts import Introspected, TokenGrant
from gateway.problems import oauth_problem_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.identity.access_tokens import AccessTokens
    from gateway.identity.introspection import Introspection
    from gateway.model.access import Credential, WireRequest
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Allowed, Receipt

TOKEN_PATH = b"/v1/token"
INTROSPECT_PATH = b"/v1/introspect"
JWKS_PATH = b"/.well-known/jwks.json"
METADATA_PATH = b"/.well-known/oauth-authorization-server"

PUBLIC_SECONDS = 60  # how long a cache may keep keys and metadata


class TokenFace:
    """The routes that make tokens and tell about them."""

    def __init__(self, tokens: AccessTokens, introspection: Introspection) -> None:
        self._tokens = tokens
        self._introspection = introspection

    @property
    def has_https(self) -> bool:
        """Whether clients reach us by https."""
        return self._tokens.issuer.startswith("https://")

    # POST /v1/token

    async def grant(self, request: WireRequest, allowed: Allowed) -> tuple[TokenGrant, Stamp]:
        """The claims of the token that is asked for."""
        return self.grant_now(request, allowed, None)

    def grant_now(self, request: WireRequest, allowed: Allowed, _looks: object) -> tuple[TokenGrant, Stamp]:
        """The same: it waits for nothing. Raises `Refusal`."""
        asked, principal = parse_token_request(request), allowed.access.principal
        if asked.claimed_client_id not in {None, principal.key_id}:
            # As for a wrong key: a client that names itself wrongly is not authenticated (RFC 6749, 5.2).
            raise Refusal(Reason.WRONG_CLIENT if has_client(request) else Reason.CONFLICTING_CREDENTIALS)
        claims = self._tokens.grant(principal, _order(asked.form), request.received_at)
        return TokenGrant(claims=claims), allowed.stamp

    def answer_token(self, receipt: Receipt) -> Answer:
        """The token: signed now, after its record was written."""
        found = receipt.admission.found
        if not isinstance(found, TokenGrant):
            raise TypeError("this route makes tokens")
        claims = found.claims
        document: dict[str, Any] = {
            "access_token": self._tokens.sign(claims),
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": claims.expires_at - claims.issued_at,
            "scope": " ".join(sorted(claims.scopes)),
        }
        if claims.only is not None:
            document["model"] = claims.only
        answer = answer_document(document)
        return Answer(answer.status, answer.headers.and_also((b"pragma", b"no-cache")), answer.body)

    # POST /v1/introspect

    async def introspect(self, request: WireRequest, allowed: Allowed) -> tuple[Introspected, Stamp]:
        """What the caller is told about the token in the form. Raises `Refusal`."""
        text = parse_form(request).get("token")
        if text is None:
            raise Refusal(Reason.MALFORMED_BODY)
        asking = allowed.access.principal
        found, stamp = await self._introspection.look(text, asking, request.received_at)
        # A text that is no token of ours is told without facts: the record has those about the caller.
        return found, allowed.stamp.joined(stamp) if stamp.leaves else allowed.stamp

    def answer_introspected(self, receipt: Receipt) -> Answer:
        """The members of RFC 7662, 2.2; of an inactive token nothing but that."""
        found = receipt.admission.found
        if not isinstance(found, Introspected):
            raise TypeError("this route tells about tokens")
        if found.claims is None:
            return answer_document({"active": False})
        return answer_document({"active": True, "token_type": "Bearer", **self._tokens.members(found.claims)})

    # Public

    def answer_keys(self) -> Answer:
        """The public keys. Raises `Unavailable` as long as they are not known."""
        return _public(b"application/jwk-set+json", self._tokens.known_ring().published)

    def answer_metadata(self) -> Answer:
        """What RFC 8414 has clients ask for."""
        issuer = self._tokens.issuer
        document = {
            "issuer": issuer,
            "token_endpoint": issuer + TOKEN_PATH.decode(),
            "jwks_uri": issuer + JWKS_PATH.decode(),
            "introspection_endpoint": issuer + INTROSPECT_PATH.decode(),
            "introspection_endpoint_auth_methods_supported": ["Bearer"],
            "grant_types_supported": list(GRANT_TYPES),
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
            "response_types_supported": [],
            "scopes_supported": sorted(Scope),
        }
        body = answer_document(document).body
        return _public(b"application/json", body if isinstance(body, bytes) else b"")


def _order(form: Mapping[str, str]) -> TokenOrder:
    """What the parameters of a request ask for. Raises `Refusal`."""
    audiences = {form[name] for name in ("audience", "resource") if name in form}  # RFC 8693; RFC 8707
    if len(audiences) > 1:
        raise Refusal(Reason.FOREIGN_AUDIENCE)
    try:
        only = parse_pattern(form["model"]) if "model" in form else None
    except BadNameError:
        raise Refusal(Reason.MALFORMED_BODY) from None
    return TokenOrder(
        scopes=parse_scope(form["scope"]) if "scope" in form else None,
        only=only,
        audience=next(iter(audiences), None),
    )


def _public(content_type: bytes, body: bytes) -> Answer:
    headers = Headers.of(
        *content_headers(content_type, len(body)),
        (b"cache-control", b"public, max-age=%d" % PUBLIC_SECONDS),
        (b"x-content-type-options", b"nosniff"),
    )
    return Answer(200, headers, body)


def _locate(_request: WireRequest) -> Resource:
    return Resource(kind=ResourceKind.SELF)


def _extract(request: WireRequest) -> Credential:
    return parse_token_request(request).credential


def _decline(reason: Reason, record_id: str, request: WireRequest) -> Answer:
    return oauth_problem_of(reason, is_of_client=has_client(request)).answer(record_id)


def routes(face: TokenFace) -> list[FaceRoute]:
    """The routes for callers with a key."""
    token = GuardedRoute(
        template=TOKEN_PATH.decode(),
        methods=("POST",),
        action=Action.EXCHANGE,
        matches=TOKEN_PATH.__eq__,
        locate=_locate,
        extract=_extract,
        find=face.grant,
        find_now=face.grant_now,
        answer=face.answer_token,
        form_bytes=MAX_FORM_BYTES,
        decline=_decline,
    )
    introspect = GuardedRoute(
        template=INTROSPECT_PATH.decode(),
        methods=("POST",),
        action=Action.INTROSPECT,
        matches=INTROSPECT_PATH.__eq__,
        locate=_locate,
        find=face.introspect,
        answer=face.answer_introspected,
        form_bytes=MAX_FORM_BYTES,
    )
    return [FaceRoute(token), FaceRoute(introspect)]


def public_routes(face: TokenFace) -> list[PublicRoute]:
    """The routes for everybody. OAuth's metadata is for issuers with an https URL (RFC 8414, 2)."""
    keys = PublicRoute(
        template=JWKS_PATH.decode(),
        methods=("GET", "HEAD"),
        matches=JWKS_PATH.__eq__,
        answer=face.answer_keys,
    )
    metadata = PublicRoute(
        template=METADATA_PATH.decode(),
        methods=("GET", "HEAD"),
        matches=METADATA_PATH.__eq__,
        answer=face.answer_metadata,
    )
    return [keys, metadata] if face.has_https else [keys]
