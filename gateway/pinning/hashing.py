"""Measure: read an open file whole, once, and say what it holds.

MD5, the engine's name for it, and SHA-256, our proof, come from one pass. The identity is taken
before and after: content that changed under the reading is no content at all, and gives None.

It runs in a thread. Reading and hashing both let go of the interpreter for a megabyte at a time, which
is about two milliseconds; `keep_going` is asked between two of them, so that nobody has to wait for
the end of a large file.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from gateway.model.errors import Reason, Unavailable
from gateway.model.pins import Measured, identity_of

if TYPE_CHECKING:
    from collections.abc import Callable

STEP_BYTES = 1 << 20


def measure(descriptor: int, *, keep_going: Callable[[int], bool] = lambda _step: True) -> Measured | None:
    """What the open file holds; None when it changed meanwhile, or `keep_going` said no.

    `keep_going` is told how many bytes were read since it was asked last.
    """
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    buffer = memoryview(bytearray(STEP_BYTES))
    offset = 0
    try:
        identity = identity_of(os.fstat(descriptor))
        while count := os.preadv(descriptor, [buffer], offset):
            md5.update(buffer[:count])
            sha256.update(buffer[:count])
            offset += count
            if not keep_going(count):
                return None
        if identity_of(os.fstat(descriptor)) != identity or offset != identity[2]:
            return None
    except OSError as error:
        raise Unavailable("cache", f"a file cannot be read: {error.strerror}", Reason.NOT_PINNED) from error
    return Measured(identity=identity, md5=md5.hexdigest(), sha256=sha256.hexdigest())
