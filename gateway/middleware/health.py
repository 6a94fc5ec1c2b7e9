"""`GET /health`: a constant answer that clients ask for before they send a key.

    {"status":"healthy"}

Engines and servers with a `SECURE_GATEWAY` probe it without a credential. It says that a process listens, the
same to everybody and in every state of the gateway; readiness is on the ops listener. It is no route of the
app and stands in front of the guard, but has no access to the cache: every byte of the cache still leaves
through the guard (I4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.delivery.headers import content_headers
from gateway.middleware.sending import send_whole
from gateway.model.answers import Answer
from gateway.model.header_block import Headers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HEALTH_PATH = b"/health"
_METHODS = frozenset({"GET", "HEAD"})
_BODY = b'{"status":"healthy"}\n'
HEALTHY = Answer(
    200,
    Headers.of(*content_headers(b"application/json", len(_BODY)), (b"cache-control", b"no-store")),
    _BODY,
)


class HealthMiddleware:
    """Answers the probe; all other requests go to the app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request."""
        is_probe = scope["type"] == "http" and scope.get("raw_path") == HEALTH_PATH
        if not is_probe or scope["method"] not in _METHODS:
            await self._app(scope, receive, send)
            return
        await send_whole(HEALTHY, (), scope["method"], send)
