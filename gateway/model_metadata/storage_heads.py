"""What a storage is asked for a file, and how its answer is interpreted.

Of what the client asked for, a single plain range is passed on. A valid answer is the whole file, or exactly
the range that was asked for, or says that there is no such range; anything else is not passed on (I7).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from gateway.engine.faults import undecided

if TYPE_CHECKING:
    from gateway.adapters.provider import ProviderStream
    from gateway.delivery.headers import Pair
    from gateway.model.access import WireRequest
    from gateway.model.verdicts import RelayedFile

OK, PARTIAL, UNSATISFIABLE = 200, 206, 416
FIRST_BYTE = b"bytes=0-0"

_RANGE = re.compile(rb"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")
_CONTENT_RANGE = re.compile(rb"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18})")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class StorageHead(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The interpreted head of the provider's answer."""

    status: int
    length: int | None
    size: int | None  # of the whole file
    content_range: bytes | None
    has_ranges: bool


def asked_range(request: WireRequest, file: RelayedFile) -> bytes | None:
    """The range to pass on; None for a form that servers read differently: then the whole file is sent."""
    values = [value.strip(b" \t") for name, value in request.headers if name == b"range"]
    conditional = request.header(b"if-range") is not None
    if file.md5 is None or conditional or len(values) != 1 or not _RANGE.fullmatch(values[0]):
        return None
    return values[0]


def read_head(answer: ProviderStream, asked: bytes | None) -> StorageHead:
    """Interpret an answer. Raises `Unavailable` if it is neither a part nor the whole of a file."""
    headers = {name.lower(): value for name, value in answer.headers}
    if answer.status not in ({OK} if asked is None else {OK, PARTIAL, UNSATISFIABLE}):
        raise undecided(f"the provider's storage answered {answer.status}")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise undecided("the provider's storage sent an encoded file")
    length = headers.get(b"content-length", b"")
    size = int(length) if _LENGTH.fullmatch(length) else None
    if answer.status == OK:
        has_ranges = headers.get(b"accept-ranges", b"").lower() == b"bytes"
        return StorageHead(status=OK, length=size, size=size, content_range=None, has_ranges=has_ranges)
    match = _CONTENT_RANGE.fullmatch(headers.get(b"content-range", b""))
    is_partial = answer.status == PARTIAL
    if match is None or is_partial == (match[1] is None):
        raise undecided("the provider's storage did not say which part it sent")
    if is_partial and (size is None or size != int(match[2]) - int(match[1]) + 1):
        raise undecided("the provider's storage sent another part than it said")
    if is_partial and (int(match[1]), int(match[2])) != _part(asked or b"", int(match[3])):
        raise undecided("the provider's storage sent another part than was asked for")
    return StorageHead(
        status=answer.status, length=size, size=int(match[3]), content_range=match[0], has_ranges=is_partial
    )


def _part(asked: bytes, size: int) -> tuple[int, int]:
    """The first and the last byte of the requested range, of a file of this size."""
    first, _, last = asked.removeprefix(b"bytes=").partition(b"-")
    if not first:
        return max(size - int(last), 0), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1


def range_header(asked: bytes | None) -> list[Pair]:
    """The header that asks for the range."""
    return [] if asked is None else [(b"range", asked)]
