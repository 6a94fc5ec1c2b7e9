"""Refusals by the form of a request alone (size, route, method): the same for all callers, before any key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.errors import Reason
from gateway.model.limits import MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_HEADER_COUNT, MAX_TARGET_BYTES
from gateway.model.queries import has_too_many_fields
from gateway.model.routes import ForwardedRoute, GuardedRoute, HookRoute

if TYPE_CHECKING:
    from gateway.middleware.routes import Declared
    from gateway.model.access import WireRequest

TOO_LONG = 1 << 62
MAX_LENGTH_DIGITS = 12  # a terabyte: too large for any route


def refusal_by_shape(request: WireRequest, route: Declared | None) -> Reason | None:
    """The reason to refuse this request by its form alone, if there is one."""
    if len(request.raw_path) + len(request.query) > MAX_TARGET_BYTES:
        return Reason.PATH_TOO_LONG
    block = sum([len(name) + len(value) + 4 for name, value in request.headers])
    if block > MAX_HEADER_BYTES or len(request.headers) > MAX_HEADER_COUNT:
        return Reason.HEADERS_TOO_LARGE
    return refusal_of_bodiless(request, route) or _refusal_of_body(request, route)


def refusal_of_bodiless(request: WireRequest, route: Declared | None) -> Reason | None:
    """The same for a request without a body, whose size our own server has checked."""
    if request.query and has_too_many_fields(request.query):
        return Reason.MALFORMED_QUERY
    if route is None:
        return Reason.NO_ROUTE
    return None if request.method in route.methods else Reason.METHOD_NOT_ALLOWED


def _refusal_of_body(request: WireRequest, route: Declared | None) -> Reason | None:
    if isinstance(route, GuardedRoute) and (route.form_bytes or route.body_bytes):
        most = route.form_bytes or route.body_bytes
        is_too_long = not _is_chunked(request) and _announced_body(request) > most
    elif isinstance(route, HookRoute | ForwardedRoute):
        # Whoever reads it counts: it may be chunked, with no length announced.
        is_too_long = not _is_chunked(request) and _announced_body(request) > route.max_body_bytes
    else:
        is_too_long = _announced_body(request) > MAX_BODY_BYTES
    return Reason.BODY_TOO_LARGE if is_too_long else None


def _is_chunked(request: WireRequest) -> bool:
    """Whether the body comes in chunks, in no other coding and with no length beside."""
    codings = [value.lower() for name, value in request.headers if name == b"transfer-encoding"]
    return codings == [b"chunked"] and request.header(b"content-length") is None


def _announced_body(request: WireRequest) -> int:
    """The body length that the headers announce; chunked or unreadable counts as too long."""
    if request.header(b"transfer-encoding") is not None:
        return TOO_LONG
    return max((_length(value) for name, value in request.headers if name == b"content-length"), default=0)


def _length(raw_value: bytes) -> int:
    """An announced length. Leading zeros are legal and have no meaning (RFC 9110, 8.6): not counted."""
    digits = raw_value.lstrip(b"0")
    if not digits and raw_value:
        return 0
    if not digits.isdigit() or len(digits) > MAX_LENGTH_DIGITS:
        return TOO_LONG
    return int(digits)
