"""Cursors as readers get them: sealed, so that they tell nothing, and bound to their node and their reader.

A cursor of the index holds a place in the order of all records of the node. To a tenant, the places of two
of its records would tell how many requests all others made between them. So what readers get is encrypted:

    base64url( version | nonce | AES-SIV of the cursor's text, padded to one length )

The key is this node's alone, made once, in its state folder; the nonce is random. Two cursors of one place
differ, so that it cannot be seen either whether anything happened between two polls. AES-SIV (RFC 5297) stays
sound if a nonce ever repeats, so there is no number of cursors after which the key has to be changed: a
cursor is good for as long as the node has its key. The reader it was made for (all of the log, or a tenant's
record) is authenticated with it: with another reader's cursor there is no answer.

Non-goals: it is no credential. Whoever has a cursor still needs a key to read.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from gateway.audit.index import encode_cursor, parse_cursor

if TYPE_CHECKING:
    from gateway.audit.index import Cursor

VERSION = b"\x01"
NONCE_BYTES = 16
TAG_BYTES = 16
PADDED_BYTES = 128  # a cursor's text is padded to a multiple: its length would tell the digits of its place
MAX_TEXT = 700  # of what a client sends as one; ours have at most 480 characters

_TEXT = re.compile(r"[A-Za-z0-9_-]+")
_LABEL = b"cachegate-feed-cursor"


class CursorSeal:
    """Seals and opens the cursors of one node."""

    def __init__(self, key: bytes) -> None:
        """`key` has 32 bytes."""
        self._cipher = AESSIV(key)

    def seal(self, cursor: Cursor, reader: str) -> str:
        """The text that a reader gets."""
        text = encode_cursor(cursor).encode("ascii")
        padded = text + bytes(-len(text) % PADDED_BYTES)
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._cipher.encrypt(padded, [_LABEL, VERSION, reader.encode(), nonce])
        return urlsafe_b64encode(VERSION + nonce + sealed).rstrip(b"=").decode("ascii")

    def open(self, text: str, reader: str) -> Cursor:
        """The cursor in a text. Raises `ValueError` for what this node did not seal for this reader."""
        if len(text) > MAX_TEXT or not _TEXT.fullmatch(text) or len(text) % 4 == 1:
            raise ValueError("this is no cursor")
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        nonce, sealed = raw[1 : 1 + NONCE_BYTES], raw[1 + NONCE_BYTES :]
        if raw[:1] != VERSION or len(sealed) <= TAG_BYTES:
            raise ValueError("this is no cursor")
        try:
            padded = self._cipher.decrypt(sealed, [_LABEL, VERSION, reader.encode(), nonce])
        except InvalidTag as error:
            raise ValueError("this is a cursor of another node or another reader") from error
        return parse_cursor(padded.rstrip(b"\0").decode("ascii"))
