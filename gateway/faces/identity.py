"""The identity face: tells a caller about its own key.

    GET/HEAD /v1/whoami

It shows what the holder may know about the key, and nothing about what the key may access: that is asked
of the content face, one resource at a time. Of an access token it shows scopes and end, and the key that it
stands for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.delivery.document import answer_document
from gateway.faces.route import FaceRoute
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.routes import GuardedRoute
from gateway.model.verdicts import Identity

if TYPE_CHECKING:
    from gateway.model.access import Principal, WireRequest
    from gateway.model.answers import Answer
    from gateway.model.verdicts import Receipt

WHOAMI_PATH = b"/v1/whoami"


def _is_whoami(raw_path: bytes) -> bool:
    return raw_path == WHOAMI_PATH


def _locate(_request: WireRequest) -> Resource:
    return Resource(kind=ResourceKind.SELF)


def answer_whoami(receipt: Receipt) -> Answer:
    """The description of the caller's key, without the key itself."""
    found = receipt.admission.found
    if not isinstance(found, Identity):
        raise TypeError("this route is for the caller itself")
    return answer_document(describe(found.principal))


def describe(principal: Principal) -> dict[str, Any]:
    """The principal as a JSON value."""
    expires = principal.expires_at
    return {
        "kind": principal.kind.value,
        "tenant": principal.tenant,
        "key_id": principal.key_id,
        "name": principal.key_name,
        "scopes": sorted(principal.scopes),
        "expires_at": datetime.fromtimestamp(expires, UTC).isoformat() if expires is not None else None,
        **({} if principal.token_id is None else {"token": _describe_token(principal)}),
        **({} if principal.issuer is None else _describe_binding(principal)),
    }


def _describe_token(principal: Principal) -> dict[str, Any]:
    """What is true of an access token beside its key: its id, and what it is narrowed to."""
    return {"id": principal.token_id, "model": principal.only}


def _describe_binding(principal: Principal) -> dict[str, Any]:
    """What is true of a caller with a token of an outside issuer."""
    return {"issuer": principal.issuer, "binding_id": principal.key_id, "model": principal.only}


WHOAMI = GuardedRoute(
    template="/v1/whoami",
    methods=("GET", "HEAD"),
    action=Action.IDENTIFY,
    matches=_is_whoami,
    locate=_locate,
    answer=answer_whoami,
)


def routes() -> list[FaceRoute]:
    """The routes of this face."""
    return [FaceRoute(WHOAMI)]
