"""Which declared route a raw path has, by its shape alone."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.model.access import GuardedRoute, HookRoute

    Declared = GuardedRoute | HookRoute

UNROUTED = "-"  # the route of requests that match none, in records and metrics: never the client's text
REMEMBERED_PATHS = 4096  # at most 8 KiB each, and as a rule a hundred bytes


class Routes:
    """The declared routes. A path has one shape for ever, so what was found is remembered."""

    def __init__(self, declared: Iterable[Declared]) -> None:
        routes = tuple(declared)
        if not routes:
            raise Misconfigured("GuardMiddleware", "no guarded route is declared, so nothing could be served")

        @lru_cache(maxsize=REMEMBERED_PATHS)
        def find(raw_path: bytes) -> Declared | None:
            return next((one for one in routes if one.matches(raw_path)), None)

        self.find: Callable[[bytes], Declared | None] = find
