"""Finds the declared route of a raw path, by the path's shape alone.

Nothing is remembered: anonymous callers choose paths, and a shape is found in a microsecond. At most one
route matches a path, so their order only matters for the time: the one that is asked for most comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model.routes import ForwardedRoute, GuardedRoute, HookRoute, PublicRoute

    Declared = GuardedRoute | HookRoute | ForwardedRoute | PublicRoute

UNROUTED = "-"  # in records and metrics, for requests that match no route: never the client's text


class Routes:
    """The declared routes."""

    def __init__(self, declared: Iterable[Declared]) -> None:
        self._routes = tuple(declared)
        if not self._routes:
            raise Misconfigured("ChokePoint", "no guarded route is declared, so nothing could be served")

    def find(self, raw_path: bytes) -> Declared | None:
        """The route with this shape; None when there is none."""
        for route in self._routes:
            if route.matches(raw_path):
                return route
        return None
