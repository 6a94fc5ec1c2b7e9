"""The check face: says to a proxy whether it may serve a request, before the proxy serves it.

    GET/HEAD  /check/nginx        auth_request of nginx: X-Original-Method, X-Original-URI, X-Forwarded-For
    any       /check/envoy/PATH   ext_authz of Envoy: the original method, and the target below this prefix
    GET/HEAD  /check/forwarded    Traefik and Caddy: X-Forwarded-Method, X-Forwarded-URI, X-Forwarded-For

The bytes come from the proxy, so this decision is the only one of their delivery: the guard decides and
records a read of that file, as if the client had asked the gateway for it, and the outcome says `handed-off`.
The three routes differ in two things: where the original request is written, and how statuses are read.

Whoever writes those headers chooses what is decided. Therefore they are believed from a trusted proxy only;
each comes exactly once; and a header that looks like one of them (`X_Original_URI`), or is one of another
proxy, refuses the check. The latter happens where a proxy was pointed at the wrong route: its clients could
otherwise write the headers that this route reads.

Only files and blobs can be checked. Everything else that we answer is made for its caller (a listing, a
token) or depends on a body (the front door), and a proxy could serve neither by a yes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.credential.client import find_forwarded
from gateway.delivery.digests import entity_tag
from gateway.faces.content import BLOB, FILE, READS
from gateway.faces.download import DOWNLOAD
from gateway.faces.route import FaceRoute
from gateway.model.access import Action
from gateway.model.answers import Answer
from gateway.model.errors import Reason, Refusal
from gateway.model.header_block import Headers
from gateway.model.limits import MAX_TARGET_BYTES
from gateway.model.routes import GuardedRoute
from gateway.model.verdicts import Ending, OpenFile
from gateway.problems import problem_of
from gateway.resource.proxied_paths import verify_read_in_one_way

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model.access import Credential, Resource, WireRequest
    from gateway.model.verdicts import Receipt
    from gateway.resource.proxied_paths import ProxiedPaths

ENVOY_PATH = b"/check/envoy"
CLIENT = b"x-forwarded-for"
ANY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")  # RFC 9110, 5.6.2: token
_AS_IN_NGINX = frozenset({401, 403})  # of all refusals, these two reach nginx's client as they are
_FORBIDDEN = 403


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """Where a proxy writes the original request, and how it is told a refusal."""

    template: str
    methods: tuple[str, ...]
    matches: Callable[[bytes], bool]
    method_header: bytes | None  # None: the check has the original method and target itself
    target_header: bytes | None
    answer_refusal: Callable[[Answer], Answer]


def tell_status(answer: Answer) -> Answer:
    """A refusal for proxies that pass it on as it is."""
    return Answer(answer.status, answer.headers.and_also(_status(answer.status)), answer.body)


def tell_nginx(answer: Answer) -> Answer:
    """A refusal for nginx: 401 or 403, and what it really is in headers, as nginx drops the body.

    The shipped configuration answers its client with this status and this body.
    """
    if not isinstance(answer.body, bytes):
        raise TypeError("a refusal is in memory")
    told = (_status(answer.status), (b"cachegate-problem", answer.body.rstrip()))
    status = answer.status if answer.status in _AS_IN_NGINX else _FORBIDDEN
    return Answer(status, answer.headers.and_also(*told), answer.body)


NGINX = Dialect(
    template="/check/nginx",
    methods=READS,
    matches=lambda raw_path: raw_path == b"/check/nginx",
    method_header=b"x-original-method",
    target_header=b"x-original-uri",
    answer_refusal=tell_nginx,
)
ENVOY = Dialect(
    template="/check/envoy/{target}",
    methods=ANY_METHOD,
    matches=lambda raw_path: raw_path.startswith(ENVOY_PATH + b"/"),
    method_header=None,
    target_header=None,
    answer_refusal=tell_status,
)
FORWARDED = Dialect(
    template="/check/forwarded",
    methods=READS,
    matches=lambda raw_path: raw_path == b"/check/forwarded",
    method_header=b"x-forwarded-method",
    target_header=b"x-forwarded-uri",
    answer_refusal=tell_status,
)
DIALECTS = (NGINX, ENVOY, FORWARDED)

TELLING = frozenset(
    {CLIENT, *(name for one in DIALECTS for name in (one.method_header, one.target_header) if name)}
)
"""All headers that tell some dialect's original request."""


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """The original request, as far as it could be read, and why the check is refused if it could not."""

    method: str
    target: bytes
    reason: Reason | None = None


def read_told(request: WireRequest, dialect: Dialect) -> _Told:
    """The original request of a check. It never raises, so that records have what was told."""
    told, is_clear = _headers_told(request)
    if dialect.method_header is None or dialect.target_header is None:
        method, target = request.method.encode(), request.raw_path[len(ENVOY_PATH) :]
        if request.query:
            target += b"?" + request.query
        expected = {CLIENT}
    else:
        method, target = told.get(dialect.method_header, b""), told.get(dialect.target_header, b"")
        expected = {CLIENT, dialect.method_header, dialect.target_header}
        # Caddy hands the query of the original request on; one that differs would be somebody else's.
        is_clear &= request.query in {b"", target.partition(b"?")[2]}
    is_clear = is_clear and told.keys() == expected and _is_address(told[CLIENT])
    is_clear = is_clear and target.startswith(b"/") and _METHOD.fullmatch(method) is not None
    reason = None
    if not request.is_of_proxy:
        reason = Reason.UNTRUSTED_PROXY
    elif not is_clear:
        reason = Reason.MALFORMED_CHECK
    elif len(target) > MAX_TARGET_BYTES:
        reason = Reason.PATH_TOO_LONG
    return _Told(method=method.decode("latin-1"), target=target, reason=reason)


def _headers_told(request: WireRequest) -> tuple[dict[bytes, bytes], bool]:
    """The headers that tell an original request, and whether each came once and none under another name."""
    fields = request.fields
    if fields is not None and b"_" not in b"".join(fields):  # nearly all: none came twice, as the server saw
        return {name: fields[name] for name in TELLING if name in fields}, True
    told: dict[bytes, bytes] = {}
    is_clear = True
    for name, value in request.headers:
        if name in TELLING:
            is_clear &= name not in told
            told[name] = value
        elif b"_" in name and name.replace(b"_", b"-") in TELLING:
            is_clear = False
    return told, is_clear


def _is_address(raw_list: bytes) -> bool:
    """Whether the last entry of this list of clients, which the proxy itself wrote, is an address."""
    return find_forwarded(raw_list.rpartition(b",")[2]) is not None


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """The routes that can be checked, and how the proxies' paths are translated to theirs."""

    checkable: tuple[GuardedRoute, ...]
    is_answered: Callable[[bytes], bool]  # whether some route of the gateway has this path
    paths: ProxiedPaths

    def unwrap(self, request: WireRequest, dialect: Dialect) -> tuple[WireRequest, GuardedRoute]:
        """The original request and its route; one that refuses it where it cannot be decided."""
        told = read_told(request, dialect)
        raw_path, _, query = told.target.partition(b"?")
        route, reason = None, told.reason
        if reason is None:
            try:
                verify_read_in_one_way(raw_path)
                raw_path = self.paths.own_path(raw_path)
                route = self._route(raw_path)
                if told.method not in route.methods:
                    reason = Reason.METHOD_NOT_ALLOWED
            except Refusal as refusal:
                reason = refusal.reason
        original = replace(request, method=told.method, raw_path=raw_path, query=query)
        if route is None or reason is not None:
            return original, _refusing(route, reason or Reason.NO_ROUTE, dialect)
        return original, route

    def _route(self, raw_path: bytes) -> GuardedRoute:
        for route in self.checkable:
            if route.matches(raw_path):
                return route
        raise Refusal(Reason.UNCHECKABLE if self.is_answered(raw_path) else Reason.NO_ROUTE)


def _refusing(route: GuardedRoute | None, reason: Reason, dialect: Dialect) -> GuardedRoute:
    """A route that refuses every request for this reason, before any key is looked at."""

    def extract(_request: WireRequest) -> Credential:
        raise Refusal(reason)

    return GuardedRoute(
        template=dialect.template if route is None else route.template,
        methods=READS,
        action=Action.READ,
        matches=dialect.matches,
        locate=_nowhere,
        extract=extract,
    )


def _nowhere(_request: WireRequest) -> Resource:
    """A check names no resource by its own path; if it were not unwrapped, it is refused (I1)."""
    raise Refusal(Reason.NO_ROUTE)


def checkable_routes(*, has_links: bool) -> tuple[GuardedRoute, ...]:
    """The routes that name one file by their path alone. A yes does not need the file's content."""
    by_key = (_without_query(FILE), _without_query(BLOB))
    routes = (*by_key, DOWNLOAD) if has_links else by_key
    return tuple(replace(route, sends_content=False) for route in routes)


def _without_query(route: GuardedRoute) -> GuardedRoute:
    """The route, for requests without a query: what reads one behind the proxy would not be decided."""

    def locate(request: WireRequest) -> Resource:
        if request.query:
            raise Refusal(Reason.MALFORMED_QUERY)
        return route.locate(request)

    return replace(route, locate=locate)


def answer_yes(receipt: Receipt, dialect: Dialect) -> Answer:
    """The permission to serve the file, which has to be pinned: nobody looks at it after this."""
    found, request = receipt.admission.found, receipt.admission.request
    if not isinstance(found, OpenFile):
        raise TypeError("only a file can be handed off")
    if found.sha256 is None:
        return dialect.answer_refusal(problem_of(Reason.NOT_PINNED, request.route).answer(receipt.record_id))
    principal = receipt.admission.allowed.access.principal
    headers = [
        (b"content-length", b"0"),
        (b"cache-control", b"no-store"),
        _status(200),
        (b"cachegate-key", principal.key_id.encode()),
        (b"cachegate-etag", entity_tag(found.sha256)),
    ]
    if principal.tenant is not None:
        headers.append((b"cachegate-tenant", principal.tenant.encode()))
    return Answer(200, Headers.of(*headers), ending=Ending.HANDED_OFF)


def _status(status: int) -> tuple[bytes, bytes]:
    return b"cachegate-status", b"%d" % status


def routes(checks: Checks) -> list[FaceRoute]:
    """The routes of this face."""
    return [FaceRoute(_declared(dialect, checks)) for dialect in DIALECTS]


def _declared(dialect: Dialect, checks: Checks) -> GuardedRoute:
    return GuardedRoute(
        template=dialect.template,
        methods=dialect.methods,
        action=Action.READ,
        matches=dialect.matches,
        locate=_nowhere,
        unwrap=lambda request: checks.unwrap(request, dialect),
        wrapped_methods=READS,
        answer=lambda receipt: answer_yes(receipt, dialect),
        answer_refusal=dialect.answer_refusal,
    )
