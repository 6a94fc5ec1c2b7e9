"""Choose which headers of a client are sent upstream: a short list, and the one credential.

By default a header is dropped. The list holds what the engine and the server that embeds it send and the
provider uses. Every other header is either ours to write (Host, lengths, encodings, traces), somebody else's
(cookies, forwarding headers), or dangerous: the provider's internal headers switch off checks for callers
that it trusts, and it may trust the network that the gateway is in.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PASSED_ON = frozenset({b"accept", b"user-agent", b"x-allow-chunked", b"x-roboflow-inference-version"})

MAX_VALUE_BYTES = 1024  # a User-Agent of a proxy chain; nothing else on the list comes near
_VALUE = re.compile(rb"[\x20-\x7e]{0,%d}" % MAX_VALUE_BYTES)


def headers_for_upstream(
    headers: Iterable[tuple[bytes, bytes]], credential_header: tuple[bytes, bytes]
) -> tuple[tuple[bytes, bytes], ...]:
    """The headers to send upstream: the listed ones of `headers` (ASGI pairs), then the credential.

    A header that occurs twice is sent once, with its first value; one whose value is no plain text is
    dropped.
    """
    passed: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in PASSED_ON and _VALUE.fullmatch(value):
            passed.setdefault(name, value)
    return (*passed.items(), credential_header)
