"""Parse a signed link from the path and the query of a request, and write its query. Syntax only.

    GET /d/acme/cars/1/-/pkgA1/weights.onnx?se=1795173480&sig=key_0123456789ab.<43 characters of base64url>

The engine treats `se` and `sig` as names of signature parameters: it ignores both when it remembers the
source of an unhashed file, so that a later link is the same source. It would not ignore any other parameter,
so the key's id is part of `sig`.

There is exactly one spelling: these two parameters, once each, in this order, nothing beside them, and no
second form of the same number or signature. A link that a proxy or a client rewrote is invalid.

The engine never sends a key in a header beside a link. Such a key is extracted too and has to be the very
key of the link, as two keys in two headers have to be equal: a request never has two callers, so there is
never a dispute about which one it was.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

from gateway.credential.extract import extract
from gateway.model.access import SignedLink
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.names import parse_key_id

if TYPE_CHECKING:
    from gateway.model.access import Credential, WireRequest
    from gateway.model.names import KeyId

_LAST = rb"[AEIMQUYcgkosw048]"  # 43 characters encode two bits more than a SHA-256's 32 bytes; they are zero
_QUERY = re.compile(rb"se=([1-9][0-9]{0,11})&sig=([^.&]{1,64})\.([A-Za-z0-9_-]{42}" + _LAST + rb")")


def extract_link(request: WireRequest) -> SignedLink:
    """The link in a request. Raises `Refusal` as `parse_link` and `extract` do."""
    return parse_link(request.raw_path, request.query, beside=_find_beside(request))


def parse_link(raw_path: bytes, raw_query: bytes, *, beside: Credential | None = None) -> SignedLink:
    """The link in a path and query. Raises `Refusal`: NO_CREDENTIAL without a query, else INVALID_LINK."""
    if not raw_query:
        raise Refusal(Reason.NO_CREDENTIAL)
    match = _QUERY.fullmatch(raw_query)
    if match is None:
        raise Refusal(Reason.INVALID_LINK)
    try:
        key_id = parse_key_id(match[2].decode("ascii"))
    except (BadNameError, UnicodeDecodeError) as error:
        raise Refusal(Reason.INVALID_LINK) from error
    return SignedLink(
        key_id=key_id,
        expires_at=int(match[1]),
        signed=raw_path,
        mac=urlsafe_b64decode(match[3] + b"="),
        beside=beside,
    )


def link_query(key_id: KeyId, expires_at: int, mac: bytes) -> str:
    """The query of a link, in the one spelling that `parse_link` accepts."""
    return f"se={expires_at}&sig={key_id}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _find_beside(request: WireRequest) -> Credential | None:
    try:
        return extract(request.headers, request.query)
    except Refusal as refusal:
        if refusal.reason is Reason.NO_CREDENTIAL:
            return None
        raise
