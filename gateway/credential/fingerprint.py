"""Compute the fingerprint of a request: a digest of everything that `extract` reads.

Two requests with the same fingerprint have the same credential, or lack one in the same way. So a result for
one of them may be cached for the other, and the cache needs no key in memory (I8): the digest of one of our
keys, which are random, does not reveal it.

Fields are hashed with their names and lengths, in their order: requests that `extract` could distinguish
have different fingerprints.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_READ = frozenset({b"authorization", b"x-api-key"})


def fingerprint(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> bytes:
    """The fingerprint of a request. `headers` are ASGI pairs: lower-case name, raw value."""
    read = sha256(query)
    for name, value in headers:
        if name in _READ:
            read.update(b"\n%b %d " % (name, len(value)))
            read.update(value)
    return read.digest()
