"""Which headers of a client go upstream with its question: a short list, and the one credential.

The default is to drop. The list is what the engine and the server that embeds it send of their own
and the provider makes use of. Everything else is either ours to write (Host, lengths, encodings,
traces), somebody else's (cookies, forwarding headers), or dangerous: the provider's internal headers
switch off checks for whoever it trusts, and it may trust the network that the gateway stands in.
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
    """What to send upstream: what may pass of `headers` (ASGI pairs), then the credential.

    A header that came twice goes once, as it came first; one whose value is no plain text is dropped.
    """
    passed: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in PASSED_ON and _VALUE.fullmatch(value):
            passed.setdefault(name, value)
    return (*passed.items(), credential_header)
