"""Which route of a Starlette or FastAPI app the app's own router will take for a path.

What was decided has to be what is served (I4). A declared path may match a request for which the app has a
more special route that nobody declared. So the app's routes are asked, in their order, as its router does.
Where they cannot be asked (another framework), the declarations alone decide; `run.py` then compares the
parameters once the router has set them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Match

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import ASGIApp, Scope

MAX_LAYERS = 50  # of middleware, from the guard to the router


def find_routes(app: ASGIApp, scope: Scope, middleware: type) -> Sequence[Any] | None:
    """The routes of the app behind this middleware; None where they cannot be found.

    Below the middleware there is the app itself, or more middleware and then its router. Where one of these
    does not show what it wraps, the app of the scope is asked, if it is the one that has this middleware.
    """
    layer: Any = app
    for _ in range(MAX_LAYERS):
        routes = getattr(layer, "routes", None)
        if isinstance(routes, list):
            return routes
        layer = getattr(layer, "app", None)
        if layer is None:
            break
    owner = scope.get("app")
    if any(getattr(one, "cls", None) is middleware for one in getattr(owner, "user_middleware", ())):
        routes = getattr(owner, "routes", None)
        return routes if isinstance(routes, list) else None
    return None


def find_parameters(routes: Iterable[Any], scope: Scope) -> dict[str, Any] | None:
    """The path parameters of the route that the router will take; None when there is none."""
    partial: dict[str, Any] | None = None
    for route in _flattened(routes):
        match, child = route.matches(scope)
        if match is Match.NONE:
            continue
        found: dict[str, Any] | None = dict(child.get("path_params", {}))
        below = getattr(route, "routes", None)
        if below and "root_path" in child:  # a mount whose own routes are known
            found = find_parameters(below, {**scope, **child})
        if match is Match.FULL:
            return found
        partial = found if partial is None else partial
    return partial


def _flattened(routes: Iterable[Any]) -> Iterable[Any]:
    """The routes in order; a router that FastAPI has included stands for its own."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
        else:
            yield from contexts()
