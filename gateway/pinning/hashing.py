"""Hash an open file in one pass: MD5 and SHA-256.

MD5 is the engine's name for it, SHA-256 our proof. The stat identity is taken before and after: a file that
changed while it was read gives None.

It runs in a thread. Reading and hashing release the interpreter lock for a megabyte at a time, which is about
two milliseconds; `keep_going` is called between two steps, so that stopping does not wait for the end of a
large file.
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
    """Hash the open file; None when it changed meanwhile, or `keep_going` returned False.

    `keep_going` is given how many bytes were read since its last call.
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
