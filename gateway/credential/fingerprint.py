"""A fingerprint: everything of a request that `extract` reads, as a digest.

Two requests with one fingerprint carry the same credential, or fail to in the same way. So what was
found out for one of them may be remembered for the other, and memory need not hold a key for it (I8):
a digest of a key of ours, which is random, gives nobody the key.

The fields go in with their names and lengths, in their order: what `extract` could tell apart has
another fingerprint.
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
