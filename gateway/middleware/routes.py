"""Finds the declared route of a raw path, by the path's shape alone."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.model.routes import GuardedRoute, HookRoute

    Declared = GuardedRoute | HookRoute

UNROUTED = "-"  # in records and metrics, for requests that match no route: never the client's text
REMEMBERED_PATHS = 4096
MAX_REMEMBERED_BYTES = 512  # of one path: anonymous callers choose paths; longer ones are matched each time


class Routes:
    """The declared routes. The shape of a path never changes, so results are cached."""

    def __init__(self, declared: Iterable[Declared]) -> None:
        routes = tuple(declared)
        if not routes:
            raise Misconfigured("GuardMiddleware", "no guarded route is declared, so nothing could be served")

        def find(raw_path: bytes) -> Declared | None:
            return next((one for one in routes if one.matches(raw_path)), None)

        self._find = find
        self._find_remembered: Callable[[bytes], Declared | None] = lru_cache(REMEMBERED_PATHS)(find)

    def find(self, raw_path: bytes) -> Declared | None:
        """The route with this shape; None when there is none."""
        return (self._find_remembered if len(raw_path) <= MAX_REMEMBERED_BYTES else self._find)(raw_path)
