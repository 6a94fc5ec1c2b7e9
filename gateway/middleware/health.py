"""`GET /health`: the one constant that clients ask for before they send a key.

    {"status":"healthy"}

Engines and servers with a `SECURE_GATEWAY` probe it without a credential. It says that somebody listens,
the same to everybody and whatever the state of the gateway is; readiness is on the ops listener. It is no
route of the app, stands in front of the guard and has nothing to serve from: every byte of the cache still
leaves through the guard (I4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HEALTH_PATH = b"/health"
_METHODS = frozenset({"GET", "HEAD"})
_BODY = b'{"status":"healthy"}\n'
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_BODY)).encode()),
        (b"cache-control", b"no-store"),
    ],
}


class HealthMiddleware:
    """Answers the probe, and hands everything else on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        is_probe = scope["type"] == "http" and scope.get("raw_path") == HEALTH_PATH
        if not is_probe or scope["method"] not in _METHODS:
            await self._app(scope, receive, send)
            return
        await send({**_START})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else _BODY})
