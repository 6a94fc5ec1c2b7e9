"""Which headers of a client go upstream with its question: a short list, and the one credential.

The default is to drop. The list is what the engine and the server that embeds it send of their own
and the provider makes use of. Everything else is either ours to write (Host, lengths, encodings,
traces), somebody else's (cookies, forwarding headers), or dangerous: the provider's internal headers
switch off checks for whoever it trusts, and it may trust the network that the gateway stands in.

An operator can add names, for the headers that `ROBOFLOW_API_EXTRA_HEADERS` gives the engine. What is
in `NEVER_FROM_OUTSIDE`, and whatever carries a credential, stays out even then.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PASSED_ON = frozenset({b"accept", b"user-agent", b"x-allow-chunked", b"x-roboflow-inference-version"})

NEVER_FROM_OUTSIDE = frozenset(
    {
        b"x-enforce-internal-artefacts-urls",
        b"x-enforce-credits-verification",
        b"x-roboflow-internal-service-secret",
        b"authorization",
        b"proxy-authorization",
        b"x-api-key",
        b"cookie",
        b"host",
        b"connection",
        b"content-length",
        b"transfer-encoding",
    }
)
"""Internal switches, credentials that nobody authenticated, and what frames a request."""

MAX_VALUE_BYTES = 1024  # a User-Agent of a proxy chain; nothing else on the list comes near
_VALUE = re.compile(rb"[\x20-\x7e]{0,%d}" % MAX_VALUE_BYTES)


def headers_for_upstream(
    headers: Iterable[tuple[bytes, bytes]],
    credential_header: tuple[bytes, bytes],
    *,
    also: frozenset[bytes] = frozenset(),
) -> tuple[tuple[bytes, bytes], ...]:
    """What to send upstream: what may pass of `headers` (ASGI pairs), then the credential.

    A header that came twice goes once, as it came first; one whose value is no plain text is dropped.
    """
    allowed = (PASSED_ON | also) - NEVER_FROM_OUTSIDE
    passed: dict[bytes, bytes] = {}
    for name, value in headers:
        # Underscores are dashes to a CGI-style reader behind us: such a name is never on the list.
        if name in allowed and b"_" not in name and _VALUE.fullmatch(value):
            passed.setdefault(name, value)
    return (*passed.items(), credential_header)
