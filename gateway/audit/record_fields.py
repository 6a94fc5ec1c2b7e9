"""Build the fields of a decision record from a request and its decision.

This is where text chosen by a client enters the log: each field goes through `scrub`, with the secrets of
the same request at hand. There is no field for the path, the query or a header other than the user agent
(I8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.audit.record import RequestPart, ResourcePart
from gateway.audit.request_secrets import RequestSecrets
from gateway.audit.scrub import (
    clean_agent,
    clean_client,
    clean_digits,
    clean_method,
    clean_name,
    clean_trace_id,
)
from gateway.model.verdicts import OpenFile

if TYPE_CHECKING:
    from gateway.model.access import Principal, Resource, WireRequest
    from gateway.model.verdicts import Admission

LINK = "link"


_READ = b"user-agent"


def secrets_of(request: WireRequest) -> RequestSecrets:
    """The secrets of a request, which no field of its record may contain."""
    return RequestSecrets(request.headers, request.query)


def request_part(request: WireRequest, secrets: RequestSecrets) -> RequestPart:
    """The recorded fields of a request."""
    raw_agent = request.header(_READ)
    return RequestPart(
        method=clean_method(request.method),
        route=request.route,
        client=clean_client(request.client),
        agent=clean_agent(raw_agent, secrets) if raw_agent else None,
        trace_id=clean_digits(clean_trace_id(request.trace_id), secrets),
    )


def principal_kind(principal: Principal) -> str:
    """The kind of principal: the kind of its key, or `link` for a signed link."""
    return LINK if principal.is_link else principal.kind.value


def found_part(admission: Admission, secrets: RequestSecrets) -> ResourcePart:
    """The resource of an allow: as requested, with the file and blob that were found."""
    found = admission.found
    resource = admission.allowed.access.resource
    if isinstance(found, OpenFile):
        return ResourcePart(
            kind=resource.kind.value,
            requested=_clean(resource.model, secrets),
            model=clean_name(found.model, secrets),
            package=found.package,
            file=clean_name(found.handle, secrets),
            md5=found.md5,
            sha256=found.sha256,
        )
    return _part(resource, admission.allowed.model, secrets)


def named_part(resource: Resource | None, model: str | None, secrets: RequestSecrets) -> ResourcePart | None:
    """The resource that a refused request named, as far as its path could be parsed."""
    return None if resource is None else _part(resource, model, secrets)


def _part(resource: Resource, model: str | None, secrets: RequestSecrets) -> ResourcePart:
    return ResourcePart(
        kind=resource.kind.value,
        requested=_clean(resource.model, secrets),
        model=_clean(model, secrets),
        package=_clean(resource.package, secrets),
        file=_clean(resource.file, secrets),
        md5=clean_digits(resource.md5, secrets),
    )


def _clean(name: str | None, secrets: RequestSecrets) -> str | None:
    return None if name is None else clean_name(name, secrets)
