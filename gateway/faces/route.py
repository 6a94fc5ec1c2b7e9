"""A Starlette route that exists only together with what it declares to the guard (I4).

The guard's middleware has matched the raw path already; the router below it compares the route
object that the middleware put into the scope, and parses nothing again. So what was decided about
is exactly what is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Match, NoMatchFound

from gateway.middleware.guard import ROUTE
from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.datastructures import URLPath
    from starlette.types import ASGIApp, Receive, Scope, Send

    from gateway.model.access import GuardedRoute


class FaceRoute(BaseRoute):
    """One endpoint under one declaration."""

    def __init__(self, declaration: GuardedRoute, endpoint: ASGIApp) -> None:
        self.declaration = declaration
        self.endpoint = endpoint

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Exactly when the guard admitted this request for this declaration."""
        return (Match.FULL if scope.get(ROUTE) is self.declaration else Match.NONE), {}

    def url_path_for(self, name: str, /, **_: object) -> URLPath:
        """Links are built from resources (`resource/paths.py`), never from routes."""
        raise NoMatchFound(name, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the endpoint."""
        await self.endpoint(scope, receive, send)


def declarations(routes: Sequence[BaseRoute]) -> tuple[GuardedRoute, ...]:
    """The declarations of an app's routes; a route without one stops the start."""
    for route in routes:
        if not isinstance(route, FaceRoute):
            raise Misconfigured(repr(route), "this route declares no guard; build it as a FaceRoute")
    return tuple(route.declaration for route in routes if isinstance(route, FaceRoute))
