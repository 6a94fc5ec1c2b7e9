"""The headers that every delivered answer has, and the request headers that delivery reads.

A request's headers select only the form in which an admitted answer is sent. They never decide whether it
is sent (I3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Pair = tuple[bytes, bytes]

_OF_ONE_CALLER: tuple[Pair, ...] = (
    (b"vary", b"authorization, x-api-key"),
    (b"x-content-type-options", b"nosniff"),
)
REVALIDATED: tuple[Pair, ...] = ((b"cache-control", b"private, no-cache"), *_OF_ONE_CALLER)
"""For answers with a validator: the caller's own cache may store them, and revalidates them each time."""

UNSTORED: tuple[Pair, ...] = ((b"cache-control", b"no-store"), *_OF_ONE_CALLER)
"""For answers without a validator: they could not be revalidated, so no cache may store them."""

_READ = frozenset({b"if-match", b"if-none-match", b"if-range", b"range", b"want-repr-digest"})


def content_headers(content_type: bytes, length: int) -> tuple[Pair, ...]:
    """The headers that describe the body."""
    return (b"content-type", content_type), (b"content-length", b"%d" % length)


def asked_fields(
    headers: Iterable[Pair], fields: Mapping[bytes, bytes] | None = None
) -> dict[bytes, list[bytes]]:
    """The request fields that delivery reads, each with the values of all its lines.

    `fields` are the headers by name, where it is known that none came twice.
    """
    if fields is not None and _READ.isdisjoint(fields):
        return {}
    asked: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _READ:
            asked.setdefault(name, []).append(value.strip(b" \t"))
    return asked
