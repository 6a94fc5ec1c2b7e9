"""Verify what is pushed: accepts(secret, headers, body) says whether a delivery is ours and new enough."""

import hashlib
import hmac
import time


def accepts(secret: bytes, headers: dict[str, str], body: bytes, now: float | None = None) -> bool:
    """Header names in small letters. Answer 2xx once the records are stored, and skip ids that you have."""
    stamp, delivery = headers["cachegate-timestamp"], headers["cachegate-delivery"]
    signed = f"{stamp}.{delivery}.".encode() + body
    expected = "v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()
    given = headers["cachegate-signature"].split(",")
    is_signed = any([hmac.compare_digest(expected.encode(), one.encode()) for one in given])
    return is_signed and abs((time.time() if now is None else now) - int(stamp)) < 300
