"""Maps each reason to its RFC 9457 problem. This is the only status table of the project.

Many reasons share one problem on purpose: a caller without a right on a resource gets one body, whatever the
cause (I3), and so does a caller without a valid key. The cause is for operators: it is in the audit record
whose id the body carries (`cachegate explain --record ID`).

`problem_of` has messages that fit the route, for causes that are clear from the request alone. A 401 is one
answer for all callers of a route, whatever was wrong with what they sent, and one for those that used an
authentication scheme that is not supported.
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from gateway.model.answers import Answer
from gateway.model.errors import Reason
from gateway.model.header_block import Headers
from gateway.model.limits import MAX_QUERY_FIELDS
from gateway.model.names import MAX_NAME_BYTES, MAX_NAME_SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.errors import FieldProblem

UNRECORDED = "00000000-0000-0000-0000-000000000000"
"""Sent in place of a record id when the audit log itself has failed: same length, but no record."""


MAX_DETAIL_CHARACTERS = 600
"""Of what is said of the caller's own request: it may repeat names from it."""

MAX_FIELDS_TOLD = 20
"""Fields of a request that an answer names."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of error response."""

    status: int
    kind: str
    title: str
    detail: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    oauth_error: str | None = None  # with it, the body is that of RFC 6749, 5.2

    def body(self, record_id: str) -> bytes:
        """The JSON body: constant except for the record id, which has a fixed length."""
        return b"".join((self._around[0], record_id.encode(), self._around[1]))

    def answer(self, record_id: str, *more: tuple[bytes, bytes]) -> Answer:
        """The answer with this problem. `more` are headers that only this answer has."""
        body = self.body(record_id)
        headers = self._described if not more else self._described.and_also(*more)
        return Answer(self.status, headers, body)

    def answer_with_detail(self, client_detail: str, record_id: str, *more: tuple[bytes, bytes]) -> Answer:
        """The same with what of the caller's own request is the cause. Not remembered: texts differ."""
        document = {
            "type": f"urn:cachegate:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": f"{self.detail} {client_detail[:MAX_DETAIL_CHARACTERS]}",
            "record": record_id,
        }
        return self._with_body(document, *more)

    def answer_about(
        self, fields: Sequence[FieldProblem], record_id: str, *more: tuple[bytes, bytes]
    ) -> Answer:
        """The same with the fields of the caller's own request that are the cause."""
        document = {
            "type": f"urn:cachegate:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "record": record_id,
            "errors": [
                {"pointer": one.pointer, "detail": one.detail[:MAX_DETAIL_CHARACTERS]}
                for one in fields[:MAX_FIELDS_TOLD]
            ],
        }
        return self._with_body(document, *more)

    def _with_body(self, document: dict[str, object], *more: tuple[bytes, bytes]) -> Answer:
        body = msgspec.json.encode(document) + b"\n"
        kept = [pair for pair in self._described.pairs if pair[0] != b"content-length"]
        return Answer(self.status, Headers.of(*kept, (b"content-length", b"%d" % len(body)), *more), body)

    @property
    def is_undecided(self) -> bool:
        """Whether nothing was decided: another attempt may have another answer."""
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR

    @property
    def _described(self) -> Headers:
        return _describe(self)[0]

    @property
    def _around(self) -> tuple[bytes, bytes]:
        return _describe(self)[1]


@cache
def _describe(problem: Problem) -> tuple[Headers, tuple[bytes, bytes]]:
    """The headers of the answer with a problem, and its body before and after the record id."""
    if problem.oauth_error is None:
        text = (
            f'{{"type":"urn:cachegate:problem:{problem.kind}","title":"{problem.title}",'
            f'"status":{problem.status},"detail":"{problem.detail}","record":"'
        )
    else:
        text = f'{{"error":"{problem.oauth_error}","error_description":"{problem.detail}","record":"'
    opens = text.encode()
    closes = b'"}\n'
    length = len(opens) + len(UNRECORDED) + len(closes)
    headers = Headers.of(
        (b"content-type", b"application/json" if problem.oauth_error else b"application/problem+json"),
        (b"content-length", b"%d" % length),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *problem.headers,
    )
    return headers, (opens, closes)


_HOW_TO_SEND = "as Authorization: Bearer KEY or as X-API-Key: KEY."
_QUERY_BOUND = f"A query has at most {MAX_QUERY_FIELDS} fields."


def _unauthorized(detail: str) -> Problem:
    return Problem(
        status=401,
        kind="unauthorized",
        title="No valid API key",
        detail=detail,
        headers=((b"www-authenticate", b'Bearer realm="cachegate"'),),
    )


UNAUTHORIZED = _unauthorized(
    f"Send a valid API key {_HOW_TO_SEND} One that is unknown, mistyped, expired, not valid yet, revoked, "
    "of a suspended tenant or bound to other addresses is none."
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
    Reason.MALFORMED_QUERY: _bad("malformed-query", f"No query is read here. {_QUERY_BOUND}"),
    Reason.MALFORMED_BODY: _bad("malformed-body", "The body is not the JSON that this route reads."),
    Reason.IMPOSSIBLE_VALUE: Problem(
        status=422,
        kind="impossible-value",
        title="Impossible value",
        detail="A field says what cannot be.",
    ),
    Reason.MALFORMED_CREDENTIAL: _bad(
        "malformed-credential",
        "The credential header holds what can be no key. A key is visible ASCII without blanks and commas, "
        "at most 4096 bytes.",
    ),
    Reason.CONFLICTING_CREDENTIALS: _bad(
        "conflicting-credentials", "Two differing credentials came with this request. Send one."
    ),
    Reason.KEY_IN_QUERY: _bad(
        "key-in-query",
        f"A key in the URL ends up in logs. Have this one replaced, and send the new one {_HOW_TO_SEND}",
    ),
    Reason.NO_CREDENTIAL: UNAUTHORIZED,
    Reason.UNSUPPORTED_SCHEME: UNAUTHORIZED,
    Reason.MISTYPED_KEY: UNAUTHORIZED,
    Reason.UNKNOWN_KEY: UNAUTHORIZED,
    Reason.WRONG_CLIENT: UNAUTHORIZED,
    Reason.UNSUPPORTED_GRANT: _bad(
        "unsupported-grant", "A token is given for client_credentials or for an exchange (RFC 8693) only."
    ),
    Reason.NOT_EXCHANGEABLE: _bad(
        "not-exchangeable", "A token is given for an API key of this gateway, and for nothing else."
    ),
    Reason.EXCESS_SCOPE: _bad("excess-scope", "A token has scopes that its key has too, and no others."),
    Reason.FOREIGN_AUDIENCE: _bad("foreign-audience", "A token is for this gateway alone."),
    Reason.MALFORMED_TOKEN: UNAUTHORIZED,
    Reason.UNKNOWN_SIGNING_KEY: UNAUTHORIZED,
    Reason.INVALID_TOKEN: UNAUTHORIZED,
    Reason.EXPIRED_TOKEN: UNAUTHORIZED,
    Reason.REVOKED_KEY: UNAUTHORIZED,
    Reason.DISABLED_KEY: UNAUTHORIZED,
    Reason.DECOY_KEY: UNAUTHORIZED,
    Reason.EXPIRED_KEY: UNAUTHORIZED,
    Reason.NOT_YET_VALID: UNAUTHORIZED,
    Reason.OUTSIDE_NETWORKS: UNAUTHORIZED,
    Reason.SUSPENDED_TENANT: UNAUTHORIZED,
    Reason.REMOVED_TENANT: UNAUTHORIZED,
    Reason.UNREADABLE_KEY: UNAUTHORIZED,
    Reason.UNKNOWN_ISSUER: UNAUTHORIZED,
    Reason.UNMAPPED_TOKEN: UNAUTHORIZED,
    Reason.AMBIGUOUS_TOKEN: UNAUTHORIZED,
    Reason.REVOKED_BINDING: UNAUTHORIZED,
    Reason.TOO_MANY_BINDINGS: UNAUTHORIZED,
    Reason.UNKNOWN_CURSOR: _bad(
        "unknown-cursor",
        "The cursor is none that this node gave to this reader: each node has its own, and so have the key's "
        "tenant and the operator. Without `after` reading begins at the oldest record.",
    ),
    Reason.NOT_YET_PROVEN: Problem(
        status=409,
        kind="not-yet-proven",
        title="Not proven yet",
        detail="This record has no signed head behind it yet. One comes within 10 seconds: ask again then.",
        headers=((b"retry-after", b"10"),),
    ),
    Reason.NOT_PROVABLE: Problem(
        status=409,
        kind="not-provable",
        title="Not provable",
        detail="This record cannot be proven alone: no signed head with a Merkle root follows it, and none "
        "will. The whole log shows what it is worth; ask the operator.",
    ),
    Reason.BINDING_LIMIT: Problem(
        status=429,
        kind="too-many-requests",
        title="Too many requests",
        detail="Too many new callers of this issuer came at once. Nothing was decided. Try again.",
        headers=((b"retry-after", b"1"),),
    ),
    Reason.ISSUER_UNDECIDED: UNAVAILABLE,
    Reason.NO_LINKS: _forbidden(
        "no-links",
        "This route answers with signed URLs, and none are made for this token. Read the files "
        "below /v1/models with the token, or use an API key.",
    ),
    Reason.UNKNOWN_KEY_LIMIT: Problem(
        status=429,
        kind="too-many-requests",
        title="Too many requests",
        detail="Too many requests with unknown keys. Nothing was decided. Try again.",
        headers=((b"retry-after", b"1"),),
    ),
    Reason.MISSING_SCOPE: _forbidden(
        "missing-scope",
        "This key lacks the scope for it: read for files, discover for listings. Its scopes were set when it "
        "was created; ask for another key.",
    ),
    Reason.MISSING_ACTION: _forbidden(
        "missing-action",
        "This key may discover it, but no rule lets it do this with it. Ask the model's owner for a grant.",
    ),
    Reason.NOT_PERMITTED: NOT_FOUND,
    Reason.EXPIRED_GRANT: NOT_FOUND,
    Reason.GRANT_NOT_YET_VALID: NOT_FOUND,
    Reason.POLICY_ERROR: NOT_FOUND,
    Reason.UNREADABLE_FACT: NOT_FOUND,
    Reason.ABSENT: NOT_FOUND,
    Reason.UNSERVABLE: NOT_FOUND,
    Reason.UNATTESTED: NOT_FOUND,
    Reason.QUARANTINED: NOT_FOUND,
    Reason.NO_ROUTE: NOT_FOUND,
    Reason.NOT_PROXIED: NOT_FOUND,
    Reason.UPSTREAM_REFUSED: NOT_FOUND,
    Reason.CLOSED_ROUTE: NOT_FOUND,
    Reason.RESERVED_PATH: _bad(
        "reserved-path",
        "The first segment of this path is a name of the gateway's own routes: v1, d, proxy, models, hooks, "
        "health, check, access, admin, audit, .well-known. Name the model in the body, on its task's route.",
    ),
    Reason.CONFLICTING_MODELS: _bad(
        "conflicting-models",
        "The request names two models, or one in a place that this route does not read. Name it once, where "
        "the route reads it.",
    ),
    Reason.FORBIDDEN_FIELD: _bad(
        "forbidden-field",
        "The request has a field that bills, uploads or reveals something. Leave it out: service_secret, "
        "active_learning_target_dataset and the like are not taken from clients.",
    ),
    Reason.FORBIDDEN_IMAGE: _bad(
        "forbidden-image",
        "An image is named by a file or by a URL. Send the image itself, as base64; or have the operator "
        "allow the host of the URL for your tenant.",
    ),
    Reason.IMAGE_NOT_FETCHED: _bad(
        "image-not-fetched", "The image at the URL could not be fetched, or is too large. Send it as base64."
    ),
    Reason.NO_SERVICE_KEY: _forbidden(
        "no-service-key",
        "This key reads files, and cannot run models here: the gateway has no key for the inference server. "
        "Ask the operator.",
    ),
    Reason.INFERENCE_UNAVAILABLE: Problem(
        status=503,
        kind="inference-unavailable",
        title="Inference server unavailable",
        detail="No inference server answered in time. Try again.",
        headers=((b"retry-after", b"1"),),
    ),
    Reason.UNEXPECTED_MODEL: Problem(
        status=503,
        kind="unexpected-model",
        title="Not sent",
        detail="The inference server used a model that this request was not authorised for. Nothing of its "
        "answer was sent; the operator was told.",
    ),
    Reason.MALFORMED_WORKFLOW: _bad(
        "malformed-workflow", "The workflow is not one that the inference server can compile, or too large."
    ),
    Reason.UNKNOWN_WORKLOAD: _forbidden(
        "unknown-workload",
        "A workflow runs only where all that it loads and does is known, and permitted, beforehand.",
    ),
    Reason.SAVED_WORKFLOW: _forbidden(
        "saved-workflow",
        "A saved workflow runs only with a key of the platform that has it. Send its specification instead.",
    ),
    Reason.SHARED_SERVER: _forbidden(
        "shared-server",
        "The workflow reaches what all requests to one inference server share. That needs a server of the "
        "tenant's own: ask the operator.",
    ),
    Reason.OPERATORS_PROJECT: _forbidden(
        "operators-project",
        "The workflow uploads to a project. With a key of this gateway that would be one of the operator's.",
    ),
    Reason.NO_WORKFLOWS: Problem(
        status=501,
        kind="no-workflows",
        title="No workflows",
        detail="The inference server does not say what a workflow will do in a way that is known here.",
    ),
    Reason.UNTRUSTED_PROXY: _forbidden(
        "untrusted-proxy",
        "Only a proxy that the operator trusts may ask here. Operators name it in CACHEGATE_TRUSTED_PROXIES.",
    ),
    Reason.MALFORMED_CHECK: _bad(
        "malformed-check",
        "It is not clear which request is meant: a header by which a proxy tells it is missing, came twice, "
        "is written with underscores, or is one of another proxy. Send no such header yourself.",
    ),
    Reason.UNCHECKABLE: _bad(
        "uncheckable",
        "This request cannot be checked this way: its answer is made for its caller, or depends on its body. "
        "Files and blobs can. Send it to the gateway itself.",
    ),
    Reason.BUSY: Problem(
        status=503,
        kind="busy",
        title="Busy",
        detail="Too many requests are under way. Try again.",
        headers=((b"retry-after", b"1"),),
    ),
    Reason.INVALID_LINK: UNAUTHORIZED,
    Reason.EXPIRED_LINK: UNAUTHORIZED,
    Reason.BAD_HOOK_SIGNATURE: UNAUTHORIZED,
    Reason.UPSTREAM_UNAUTHORIZED: UNAUTHORIZED,
    Reason.PAYMENT_REQUIRED: Problem(
        status=402,
        kind="payment-required",
        title="Payment required",
        detail="The provider demands payment for this key. Its account there has to be settled first.",
    ),
    Reason.USAGE_PAUSED: Problem(
        status=423,
        kind="usage-paused",
        title="Usage paused",
        detail="The provider has paused this key. Its account there says why.",
    ),
    Reason.MALFORMED_REQUEST: _bad(
        "malformed-request",
        "The request is not HTTP/1.1 as this server reads it: a line, a header or a length does not parse, "
        "there is not exactly one Host, a body broke off, an upgrade was asked for, or too much at once.",
    ),
    Reason.SLOW_REQUEST: Problem(
        status=408,
        kind="slow-request",
        title="Request timeout",
        detail="The request's headers did not arrive within 10 seconds.",
    ),
    Reason.METHOD_NOT_ALLOWED: Problem(
        status=405,
        kind="method-not-allowed",
        title="Method not allowed",
        detail="This path does not take this method. The Allow header lists those that it takes.",
    ),
    Reason.BODY_TOO_LARGE: Problem(
        status=413,
        kind="body-too-large",
        title="Body too large",
        detail="This route reads no body. Send the request without one.",
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
        detail="What is there now is not what If-Match names.",
    ),
    Reason.PRECONDITION_REQUIRED: Problem(
        status=428,
        kind="precondition-required",
        title="Precondition required",
        detail="Say with If-Match which state of it the change is meant for: the ETag that a read gave.",
    ),
    Reason.CONFLICT: Problem(
        status=409, kind="conflict", title="Conflict", detail="The change contradicts what is there."
    ),
    Reason.FOLDER_OWNED: Problem(
        status=409,
        kind="folder-owned",
        title="Of the policy folder",
        detail="The policy folder says this, and it is changed there.",
    ),
    Reason.EXCESS_RIGHTS: _forbidden("excess-rights", "Your role does not reach so far."),
    Reason.REUSED_IDEMPOTENCY_KEY: Problem(
        status=422,
        kind="reused-idempotency-key",
        title="Idempotency-Key used before",
        detail="This Idempotency-Key was used for another request. Use a new one for each.",
    ),
    Reason.STILL_RUNNING: Problem(
        status=409,
        kind="still-running",
        title="Still running",
        detail="The first request with this Idempotency-Key has not ended yet. Ask again in a moment.",
        headers=((b"retry-after", b"1"),),
    ),
    Reason.TOO_MANY_IDEMPOTENCY_KEYS: Problem(
        status=429,
        kind="too-many-requests",
        title="Too many requests",
        detail="This key has used too many Idempotency-Keys within a day. Send the request without one.",
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
        detail="A defect of the gateway. Nothing was decided. Its operator can look it up by the record id.",
    ),
}
"""Every reason but `permitted`, which is no refusal; a test walks the enum."""


_OTHER_SCHEME = _unauthorized(
    "The Authorization header has another scheme than Bearer, and no other is read here. "
    f"Send a valid API key {_HOW_TO_SEND}"
)


def _no_link(detail: str) -> Problem:
    return Problem(
        status=401,
        kind="invalid-link",
        title="No valid link",
        detail=detail,
        headers=((b"www-authenticate", b'Cachegate-Link realm="cachegate"'),),
    )


_INVALID_LINK = _no_link(
    "A download takes a link with se and sig, as the model's metadata has it, and no key beside it. This is "
    "none of this gateway for this file, or it has expired, or its key is no longer valid, or a header has "
    "another key. The metadata has new links each time."
)
_BAD_SIGNATURE = Problem(
    status=401,
    kind="invalid-signature",
    title="No valid signature",
    detail="This webhook has no valid signature of the last 5 minutes. Expected: Cachegate-Signature: "
    "t=SECONDS,v1=HEX, where HEX is the HMAC-SHA-256 of SECONDS.BODY under the hook key.",
    headers=((b"www-authenticate", b'Cachegate-Signature realm="cachegate"'),),
)
_ENGINES: dict[Reason, Problem] = {
    Reason.MALFORMED_QUERY: _bad(
        "malformed-query",
        "The query does not parse. modelId is a model id, percent-encoded once; startAfter is the mark that "
        f"the page before gave. Neither comes twice. {_QUERY_BOUND}",
    ),
    Reason.MISSING_SCOPE: _forbidden(
        "missing-scope",
        "This key lacks the scope read: this metadata leads to files. Its scopes were set when it was "
        "created; ask for another key.",
    ),
}
"""The engine's two questions."""

_OF_ROUTE: dict[str, dict[Reason, Problem]] = {
    "/v1/models": {
        Reason.MALFORMED_QUERY: _bad(
            "malformed-query",
            "The query does not parse. limit is a whole number from 1 to 1000, after is a model id. Neither "
            f"comes twice. {_QUERY_BOUND}",
        ),
    },
    "/v1/models/{model}/-/{package}": {
        Reason.MALFORMED_QUERY: _bad(
            "malformed-query",
            "The query does not parse. limit is a whole number from 1 to 1000, after is the name of a file. "
            f"Neither comes twice. {_QUERY_BOUND}",
        ),
    },
    "/v1/blobs/{md5}": {
        Reason.MALFORMED_PATH: _bad(
            "malformed-path",
            "The path does not parse. A blob is named by its MD5: 32 hex digits in lower case.",
        ),
    },
    "/models/v1/external/weights": _ENGINES,
    "/models/v1/external/stat": _ENGINES,
    "/d/{model}/-/{package}/{file}": {
        Reason.UNSUPPORTED_SCHEME: _no_link(
            "The Authorization header has another scheme than Bearer. A link needs no such header: send none."
        ),
        **{
            reason: _INVALID_LINK
            for reason, problem in PROBLEMS.items()
            if problem is UNAUTHORIZED and reason is not Reason.UNSUPPORTED_SCHEME
        },
        Reason.CONFLICTING_CREDENTIALS: _bad(
            "conflicting-credentials",
            "Two differing credentials came with this request. A link needs no key beside it: send it alone.",
        ),
        Reason.MALFORMED_CREDENTIAL: _bad(
            "malformed-credential",
            "The credential header holds what can be no key. A link needs none beside it: send no such "
            "header.",
        ),
        Reason.KEY_IN_QUERY: _bad(
            "key-in-query",
            "A key in the URL ends up in logs. Have this one replaced. A link needs no key: follow it as it "
            "was handed out, byte for byte.",
        ),
        Reason.MALFORMED_QUERY: _bad(
            "malformed-query",
            "The query does not parse. A link is followed as it was handed out, byte for byte.",
        ),
        Reason.MALFORMED_PATH: _bad(
            "malformed-path",
            "The path does not parse. A link is followed as it was handed out, byte for byte.",
        ),
    },
    "/proxy": {
        Reason.MALFORMED_QUERY: _bad(
            "malformed-query",
            "The query does not parse. url is one absolute URL, percent-encoded once; a link of this gateway "
            "has its se and sig beside it. No other field is read here, and no key belongs in a URL.",
        ),
        Reason.MISSING_SCOPE: _ENGINES[Reason.MISSING_SCOPE],
        Reason.NOT_PROXIED: Problem(
            status=404,
            kind="not-found",
            title="Not found",
            detail="This URL is not one that is served here. What is: the provider's two metadata routes, "
            "and links of this gateway.",
        ),
    },
    "/hooks/v1/authority": {
        Reason.BAD_HOOK_SIGNATURE: _BAD_SIGNATURE,
        Reason.MALFORMED_BODY: _bad(
            "malformed-body",
            "The body is not the JSON of this webhook. Expected: an object with keys_sha256, a list of "
            "SHA-256 in lower-case hex, and models, a list of model ids; either may be left out. At most "
            "1000 names in all.",
        ),
        Reason.BODY_TOO_LARGE: Problem(
            status=413,
            kind="body-too-large",
            title="Body too large",
            detail="The body of a webhook has at most 65536 bytes. Send what there is to say in several.",
        ),
        Reason.SLOW_REQUEST: Problem(
            status=408,
            kind="slow-request",
            title="Request timeout",
            detail="The request's body did not arrive within 5 seconds.",
        ),
    },
}
_ABOUT_ACCESS = {
    Reason.MALFORMED_BODY: _bad(
        "malformed-body",
        "The body is not an AuthZEN request as it is read here: one JSON object with subject, action and "
        "resource, each name once, without NaN.",
    ),
    Reason.MISSING_SCOPE: _forbidden(
        "missing-scope",
        "This key lacks the scope decisions:ask. Its scopes were set when it was created; ask for another "
        "key.",
    ),
    Reason.BODY_TOO_LARGE: Problem(
        status=413,
        kind="body-too-large",
        title="Body too large",
        detail="A question, or all questions of a batch, have at most 65536 bytes. Send several requests.",
    ),
    Reason.SLOW_REQUEST: Problem(
        status=408,
        kind="slow-request",
        title="Request timeout",
        detail="The request's body did not arrive within 5 seconds.",
    ),
}
_OF_ROUTE |= dict.fromkeys(("/access/v1/evaluation", "/access/v1/evaluations"), _ABOUT_ACCESS)
_OF_ROUTE["{mount}"] = {
    Reason.NO_ROUTE: Problem(
        status=404,
        kind="not-found",
        title="Not found",
        detail="The inference server has no such path. Task routes such as /infer/object_detection name the "
        "model in their body.",
    ),
    Reason.MALFORMED_PATH: _bad(
        "malformed-path",
        "The path does not parse. A model id has one slash or none, and consists of letters, digits, dots, "
        "dashes and underscores.",
    ),
    Reason.MALFORMED_QUERY: _bad(
        "malformed-query",
        f"The query does not parse, or names one thing twice with different values. {_QUERY_BOUND}",
    ),
    Reason.MALFORMED_BODY: _bad(
        "malformed-body",
        "The body is not what this route reads. JSON is an object in UTF-8 under Content-Type: "
        "application/json, each name once, without NaN, not compressed; a route that reads none gets none.",
    ),
    Reason.MALFORMED_CREDENTIAL: _bad(
        "malformed-credential",
        "A key is visible ASCII without blanks and commas, at most 4096 bytes: in the Authorization header, "
        "as api_key in the query, or as api_key in a JSON body.",
    ),
    Reason.CONFLICTING_CREDENTIALS: _bad(
        "conflicting-credentials",
        "Two differing keys came with this request: in headers, query or body. Send one, or the same in all.",
    ),
    Reason.MISSING_SCOPE: _forbidden(
        "missing-scope",
        "This key lacks the scope infer. Its scopes were set when it was created; ask for another key.",
    ),
    Reason.BODY_TOO_LARGE: Problem(
        status=413,
        kind="body-too-large",
        title="Body too large",
        detail="The body is larger than the operator lets requests to inference servers be. Send fewer or "
        "smaller images.",
    ),
    Reason.SLOW_REQUEST: Problem(
        status=408,
        kind="slow-request",
        title="Request timeout",
        detail="The request's body did not arrive within 60 seconds, or paused for 10.",
    ),
}
_OF_ANY_ROUTE: dict[Reason, Problem] = {
    Reason.UNSUPPORTED_SCHEME: _OTHER_SCHEME,
    Reason.CLOSED_ROUTE: Problem(
        status=404,
        kind="not-found",
        title="Not found",
        detail="This route of the inference server is closed here, for everybody.",
    ),
    Reason.NO_ROUTE: Problem(
        status=404,
        kind="not-found",
        title="Not found",
        detail="There is no such path. Models are listed at /v1/models, and the key in use at /v1/whoami.",
    ),
}
"""Messages for what is clear from the request alone, so that they reveal nothing else."""

_OF_ADMINISTRATION: dict[Reason, Problem] = {
    Reason.MALFORMED_PATH: _bad("malformed-path", "The path does not parse."),
    Reason.MALFORMED_QUERY: _bad(
        "malformed-query",
        "The query does not parse, or has a parameter that is not read here, or one twice.",
    ),
    Reason.MALFORMED_BODY: _bad(
        "malformed-body",
        "The body is not the JSON object that this route reads: the fields that it knows, each once, of its "
        "type.",
    ),
    Reason.MALFORMED_REQUEST: _bad("malformed-request", "A header or the end of the body does not parse."),
    Reason.MISSING_SCOPE: _forbidden(
        "missing-scope",
        "Reading takes the scope audit:read or keys:manage, changing takes keys:manage.",
    ),
    Reason.MISSING_ACTION: _forbidden("missing-action", "No rule lets this key do this: its role does not."),
    Reason.BODY_TOO_LARGE: Problem(
        status=413,
        kind="body-too-large",
        title="Body too large",
        detail="The body has at most 65536 bytes, that of the policy 1048576.",
    ),
    Reason.SLOW_REQUEST: Problem(
        status=408,
        kind="slow-request",
        title="Request timeout",
        detail="The request's body did not arrive within 5 seconds.",
    ),
}
_OF_LOG: dict[Reason, Problem] = {
    Reason.MALFORMED_QUERY: _bad(
        "malformed-query",
        "The query does not parse, or has a parameter that is not read here, or one twice.",
    ),
    Reason.MISSING_SCOPE: _forbidden("missing-scope", "Reading the audit log takes the scope audit:read."),
    Reason.MISSING_ACTION: _forbidden(
        "missing-action",
        "This key's role does not read the audit log, or it is narrowed to some models.",
    ),
}
LOG_ROUTES = frozenset(
    {
        "/audit/v1/events",
        "/audit/v1/nodes",
        "/audit/v1/usage",
        "/audit/v1/readers",
        "/audit/v1/keys/{key_id}",
    }
)
"""The routes that read the audit log."""

ADMINISTRATION = "/admin/", "/v1/keys", "/v1/grants"
"""What the routes of the administration begin with."""


def _inference(
    status: HTTPStatus,
    detail: str,
    *,
    kind: str = "inference-refused",
    title: str = "Inference refused",
    is_to_be_tried_again: bool = False,
) -> Problem:
    again = ((b"retry-after", b"1"),) if is_to_be_tried_again else ()
    return Problem(status=int(status), kind=kind, title=title, detail=detail, headers=again)


INFERENCE_FAILED = _inference(
    HTTPStatus.BAD_GATEWAY,
    "The inference server failed on this request. The operator finds it by its record.",
    kind="inference-failed",
    title="Inference failed",
)
INFERENCE_LATER = _inference(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "The inference server cannot answer now. Try again.",
    kind="inference-unavailable",
    title="Inference server unavailable",
    is_to_be_tried_again=True,
)
INFERENCE_NO_ACCESS = _inference(
    HTTPStatus.FORBIDDEN, "The inference server could not load the model: its provider refused the key."
)
INFERENCE_PROBLEMS: dict[int, Problem] = {
    HTTPStatus.UNAUTHORIZED: INFERENCE_NO_ACCESS,
    HTTPStatus.PAYMENT_REQUIRED: INFERENCE_NO_ACCESS,
    HTTPStatus.FORBIDDEN: INFERENCE_NO_ACCESS,
    HTTPStatus.REQUEST_TIMEOUT: INFERENCE_LATER,
    HTTPStatus.BAD_GATEWAY: INFERENCE_LATER,
    HTTPStatus.SERVICE_UNAVAILABLE: INFERENCE_LATER,
    HTTPStatus.GATEWAY_TIMEOUT: INFERENCE_LATER,
    HTTPStatus.TOO_MANY_REQUESTS: _inference(
        HTTPStatus.TOO_MANY_REQUESTS,
        "The inference server asks for fewer requests. Try again.",
        is_to_be_tried_again=True,
    ),
    HTTPStatus.NOT_FOUND: _inference(HTTPStatus.NOT_FOUND, "The inference server finds no such model."),
    HTTPStatus.NOT_IMPLEMENTED: _inference(
        HTTPStatus.NOT_IMPLEMENTED, "The model cannot do what was asked for."
    ),
    **{
        status: _inference(status, "The inference server refused the request as it is.")
        for status in (
            *(HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
            *(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY),
        )
    },
}
"""How a status of an inference server, of 400 and above, is told; of one that is not here, INFERENCE_FAILED.

A client's mistake keeps its status; what it did not cause is 502 or 503.
"""


_WITH_WORKFLOWS = {
    Reason.MISSING_ACTION: _forbidden(
        "missing-action", "The workflow does what its tenant is not allowed. Ask the operator."
    ),
}


def problem_with_detail(reason: Reason, route: str) -> Problem:
    """The problem where what of the caller's own request is the cause is told beside it."""
    return _WITH_WORKFLOWS.get(reason) or problem_of(reason, route)


def problem_of(reason: Reason, route: str) -> Problem:
    """The problem of this reason on a route, which is named by its template."""
    if route in LOG_ROUTES and reason in _OF_LOG:
        return _OF_LOG[reason]
    if route.startswith(ADMINISTRATION) and reason in _OF_ADMINISTRATION:
        return _OF_ADMINISTRATION[reason]
    return _OF_ROUTE.get(route, _OF_ANY_ROUTE).get(reason) or _OF_ANY_ROUTE.get(reason) or PROBLEMS[reason]


# The token route speaks OAuth, whose errors have codes and a body of their own (RFC 6749, 5.2; RFC 8693,
# 2.2.2). What they mean stays the same: one answer for all that is wrong with a caller's key.

_OAUTH_ERRORS = {
    Reason.UNSUPPORTED_GRANT: "unsupported_grant_type",
    Reason.EXCESS_SCOPE: "invalid_scope",
    Reason.FOREIGN_AUDIENCE: "invalid_target",
}
_OAUTH_DETAILS = {
    Reason.MALFORMED_BODY: "The body is not the form of a token request (application/x-www-form-urlencoded), "
    "or has a parameter twice, or lacks one.",
    Reason.MALFORMED_QUERY: "This route reads no query: send everything in the body.",
    Reason.CONFLICTING_CREDENTIALS: "The request has two credentials, or names another key than it has.",
}
_NO_KEY = (
    "This is no key that is valid here: it is unknown, mistyped, expired, not valid yet, revoked, of a "
    "suspended tenant, or bound to other addresses."
)


@cache
def oauth_problem_of(reason: Reason, *, is_of_client: bool) -> Problem:
    """The problem of a token request. `is_of_client`: the key came as a client's secret, or none came."""
    usual = PROBLEMS[reason]
    match usual.status:
        case HTTPStatus.UNAUTHORIZED if is_of_client:
            realm = ((b"www-authenticate", b'Basic realm="cachegate", charset="UTF-8"'),)
            return _oauth(usual, 401, "invalid_client", _NO_KEY, realm)
        case HTTPStatus.UNAUTHORIZED:
            return _oauth(usual, 400, "invalid_request", _NO_KEY)
        case HTTPStatus.FORBIDDEN | HTTPStatus.NOT_FOUND:
            return _oauth(usual, 400, "unauthorized_client", "No rule lets this key have a token.")
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return _oauth(usual, usual.status, "temporarily_unavailable", usual.detail, usual.headers)
        case HTTPStatus.INTERNAL_SERVER_ERROR:
            return _oauth(usual, 500, "server_error", usual.detail, usual.headers)
        case _:
            error = _OAUTH_ERRORS.get(reason, "invalid_request")
            return _oauth(usual, usual.status, error, _OAUTH_DETAILS.get(reason, usual.detail), usual.headers)


def _oauth(
    usual: Problem, status: int, error: str, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Problem:
    return Problem(
        status=status,
        kind=usual.kind,
        title=usual.title,
        detail=detail,
        headers=(*headers, (b"pragma", b"no-cache")),
        oauth_error=error,
    )
