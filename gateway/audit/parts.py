"""The parts of a decision record, field by field from values whose origin is known.

This is where a client's text enters the log: each field goes through `scrub`, and there is no field
for the path, the query or a header other than the user agent (I8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.audit.record import RequestPart, ResourcePart
from gateway.audit.scrub import clean_agent, clean_client, clean_method, clean_name, clean_trace_id
from gateway.model.verdicts import OpenFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model.access import Principal, Resource, WireRequest
    from gateway.model.verdicts import Admission

LINK = "link"


_READ = b"user-agent"


def recorded_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """Those of a request's fields that a record is made of."""
    return tuple(field for field in headers if field[0] == _READ)


def request_part(request: WireRequest) -> RequestPart:
    """What is kept of a request."""
    raw_agent = request.header(_READ)
    return RequestPart(
        method=clean_method(request.method),
        route=request.route,
        client=clean_client(request.client),
        agent=clean_agent(raw_agent) if raw_agent else None,
        trace_id=clean_trace_id(request.trace_id),
    )


def principal_kind(principal: Principal) -> str:
    """In what capacity a caller came: with a key of some kind, or with a link that a key was given."""
    return LINK if principal.is_link else principal.kind.value


def found_part(admission: Admission) -> ResourcePart:
    """What an admission opens: as it was asked for, and the file and blob that were found for it."""
    found = admission.found
    resource = admission.allowed.access.resource
    if isinstance(found, OpenFile):
        return ResourcePart(
            kind=resource.kind.value,
            requested=_clean(resource.model),
            model=clean_name(found.model),
            package=found.package,
            file=clean_name(found.handle),
            md5=found.md5,
            sha256=found.sha256,
        )
    return _part(resource, admission.allowed.model)


def named_part(resource: Resource | None, model: str | None) -> ResourcePart | None:
    """What a refused request named, as far as its path could be read."""
    return None if resource is None else _part(resource, model)


def _part(resource: Resource, model: str | None) -> ResourcePart:
    return ResourcePart(
        kind=resource.kind.value,
        requested=_clean(resource.model),
        model=_clean(model),
        package=resource.package,
        file=_clean(resource.file),
        md5=resource.md5,
    )


def _clean(name: str | None) -> str | None:
    return None if name is None else clean_name(name)
