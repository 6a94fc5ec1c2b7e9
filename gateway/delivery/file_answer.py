"""Computes the answer to a GET or HEAD of an admitted file: status, headers and body, as a value.

Pure functions of the method, the request's headers and what is known of the file. Preconditions are
evaluated before ranges (RFC 9110, 13.2.2), only GET has ranges (14.2), and HEAD has the headers that GET
without a Range has (9.3.2).

A file that is not pinned has no validator and no digest, and its ranges could not be verified on their own:
no ranges of it are offered or served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.delivery.conditions import Condition, evaluate, may_use_range
from gateway.delivery.digests import entity_tag, is_digest_wanted, repr_digest
from gateway.delivery.headers import Headers, asked_fields, content_headers
from gateway.delivery.multipart import draw_boundary, multipart_pieces, multipart_type
from gateway.delivery.ranges import Span, find_ranges, unsatisfied_range
from gateway.model.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OCTETS = b"application/octet-stream"

MAX_UNHASHED_RANGED_BYTES = (32 << 20) - 1
"""Larger files without an MD5 are sent whole only: where ranges are offered, the engine fetches files of
32 MiB and more in ranges, then compares their MD5 with the one it does not have, and fails."""


class FileAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. With a `reason` it is a refusal, whose body the caller writes.

    `length` is the Content-Length. `pieces` are the body; for HEAD there are none.
    """

    status: int = 0  # not set for a refusal: `problems.py` has its status
    headers: Headers = msgspec.field(default_factory=list)
    length: int = 0
    pieces: tuple[bytes | Span, ...] = ()
    reason: Reason | None = None


def plan_delivery(
    method: str,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    size: int,
    sha256: str | None,
    is_blob: bool,
    boundary: Callable[[], bytes] = draw_boundary,
) -> FileAnswer:
    """The answer to this request for this file by RFC 9110 and RFC 9530."""
    asked = asked_fields(headers)
    etag = None if sha256 is None else entity_tag(sha256)
    match evaluate(asked, etag):
        case Condition.FAILED:
            return FileAnswer(reason=Reason.PRECONDITION_FAILED)
        case Condition.UNDECIDABLE:
            return FileAnswer(reason=Reason.NOT_PINNED)
        case Condition.NOT_MODIFIED:
            return FileAnswer(status=304, headers=[] if etag is None else [(b"etag", etag)])
        case Condition.MET:
            pass
    describing: Headers = []
    if sha256 is not None and etag is not None:
        describing.append((b"etag", etag))
        if is_digest_wanted(asked.get(b"want-repr-digest", ())):
            describing.append((b"repr-digest", repr_digest(sha256)))
        if is_blob or size <= MAX_UNHASHED_RANGED_BYTES:
            describing.append((b"accept-ranges", b"bytes"))
            if method == "GET" and b"range" in asked and may_use_range(asked, etag):
                spans = find_ranges(asked[b"range"], size)
                if spans is not None:
                    return _partial(spans, size, describing, boundary)
    described = [*content_headers(OCTETS, size), *describing]
    body = Span(offset=0, count=size) if size else b""
    return FileAnswer(status=200, headers=described, length=size, pieces=(body,) if method == "GET" else ())


def _partial(
    spans: tuple[Span, ...], size: int, describing: Headers, boundary: Callable[[], bytes]
) -> FileAnswer:
    if not spans:
        unsatisfied = [(b"content-range", unsatisfied_range(size))]
        return FileAnswer(headers=unsatisfied, reason=Reason.RANGE_NOT_SATISFIABLE)
    if len(spans) == 1:
        [span] = spans
        described = [*content_headers(OCTETS, span.count), *describing]
        described.append((b"content-range", span.content_range(size)))
        return FileAnswer(status=206, headers=described, length=span.count, pieces=spans)
    drawn = boundary()
    pieces = multipart_pieces(spans, size, OCTETS, drawn)
    length = sum(piece.count if isinstance(piece, Span) else len(piece) for piece in pieces)
    described = [*content_headers(multipart_type(drawn), length), *describing]
    return FileAnswer(status=206, headers=described, length=length, pieces=pieces)
