"""X-Accel-Redirect: has nginx send the file, after the gateway has decided and recorded.

For pinned blobs only, and by their own digest: the location is built from a setting and the 32 hex digits
in the manifest, so nothing that a client sends can get into it. Preconditions were evaluated before. Ranges
are left to nginx, with the entity tag that it gets from here. nginx also evaluates two of the preconditions,
before it knows that tag, and would refuse the request; such a request is answered without nginx.

The cost: the file is not verified again once nginx has it, and a revocation does not cut the transfer.
The outcome record says `handed-off`; only nginx's own log can tell how the transfer ended.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from gateway.delivery.headers import Pair, content_headers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model.verdicts import OpenFile

OCTETS = b"application/octet-stream"

_PASSED_ON = frozenset({b"etag", b"repr-digest"})
_EVALUATED_AGAIN = frozenset({b"if-match", b"if-unmodified-since"})


def handoff_headers(
    status: int,
    described: Iterable[Pair],
    file: OpenFile,
    prefix: str | None,
    asked: Iterable[Pair],
) -> tuple[Pair, ...] | None:
    """The headers that make nginx send this answer; None when the gateway has to send it itself."""
    if prefix is None or file.md5 is None or file.sha256 is None or status == HTTPStatus.NOT_MODIFIED:
        return None
    if any(name in _EVALUATED_AGAIN for name, _ in asked):
        return None
    return (
        *content_headers(OCTETS, 0),
        *(field for field in described if field[0] in _PASSED_ON),
        (b"x-accel-redirect", f"{prefix}/{file.md5}".encode()),
    )
