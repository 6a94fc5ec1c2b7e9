"""Reasons -> RFC 9457 problems. The only status table of the project.

Many reasons share one problem on purpose: whoever has no right on a thing gets one body, whatever
the cause (I3), and so does whoever has no valid key. The cause is for operators: it stands in the
audit record whose id the body carries (`cachegate explain --record ID`).
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model.errors import Reason
from gateway.model.limits import MAX_QUERY_FIELDS
from gateway.model.names import MAX_NAME_BYTES, MAX_NAME_SEGMENTS

UNRECORDED = "00000000-0000-0000-0000-000000000000"
"""Stands where a record id would, when the audit log itself is what failed: same length, no record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One kind of answer that is not the thing asked for."""

    status: int
    kind: str
    title: str
    detail: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def body(self, record_id: str) -> bytes:
        """The JSON body: constant but for the record id, which has a fixed length."""
        return (
            f'{{"type":"urn:cachegate:problem:{self.kind}","title":"{self.title}","status":{self.status},'
            f'"detail":"{self.detail}","record":"{record_id}"}}\n'
        ).encode()

    def answer(self, record_id: str, trace: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """The whole answer: headers, in one order for all, and the body."""
        body = self.body(record_id)
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"cachegate-record", record_id.encode()),
            (b"traceparent", trace),
            *self.headers,
        ]
        return headers, body


UNAUTHORIZED = Problem(
    status=401,
    kind="unauthorized",
    title="No valid API key",
    detail="Send a valid key as Authorization: Bearer or X-API-Key.",
    headers=((b"www-authenticate", b'Bearer realm="cachegate"'),),
)
NOT_FOUND = Problem(
    status=404,
    kind="not-found",
    title="Not found",
    detail="There is nothing here that this key may know of.",
)
UNAVAILABLE = Problem(
    status=503,
    kind="unavailable",
    title="Not decided",
    detail="The guard cannot decide or record right now. Nothing was sent. Try again.",
    headers=((b"retry-after", b"1"),),
)


def _bad(kind: str, detail: str) -> Problem:
    return Problem(status=400, kind=kind, title="Bad request", detail=detail)


def _forbidden(kind: str, detail: str) -> Problem:
    return Problem(status=403, kind=kind, title="Forbidden", detail=detail)


PROBLEMS: dict[Reason, Problem] = {
    Reason.MALFORMED_PATH: _bad(
        "malformed-path",
        "The path does not parse. A model id is percent-encoded UTF-8 without empty or dot segments; "
        "/-/ ends it; then a package and a file follow. An id and a file have at most "
        f"{MAX_NAME_SEGMENTS} segments and {MAX_NAME_BYTES} bytes each.",
    ),
    Reason.MALFORMED_QUERY: _bad(
        "malformed-query",
        "A query parameter does not parse. Known: limit (1 to 1000), after, modelId, startAfter and url. "
        f"A query has at most {MAX_QUERY_FIELDS} fields, and none of these comes twice.",
    ),
    Reason.MALFORMED_BODY: _bad("malformed-body", "The body is not the JSON that this route reads."),
    Reason.MALFORMED_CREDENTIAL: _bad(
        "malformed-credential",
        "The credential header holds what no key can hold: only visible ASCII, at most 4096 bytes.",
    ),
    Reason.CONFLICTING_CREDENTIALS: _bad(
        "conflicting-credentials", "Two differing credentials came with this request. Send one."
    ),
    Reason.KEY_IN_QUERY: _bad(
        "key-in-query",
        "A key in the URL ends up in logs. Send it as Authorization: Bearer or X-API-Key, and rotate it.",
    ),
    Reason.NO_CREDENTIAL: UNAUTHORIZED,
    Reason.UNSUPPORTED_SCHEME: UNAUTHORIZED,
    Reason.MISTYPED_KEY: UNAUTHORIZED,
    Reason.UNKNOWN_KEY: UNAUTHORIZED,
    Reason.REVOKED_KEY: UNAUTHORIZED,
    Reason.EXPIRED_KEY: UNAUTHORIZED,
    Reason.NOT_YET_VALID: UNAUTHORIZED,
    Reason.OUTSIDE_NETWORKS: UNAUTHORIZED,
    Reason.SUSPENDED_TENANT: UNAUTHORIZED,
    Reason.UNREADABLE_KEY: UNAUTHORIZED,
    Reason.UNKNOWN_KEY_LIMIT: Problem(
        status=429,
        kind="too-many-requests",
        title="Too many requests",
        detail="Too many requests with unknown keys. Nothing was decided. Try again.",
        headers=((b"retry-after", b"1"),),
    ),
    Reason.MISSING_SCOPE: _forbidden("missing-scope", "This key lacks the scope for it."),
    Reason.MISSING_ACTION: _forbidden("missing-action", "This key may discover it, but not do this with it."),
    Reason.NOT_PERMITTED: NOT_FOUND,
    Reason.POLICY_ERROR: NOT_FOUND,
    Reason.UNREADABLE_FACT: NOT_FOUND,
    Reason.ABSENT: NOT_FOUND,
    Reason.UNSERVABLE: NOT_FOUND,
    Reason.UNATTESTED: NOT_FOUND,
    Reason.QUARANTINED: NOT_FOUND,
    Reason.NO_ROUTE: NOT_FOUND,
    Reason.NOT_PROXIED: NOT_FOUND,
    Reason.UPSTREAM_REFUSED: NOT_FOUND,
    Reason.INVALID_LINK: UNAUTHORIZED,
    Reason.EXPIRED_LINK: UNAUTHORIZED,
    Reason.BAD_HOOK_SIGNATURE: UNAUTHORIZED,
    Reason.UPSTREAM_UNAUTHORIZED: UNAUTHORIZED,
    Reason.PAYMENT_REQUIRED: Problem(
        status=402,
        kind="payment-required",
        title="Payment required",
        detail="The provider demands payment for this key.",
    ),
    Reason.USAGE_PAUSED: Problem(
        status=423,
        kind="usage-paused",
        title="Usage paused",
        detail="The provider has paused this key.",
    ),
    Reason.MALFORMED_REQUEST: _bad(
        "malformed-request", "The request is not HTTP/1.1 as this server reads it."
    ),
    Reason.SLOW_REQUEST: Problem(
        status=408,
        kind="slow-request",
        title="Request timeout",
        detail="The request's headers did not arrive in time.",
    ),
    Reason.METHOD_NOT_ALLOWED: Problem(
        status=405,
        kind="method-not-allowed",
        title="Method not allowed",
        detail="The Allow header lists what is.",
    ),
    Reason.BODY_TOO_LARGE: Problem(
        status=413,
        kind="body-too-large",
        title="Body too large",
        detail="This route reads no such long body, or none at all.",
    ),
    Reason.PATH_TOO_LONG: Problem(
        status=414,
        kind="path-too-long",
        title="Path too long",
        detail="The request target is limited to 8192 bytes.",
    ),
    Reason.HEADERS_TOO_LARGE: Problem(
        status=431,
        kind="headers-too-large",
        title="Header block too large",
        detail="The header block is limited to 32768 bytes and 100 fields.",
    ),
    Reason.NO_FACTS: UNAVAILABLE,
    Reason.NO_LEASE: UNAVAILABLE,
    Reason.NO_POLICY: UNAVAILABLE,
    Reason.NO_AUDIT: UNAVAILABLE,
    Reason.FACTS_MOVED: UNAVAILABLE,
    Reason.CACHE_UNAVAILABLE: UNAVAILABLE,
    Reason.UPSTREAM_UNDECIDED: UNAVAILABLE,
    Reason.CHANGED_ON_DISK: UNAVAILABLE,
    Reason.NOT_PINNED: UNAVAILABLE,
    Reason.PRECONDITION_FAILED: Problem(
        status=412,
        kind="precondition-failed",
        title="Precondition failed",
        detail="The file is not one that If-Match names.",
    ),
    Reason.RANGE_NOT_SATISFIABLE: Problem(
        status=416,
        kind="range-not-satisfiable",
        title="Range not satisfiable",
        detail="No range that was asked for lies within the file. Content-Range states its length.",
    ),
    Reason.INTERNAL: Problem(
        status=500,
        kind="internal",
        title="Internal error",
        detail="A defect of the gateway. Nothing was decided.",
    ),
}
"""Every reason but `permitted`, which is none; a test walks the enum."""
