"""Find the route of a request, exactly as the inference server's router does.

The server decodes the path before it routes, takes the first route of its list whose path and method match,
and hands what nothing matches to a folder of files. So `GET /clip/embed_image` is not the route of that name,
which is a POST, but a request for the model `clip/embed_image`. A path that the server and we could read in
two ways is refused: control characters, empty and dot segments, bad percent-encoding, other encodings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from gateway.front_door.values import Answering, Existence, Matched
from gateway.model.errors import Reason, Refusal
from gateway.model.limits import MAX_TARGET_BYTES

if TYPE_CHECKING:
    from gateway.front_door.table import ServerTable
    from gateway.front_door.values import ServerRoute

_RAW = re.compile(
    rb"/(?:[\x21-\x22\x24\x26-\x3e\x40-\x7e]|%[0-9A-Fa-f]{2})*"
)  # no `?`, no `#`, nothing encoded badly
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\\\u2028\u2029]")
_REST = "/{path:path}"


def match(table: ServerTable, method: str, raw_path: bytes) -> Matched:
    """The route of a request, and the parameters of its path. `raw_path` is what follows the mount.

    Raises `Refusal`: MALFORMED_PATH; NO_ROUTE, or METHOD_NOT_ALLOWED where only the method is another; and
    CLOSED_ROUTE.
    """
    path = decoded_path(raw_path)
    literal = table.literals.get((method, path))
    for index in table.parametric if literal is None else (literal,):
        route = table.routes[index]
        found = table.patterns[index].fullmatch(path)
        if found is None or route.method not in {method, "*"}:
            continue
        if route.path == _REST:
            raise Refusal(_why_none(table, path))
        if route.answering is Answering.CLOSED:
            raise Refusal(Reason.CLOSED_ROUTE)
        return Matched(route=route, values=found.groupdict())
    raise Refusal(_why_none(table, path))


def decoded_path(raw_path: bytes) -> str:
    """The path as the server's router sees it. Raises `Refusal(MALFORMED_PATH)`."""
    if len(raw_path) > MAX_TARGET_BYTES or not _RAW.fullmatch(raw_path):
        raise Refusal(Reason.MALFORMED_PATH)
    try:
        path = unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        raise Refusal(Reason.MALFORMED_PATH) from None
    if path == "/":
        return path
    if _CONTROLS.search(path) or not {"", ".", ".."}.isdisjoint(path.split("/")[1:]):
        raise Refusal(Reason.MALFORMED_PATH)
    return path


def _why_none(table: ServerTable, path: str) -> Reason:
    """Whether a route has this path, with another method."""
    routes = _routes_of(table, path)
    if any(route.answering is not Answering.CLOSED for route in routes):
        return Reason.METHOD_NOT_ALLOWED
    return Reason.CLOSED_ROUTE if routes else Reason.NO_ROUTE


def methods_of(table: ServerTable, raw_path: bytes) -> tuple[str, ...]:
    """The methods by which a path can be asked for, whoever asks: those of all its rows that are open."""
    try:
        path = decoded_path(raw_path)
    except Refusal:
        return ()
    routes = _routes_of(table, path)
    return tuple(sorted({route.method for route in routes if route.answering is not Answering.CLOSED}))


def _routes_of(table: ServerTable, path: str) -> list[ServerRoute]:
    """The server's routes with this path, but for the last one, which has all paths."""
    return [
        route
        for route, pattern in zip(table.routes, table.patterns, strict=True)
        if route.path != _REST and route.exists is not Existence.NEVER and pattern.fullmatch(path)
    ]


def path_of(route: ServerRoute, values: dict[str, str]) -> str:
    """The decoded path of a route with these parameters."""
    if not values:
        return route.path
    return re.sub(r"\{([a-z_]+)(?::[a-z]+)?\}", lambda found: values[found[1]], route.path)
