"""Parse and write `/proxy?url=`, the form in which an engine with `SECURE_GATEWAY` wraps every URL.

    https://gw.example/proxy?url=https%3A%2F%2Fapi.example%2Fmodels%2Fv1%2Fexternal%2Fweights%3FmodelId%3Da

The engine quotes the whole URL once, with its query, so it is decoded once, and whatever was escaped in the
URL itself still is: the `%2F` of a model id arrives as `%252F`. A plus sign is left unchanged; it means a
space in the inner query only. There is no second parameter: an inner `&` that was not quoted would make the
URL mean one thing here and another where it is sent.

The engine wraps a link of ours once more unless it starts exactly as its own setting does. So one
`/proxy?url=` of our own around another is removed, and a third is refused.

Which URLs may be requested is not decided here; this module only parses them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway.engine.urls import parse_url
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.escapes import decode_once
from gateway.model.limits import MAX_TARGET_BYTES

if TYPE_CHECKING:
    from gateway.engine.urls import Url

PROXY_PATH = "/proxy"

_PARAMETER = b"url="
_UNQUOTED = "~()*!'"  # what the engine leaves as it is, beside letters, digits and `_.-`
_SPLITS = re.compile(rb"[^\x21-\x7e]|[&;#]")  # `;` separates parameters for some readers, too


def parse_proxied(raw_query: bytes, public_url: Url | None = None) -> Url:
    """The URL requested in a raw query, without our own wrapping. Raises `Refusal`.

    `public_url` is how clients reach us; without it, no wrapping is recognised as our own.
    """
    if len(raw_query) > MAX_TARGET_BYTES:
        raise Refusal(Reason.PATH_TOO_LONG)
    try:
        url = _unwrapped(raw_query)
        if public_url is None or not _is_wrapping(url, public_url):
            return url
        inner = _unwrapped((url.query or "").encode("ascii"))
    except BadNameError as error:
        raise Refusal(Reason.MALFORMED_QUERY) from error
    if _is_wrapping(inner, public_url):  # more often than the engine ever does
        raise Refusal(Reason.MALFORMED_QUERY)
    return inner


def wrap(gateway_url: str, url: str) -> str:
    """The URL in exactly the bytes in which the engine would request it from this gateway."""
    prefix = f"{gateway_url.rstrip('/')}{PROXY_PATH}?{_PARAMETER.decode()}"
    return url if url.startswith(prefix) else prefix + quote(url, safe=_UNQUOTED)


def is_ours(url: Url, public_url: Url) -> bool:
    """Whether a URL leads back to us: the same origin, at or below our own path."""
    return find_path_below(url, public_url) is not None


def find_path_below(url: Url, public_url: Url) -> str | None:
    """The path of a URL of ours as our own routes know it, still encoded; None when it is not ours."""
    prefix = public_url.path.rstrip("/")
    if url.origin != public_url.origin or not f"{url.path}/".startswith(f"{prefix}/"):
        return None
    return url.path[len(prefix) :] or "/"


def _is_wrapping(url: Url, public_url: Url) -> bool:
    return find_path_below(url, public_url) == PROXY_PATH


def _unwrapped(raw_query: bytes) -> Url:
    if not raw_query.startswith(_PARAMETER) or _SPLITS.search(raw_query):
        raise BadNameError("expected `url=` and one percent-encoded URL")
    return parse_url(decode_once(raw_query[len(_PARAMETER) :]))
