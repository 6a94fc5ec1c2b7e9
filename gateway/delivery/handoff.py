"""X-Accel-Redirect: nginx moves the bytes, and we have decided and recorded.

For pinned blobs only, and by their own digest: the location is put together from a setting and from
32 hex digits that the manifest named, so nothing that a client sends can be in it. Preconditions were
evaluated before; ranges are nginx's, with the entity tag that it gets from us. A request with one of
the two preconditions that nginx evaluates as well, before it knows that tag, is answered from here:
nginx would refuse it.

What is given up: the file is not looked at again once nginx has it, and a revocation does not cut the
transfer. The outcome record says `handed-off`, and how it ended only nginx's own log can tell.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from gateway.delivery.file_answer import OCTETS
from gateway.delivery.headers import Headers, content_headers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.delivery.file_answer import FileAnswer
    from gateway.model.verdicts import OpenFile

_PASSED_ON = frozenset({b"etag", b"repr-digest"})
_EVALUATED_AGAIN = frozenset({b"if-match", b"if-unmodified-since"})


def handoff_headers(
    plan: FileAnswer, file: OpenFile, prefix: str | None, asked: Iterable[tuple[bytes, bytes]]
) -> Headers | None:
    """The headers that hand this answer to nginx; None when it is ours to give."""
    if prefix is None or file.md5 is None or file.sha256 is None or plan.status == HTTPStatus.NOT_MODIFIED:
        return None
    if any(name in _EVALUATED_AGAIN for name, _ in asked):
        return None
    return [
        *content_headers(OCTETS, 0),
        *(field for field in plan.headers if field[0] in _PASSED_ON),
        (b"x-accel-redirect", f"{prefix}/{file.md5}".encode()),
    ]
