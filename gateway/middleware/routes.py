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
        # Routes of one path are found by it, so that the last ones declared are found as fast as the first.
        paths = [route.template.encode() for route in self._routes if "{" not in route.template]
        found = {path: self._first(path) for path in paths}
        self._by_path = {path: route for path, route in found.items() if route is not None}
        if not self._routes:
            raise Misconfigured("ChokePoint", "no guarded route is declared, so nothing could be served")

    def find(self, raw_path: bytes) -> Declared | None:
        """The route with this shape; None when there is none."""
        return self._by_path.get(raw_path) or self._first(raw_path)

    def _first(self, raw_path: bytes) -> Declared | None:
        for route in self._routes:
            if route.matches(raw_path):
                return route
        return None
