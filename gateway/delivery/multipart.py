"""Several ranges in one answer: multipart/byteranges, by RFC 9110, sections 14.6 and 15.3.7.2.

The parts are described, not copied: the stretches of the file stay spans, so they go out by zero-copy
and the length of the whole is known before the first byte.

The boundary must not stand in the content. Looking for it would mean to read all that is sent; it is
drawn at random for each answer instead, after the content was written, from 160 bits: whoever wrote
the file could not know it, and no file is long enough to hit it by chance.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.delivery.ranges import Span

_BOUNDARY_BYTES = 20


def draw_boundary() -> bytes:
    """A new boundary: a token, so that it needs no quotes."""
    return secrets.token_hex(_BOUNDARY_BYTES).encode()


def multipart_type(boundary: bytes) -> bytes:
    """The content type of the whole."""
    return b"multipart/byteranges; boundary=" + boundary


def multipart_pieces(
    spans: Sequence[Span], size: int, content_type: bytes, boundary: bytes
) -> tuple[bytes | Span, ...]:
    """What the body is made of, in order."""
    pieces: list[bytes | Span] = []
    for number, span in enumerate(spans):
        head = b"--%b\r\nContent-Type: %b\r\nContent-Range: %b\r\n\r\n"
        opening = head % (boundary, content_type, span.content_range(size))
        pieces += [b"\r\n" + opening if number else opening, span]
    return (*pieces, b"\r\n--%b--\r\n" % boundary)
