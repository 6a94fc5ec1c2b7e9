"""Several ranges in one answer: multipart/byteranges, by RFC 9110, sections 14.6 and 15.3.7.2.

The body is described, not copied: the ranges of the file stay spans. So they can be sent by zero-copy, and
the length of the whole body is known before the first byte.

The boundary must not occur in the content. Searching for it would mean reading all that is sent. Instead it
is drawn at random for each answer, from 160 bits, after the content was written: the author of the file
could not know it, and no file is long enough to contain it by chance.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.answers import Span

_BOUNDARY_BYTES = 20


def draw_boundary() -> bytes:
    """A new boundary: a token, so that it needs no quotes."""
    return secrets.token_hex(_BOUNDARY_BYTES).encode()


def multipart_type(boundary: bytes) -> bytes:
    """The content type of the whole body."""
    return b"multipart/byteranges; boundary=" + boundary


def multipart_pieces(
    spans: Sequence[Span], size: int, content_type: bytes, boundary: bytes
) -> tuple[bytes | Span, ...]:
    """The pieces of the body, in order."""
    pieces: list[bytes | Span] = []
    for number, span in enumerate(spans):
        head = b"--%b\r\nContent-Type: %b\r\nContent-Range: %b\r\n\r\n"
        opening = head % (boundary, content_type, span.content_range(size))
        pieces += [b"\r\n" + opening if number else opening, span]
    return (*pieces, b"\r\n--%b--\r\n" % boundary)
