"""Verify the signature of a webhook: that the platform sent this body, and that it did so recently.

    Cachegate-Signature: t=<seconds since the epoch>,v1=<hex HMAC-SHA-256(hook key, "<t>.<body>")>

The platform and we share the hook key, a file in the state folder. The signature covers the time: a replayed
body is refused after five minutes. Within them it is accepted again, because senders retry when they get no
answer; so what a webhook requests must be idempotent.
"""

from __future__ import annotations

import hmac
import re

from gateway.model.errors import Reason, Refusal

MAX_AGE_SECONDS = 300  # and as much in the future, for clocks that differ

_HEADER = re.compile(rb"t=([1-9][0-9]{0,11}),v1=([0-9a-f]{64})")


def verify_hook(secret: bytes, header: bytes | None, body: bytes, now: float) -> None:
    """Raises `Refusal(BAD_HOOK_SIGNATURE)` unless this body was signed with this key, and recently."""
    parts = None if header is None else _HEADER.fullmatch(header)
    if parts is None:
        raise Refusal(Reason.BAD_HOOK_SIGNATURE)
    expected = hmac.digest(secret, parts[1] + b"." + body, "sha256")
    is_ours = hmac.compare_digest(expected, bytes.fromhex(parts[2].decode("ascii")))
    if not (is_ours and abs(now - int(parts[1])) <= MAX_AGE_SECONDS):
        raise Refusal(Reason.BAD_HOOK_SIGNATURE)
