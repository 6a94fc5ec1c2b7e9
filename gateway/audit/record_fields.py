"""Build the fields of a decision record from a request and its decision, encoded as JSON members.

This is where text chosen by a client enters the log: each field goes through `scrub`, with the secrets of
the same request at hand. There is no field for the path, the query or a header other than the user agent
(I8).

What is the same for many requests (a file, a client with its user agent, a caller with what was allowed) is
encoded once: the functions that remember are pure functions of names, so nothing in them is ever out of date.
A file's names are encoded without a look at the secrets of a request only if each of them is too short to
contain one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gateway.audit.canonical import MAX_INTEGER
from gateway.audit.record import RequestPart, ResourcePart, encode
from gateway.audit.request_secrets import RequestSecrets
from gateway.audit.scrub import (
    clean_agent,
    clean_client,
    clean_digits,
    clean_method,
    clean_name,
    clean_trace_id,
    longest_run,
)
from gateway.model.verdicts import OpenFile

if TYPE_CHECKING:
    from gateway.model.access import Principal, Resource, WireRequest
    from gateway.model.verdicts import Found

LINK, TOKEN, BINDING = "link", "token", "binding"

REMEMBERED = 4096  # files that were found, and callers with what they were allowed
REMEMBERED_CLIENTS = 1024  # with their user agents
_REMEMBERED_AGENT_BYTES = 256
NO_RUN = 1 << 62  # longer than any secret: look for them

_READ = b"user-agent"


def members(**values: Any) -> bytes:
    """JSON members, sorted, each with a comma after it. What is absent or empty is left out."""
    present = {name: value for name, value in values.items() if value not in (None, ())}
    return encode(present)[1:-1] + b"," if present else b""


def secrets_of(request: WireRequest) -> RequestSecrets:
    """The secrets of a request, which no field of its record may contain."""
    query = b"%b&%b" % (request.query, request.form) if request.form else request.query
    return RequestSecrets(request.headers, query, request.fields)


def request_member(request: WireRequest, secrets: RequestSecrets) -> bytes:
    """The recorded fields of a request."""
    raw_agent = request.header(_READ) or b""
    longest, opened = NO_RUN, b""
    if len(raw_agent) <= _REMEMBERED_AGENT_BYTES:
        longest, opened = _of_plain_client(request.method, request.route, request.client, raw_agent)
    if secrets.may_be_in_runs(longest):
        agent = clean_agent(raw_agent, secrets) if raw_agent else None
        opened = _of_client(clean_method(request.method), request.route, request.client, agent)
    if request.trace_id is None:
        return opened + b"},"
    trace_id = clean_digits(clean_trace_id(request.trace_id), secrets)
    return opened + (b"}," if trace_id is None else b',"trace_id":"%b"},' % trace_id.encode())


@lru_cache(REMEMBERED_CLIENTS)
def _of_plain_client(method: str, route: str, client: str, raw_agent: bytes) -> tuple[int, bytes]:
    """The fields of a request whose user agent contains no secret of it, and the agent's longest run.

    A secret can only be in an agent with a run of key characters that is as long.
    """
    agent = clean_agent(raw_agent) if raw_agent else None
    return longest_run(raw_agent), _of_client(clean_method(method), route, client, agent)


@lru_cache(REMEMBERED_CLIENTS)
def _of_client(method: str, route: str, client: str, agent: str | None) -> bytes:
    """The fields of a request but for its trace, without the closing brace."""
    part = RequestPart(method=method, route=route, client=clean_client(client), agent=agent)
    return b'"request":' + encode(part)[:-1]


def principal_kind(principal: Principal) -> str:
    """The kind of principal: the kind of its key, or `link` or `token` for what was made of the key.

    `binding` is a token of an outside issuer: its key id is that of the binding.
    """
    if principal.is_link:
        return LINK
    if principal.issuer is not None:
        return BINDING
    return principal.kind.value if principal.token_id is None else TOKEN


def found_members(
    found: Found, resource: Resource, model: str | None, secrets: RequestSecrets
) -> tuple[bytes, bytes]:
    """The resource of an allow, as requested and with the file and blob that were found; and its size."""
    if not isinstance(found, OpenFile):
        return named_member(resource, model, secrets), b""
    package, file, of_content = found.package, found.handle, (found.md5, found.sha256, found.size)
    longest, encoded = _of_file(resource, found.model, package, file, *of_content)
    if longest < secrets.least:
        return encoded
    requested = _clean(resource.model, secrets)
    names = requested, clean_name(found.model, secrets), package, clean_name(file, secrets)
    return _file_members(resource.kind.value, *names, *of_content)


@lru_cache(REMEMBERED)
def _of_file(
    resource: Resource, model: str, package: str, file: str, *of_content: Any
) -> tuple[int, tuple[bytes, bytes]]:
    """The members of a file, and the length of its longest name."""
    requested = resource.model
    longest = max(len(requested or ""), len(model), len(file))
    names = None if requested is None else clean_name(requested), clean_name(model), package, clean_name(file)
    return longest, _file_members(resource.kind.value, *names, *of_content)


def _file_members(
    kind: str,
    requested: str | None,
    model: str,
    package: str,
    file: str,
    md5: str | None,
    sha256: str | None,
    size: int,
) -> tuple[bytes, bytes]:
    part = ResourcePart(kind, requested, model, package, file, md5, sha256)
    # The size of a sparse file may be larger than a JSON number holds; nobody is ever sent as much.
    return b'"resource":%b,' % encode(part), b'"size":%d,' % min(size, MAX_INTEGER)


def named_member(resource: Resource | None, model: str | None, secrets: RequestSecrets) -> bytes:
    """The resource that a request named, as far as its path could be parsed."""
    part = named_part(resource, model, secrets)
    return b"" if part is None else b'"resource":%b,' % encode(part)


def named_part(resource: Resource | None, model: str | None, secrets: RequestSecrets) -> ResourcePart | None:
    """The fields of a resource that was named."""
    if resource is None:
        return None
    return ResourcePart(
        kind=resource.kind.value,
        requested=_clean(resource.model, secrets),
        model=_clean(model, secrets),
        package=_clean(resource.package, secrets),
        file=_clean(resource.file, secrets),
        md5=clean_digits(resource.md5, secrets),
        subject=_clean(resource.subject, secrets),
    )


def _clean(name: str | None, secrets: RequestSecrets) -> str | None:
    return None if name is None else clean_name(name, secrets)
