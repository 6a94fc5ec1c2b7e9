"""Computes the answer to a GET or HEAD of an admitted file: status, headers and body, as a value.

`plan_delivery` is a pure function of the method, the request's headers and what is known of the file.
Preconditions are evaluated before ranges (RFC 9110, 13.2.2), only GET has ranges (14.2), and HEAD has the
headers that GET without a Range has (9.3.2). `answer_file` makes the answer of a receipt from it: from memory
where the file is there, else from the open file, or by the proxy in front.

Where RFC 9110 demands an answer other than the file, a `RefusedFile` is returned; the face makes the problem.

A file that is not pinned has no validator and no digest, and its ranges could not be verified on their own:
no ranges of it are offered or served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.delivery.conditions import Condition, evaluate, may_use_range
from gateway.delivery.digests import entity_tag, is_digest_wanted, repr_digest
from gateway.delivery.handoff import OCTETS, handoff_headers
from gateway.delivery.headers import REVALIDATED, Pair, asked_fields, content_headers
from gateway.delivery.multipart import draw_boundary, multipart_pieces, multipart_type
from gateway.delivery.ranges import find_ranges, unsatisfied_range
from gateway.delivery.unchanged import CutError, unsent, verify_unchanged
from gateway.model.answers import Answer, FileParts, Span
from gateway.model.errors import Reason
from gateway.model.header_block import Headers
from gateway.model.verdicts import Ending, HeldFile, OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway.model.answers import OnHashed
    from gateway.model.verdicts import Receipt

    Asked = Mapping[bytes, Sequence[bytes]]

MAX_UNHASHED_RANGED_BYTES = (32 << 20) - 1
"""Larger files without an MD5 are sent whole only: where ranges are offered, the engine fetches files of
32 MiB and more in ranges, then compares their MD5 with the one it does not have, and fails."""


async def _keep_nothing(file: OpenFile, *, md5: str, sha256: str) -> None:
    """The default for an app without pins: the hashes are known for this transfer only."""


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """How files are sent in this installation; the same for all requests."""

    accel_prefix: str | None = None
    on_hashed: OnHashed = _keep_nothing


PLAIN = Means()


class RefusedFile(msgspec.Struct, frozen=True, kw_only=True):
    """The client is to be told this reason instead of the file, with these headers."""

    reason: Reason
    headers: tuple[Pair, ...] = ()


class FilePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to answer. With a `reason` it is a refusal, whose body the face makes.

    `length` is the Content-Length. `pieces` are the body; for HEAD there are none.
    """

    status: int = 0  # not set for a refusal: `problems.py` has its status
    headers: tuple[Pair, ...] = ()
    length: int = 0
    pieces: tuple[bytes | Span, ...] = ()
    reason: Reason | None = None


def answer_file(receipt: Receipt, means: Means = PLAIN) -> Answer | RefusedFile:
    """The answer with the file of a receipt, in the form that the request asks for.

    Raises `Unavailable` when the open file is no longer what was opened.
    """
    file, request = receipt.admission.found, receipt.admission.request
    if not isinstance(file, OpenFile):
        raise TypeError("this receipt is not for a file")
    asked = asked_fields(request.headers, request.fields)
    if isinstance(file, HeldFile):
        if not asked and means.accel_prefix is None:
            return Answer(200, file.headers, file.content or b"")
    else:
        try:
            verify_unchanged(file)
        except CutError as cut:
            raise unsent(file, cut) from cut
    plan = plan_delivery(
        request.method, asked, size=file.size, sha256=file.sha256, is_blob=file.md5 is not None
    )
    if plan.reason is not None:
        return RefusedFile(reason=plan.reason, headers=plan.headers)
    handoff = handoff_headers(plan.status, plan.headers, file, means.accel_prefix, request.headers)
    if handoff is not None:
        return Answer(200, Headers.of(*handoff, *REVALIDATED), ending=Ending.HANDED_OFF)
    headers = Headers.of(*plan.headers, *REVALIDATED)
    if not plan.pieces:
        return Answer(plan.status, headers)
    if isinstance(file, HeldFile) and file.content is not None:
        return Answer(plan.status, headers, _cut_out(file.content, plan.pieces))
    parts = FileParts(file=file, pieces=plan.pieces, length=plan.length, on_hashed=means.on_hashed)
    return Answer(plan.status, headers, parts)


def describe_whole(size: int, sha256: str, *, is_blob: bool) -> Headers:
    """The headers of the plain answer with a file whose content is known."""
    plan = plan_delivery("HEAD", {}, size=size, sha256=sha256, is_blob=is_blob)
    return Headers.of(*plan.headers, *REVALIDATED)


def _cut_out(content: bytes, pieces: Iterable[bytes | Span]) -> bytes:
    return b"".join([content[one.offset : one.end] if isinstance(one, Span) else one for one in pieces])


def plan_delivery(
    method: str,
    asked: Asked,
    *,
    size: int,
    sha256: str | None,
    is_blob: bool,
    boundary: Callable[[], bytes] = draw_boundary,
) -> FilePlan:
    """The answer to this request for this file by RFC 9110 and RFC 9530. `asked` as in `asked_fields`."""
    etag = None if sha256 is None else entity_tag(sha256)
    match evaluate(asked, etag):
        case Condition.FAILED:
            return FilePlan(reason=Reason.PRECONDITION_FAILED)
        case Condition.UNDECIDABLE:
            return FilePlan(reason=Reason.NOT_PINNED)
        case Condition.NOT_MODIFIED:
            return FilePlan(status=304, headers=() if etag is None else ((b"etag", etag),))
        case Condition.MET:
            pass
    describing: list[Pair] = []
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
    described = (*content_headers(OCTETS, size), *describing)
    body = Span(offset=0, count=size) if size else b""
    return FilePlan(status=200, headers=described, length=size, pieces=(body,) if method == "GET" else ())


def _partial(
    spans: tuple[Span, ...], size: int, describing: list[Pair], boundary: Callable[[], bytes]
) -> FilePlan:
    if not spans:
        unsatisfied = ((b"content-range", unsatisfied_range(size)),)
        return FilePlan(headers=unsatisfied, reason=Reason.RANGE_NOT_SATISFIABLE)
    if len(spans) == 1:
        [span] = spans
        of_range = (b"content-range", span.content_range(size))
        described = (*content_headers(OCTETS, span.count), *describing, of_range)
        return FilePlan(status=206, headers=described, length=span.count, pieces=spans)
    drawn = boundary()
    pieces = multipart_pieces(spans, size, OCTETS, drawn)
    length = sum(piece.count if isinstance(piece, Span) else len(piece) for piece in pieces)
    described = (*content_headers(multipart_type(drawn), length), *describing)
    return FilePlan(status=206, headers=described, length=length, pieces=pieces)
