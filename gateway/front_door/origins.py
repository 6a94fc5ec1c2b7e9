"""Which pages in browsers may call the front door (CORS): those of the operator's list, none by default.

The inference server allows every origin. A page of a stranger could then use, from within an operator's
network, a gateway that it cannot reach itself. So preflights are answered here and never sent on, and the
server's own headers of this kind do not pass. Cookies are not allowed: a key is sent by the page itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.answers import Answer
from gateway.model.header_block import Headers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    Pair = tuple[bytes, bytes]

MAX_AGE_SECONDS = 600  # a browser asks again after that: so long may an origin that was removed be remembered

_METHODS = (b"GET", b"POST")
_VARIES = (b"vary", b"origin, access-control-request-method, access-control-request-headers")
_ALLOWED = (
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type, x-api-key"),
    (b"access-control-max-age", b"%d" % MAX_AGE_SECONDS),
)
_EXPOSED = (b"access-control-expose-headers", b"cachegate-record, x-model-id")


def preflight(headers: Iterable[Pair], origins: Collection[str]) -> Answer:
    """The answer to OPTIONS. To a page that may not call, it says nothing: the browser then sends nothing."""
    asked: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        asked.setdefault(name.lower(), []).append(value)
    origin, method = (asked.get(name, []) for name in (b"origin", b"access-control-request-method"))
    pairs: tuple[Pair, ...] = (_VARIES,)
    if len(origin) == 1 and len(method) == 1 and method[0] in _METHODS and _is_allowed(origin[0], origins):
        pairs = ((b"access-control-allow-origin", origin[0]), *_ALLOWED, _VARIES)
    return Answer(204, Headers.of(*pairs, (b"cache-control", b"no-store")))


def cors_headers(origin: bytes | None, origins: Collection[str]) -> tuple[Pair, ...]:
    """What every other answer says to a page of this origin."""
    if not origins:
        return ()
    varies = (b"vary", b"origin")
    if origin is None or not _is_allowed(origin, origins):
        return (varies,)
    return ((b"access-control-allow-origin", origin), _EXPOSED, varies)


def _is_allowed(origin: bytes, origins: Collection[str]) -> bool:
    return origin.decode("latin-1") in origins
