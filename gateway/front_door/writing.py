"""Write the request that the inference server gets in place of a client's.

It is made of what was read, and of nothing else: the path and the query encoded anew, the body written anew
from the parsed document, a few headers, and one key. So the server reads what was authorised, whatever the
client's bytes looked like.

Handlers of SAM keep embeddings and masks under the body's `image_id`, for all tenants alike. So each tenant
gets names of its own: a keyed hash over the tenant and the name, or over the tenant and the image where the
client gave no name. One name for all images of a tenant would not do: the server answers with what it has
under a name, and looks at no other image. The name in the server's answer can be sent again: it ends with a
second keyed hash, by which it is known to be ours for this tenant, and passes as it is.

Non-goals: sending it.
"""

from __future__ import annotations

import base64
import hmac
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from gateway.front_door.images import with_images
from gateway.front_door.matching import path_of
from gateway.front_door.strict_json import write_json
from gateway.front_door.values import BodyKind
from gateway.model.inference import Outbound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.front_door.values import InferenceRequest
    from gateway.model.access import WireRequest

_OURS = "cachegate-"
_MAC_BYTES = 18  # 144 bits, 24 characters of base64 each


def write(
    inquiry: InferenceRequest,
    request: WireRequest,
    *,
    key: str,
    whose: str,
    secret: bytes,
    images: Sequence[str],
) -> Outbound:
    """The request for the server. `images` are the fetched ones as base64, in the order of `inquiry.images`.

    Its body is None where the client's is passed on as it comes. `secret` keeps the names of tenants apart;
    `whose` is what a tenant is known by (`Principal.whose`).
    """
    route = inquiry.matched.route
    method = request.method
    content_type = None
    body: bytes | None = None
    image_name = None
    if route.body is BodyKind.JSON:
        places = zip([image.place or () for image in inquiry.images], images, strict=True)
        document = with_images(inquiry.document, places)
        if route.image_ids:
            name = document.get("image_id")
            document["image_id"] = image_id_for(document, whose, secret)
            image_name = document["image_id"] if name is None else name
        body = write_json(document)
        content_type = b"application/json"
    elif inquiry.images:  # the image of the query: it goes into the body, where nothing is fetched
        (image,) = images
        method, body, content_type = "POST", image.encode("ascii"), b"text/plain"
    elif route.body is BodyKind.STREAM:
        content_type = _streamed_type(request)
    headers = [(b"authorization", b"Bearer " + key.encode("ascii"))]
    if content_type is not None:
        headers.append((b"content-type", content_type))
    accept = request.header(b"accept")
    if accept is not None:
        headers.append((b"accept", accept))
    return Outbound(
        method=method, target=_target(inquiry), headers=tuple(headers), body=body, image_name=image_name
    )


def _target(inquiry: InferenceRequest) -> bytes:
    """Path and query in the one encoding that every server decodes to the same."""
    target = quote(path_of(inquiry.matched.route, inquiry.matched.values), safe="/")
    if inquiry.query:
        target += "?" + urlencode(inquiry.query)
    return target.encode("ascii")


def _streamed_type(request: WireRequest) -> bytes:
    """The type of a body that is passed on: form data, or bytes for the handler to read as they are."""
    content_type = (request.header(b"content-type") or b"").strip(b" \t")
    return content_type if content_type.startswith(b"multipart/form-data") else b"application/octet-stream"


def image_id_for(document: dict[str, Any], whose: str, secret: bytes) -> str:
    """The name under which the server keeps the image of this request, for this tenant alone."""
    name = document.get("image_id")
    if isinstance(name, str):
        if _is_ours(name, whose, secret):
            return name
        return _sealed(_mac(secret, "name", whose, name.encode()), whose, secret)
    image = document.get("image")
    # With embeddings the server keeps those, not the image's: they get a name that nothing else has.
    if document.get("embeddings") is None and isinstance(image, dict) and image.get("value"):
        return _sealed(_mac(secret, "image", whose, image["value"].encode()), whose, secret)
    return _sealed(os.urandom(_MAC_BYTES), whose, secret)


def _sealed(identity: bytes, whose: str, secret: bytes) -> str:
    """The name in the form that is known again: what it is, and the proof that it was made for the tenant."""
    return _OURS + base64.urlsafe_b64encode(identity + _mac(secret, "ours", whose, identity)).decode("ascii")


def _is_ours(name: str, whose: str, secret: bytes) -> bool:
    """Whether we made this name, for this tenant."""
    length = len(_OURS) + 8 * _MAC_BYTES // 3
    if len(name) != length or not name.startswith(_OURS) or not name.isascii():
        return False
    try:
        sealed = base64.b64decode(name.removeprefix(_OURS), altchars=b"-_", validate=True)
    except ValueError:
        return False
    identity, proof = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
    return hmac.compare_digest(proof, _mac(secret, "ours", whose, identity))


def _mac(secret: bytes, purpose: str, whose: str, content: bytes) -> bytes:
    """A keyed hash for one purpose and tenant. Neither of the two can have a zero byte in it."""
    message = b"\0".join((b"cachegate image", purpose.encode(), whose.encode(), content))
    return hmac.digest(secret, message, "sha256")[:_MAC_BYTES]
