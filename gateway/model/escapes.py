"""Strict percent-decoding, once: for paths, queries and URLs that something is decided by.

`urllib` leaves a broken escape unchanged and replaces bytes that are not UTF-8. Either lets one text mean two
things, to us and to the next parser, so both are refused here.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from gateway.model.errors import BadNameError

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def verify_escapes(raw: bytes) -> None:
    """Raises `BadNameError` unless every percent sign begins a whole escape."""
    if _BROKEN_ESCAPE.search(raw):
        raise BadNameError("a percent sign is not followed by two hex digits")


def decode_once(raw: bytes) -> str:
    """One round of decoding, to strict UTF-8 (no overlong form, no surrogate)."""
    verify_escapes(raw)
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadNameError("not UTF-8 once decoded") from error
