"""A place in the order of a node's records, as readers keep it: opaque text that goes on being valid.

A place counts in one order, which has an id. An index that was lost is made anew, in another order: there the
place means nothing. So a cursor also says what of `heads.jsonl` it has passed: every record that the first
`listed_bytes` of that file cover lies in front of it. `heads.jsonl` is never cut and survives the index, and
an order that is made anew begins with what it lists, in its sequence. So a reader resumes behind these
records, reads those again that it had read beyond them (seconds of writing), and misses none, whatever clocks
did. `listed_hash` tells whether that file is still the one: else the reader begins at the oldest record.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec

MAX_CURSOR_CHARACTERS = 299
_MAX_NUMBER = 1 << 53
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ORDER = re.compile(r"(?:[0-9a-f]{16})?")
_HASH = re.compile(r"(?:[0-9a-f]{32})?")
_TEXT = re.compile(r"c1\.[A-Za-z0-9_-]+")


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Behind `place` records of an order. Raises `ValueError` for values that no cursor has."""

    node: str
    order: str  # the epoch of an order (`journal.py`); empty: in front of the oldest record of any
    place: int
    listed_bytes: int = 0
    listed_hash: str = ""  # the first half of the hash of the line of heads.jsonl that ends there

    def __post_init__(self) -> None:
        """Refuse what `encode_cursor` never made."""
        numbers_fit = 0 <= self.place < _MAX_NUMBER and 0 <= self.listed_bytes < _MAX_NUMBER
        texts_fit = (
            _NODE.fullmatch(self.node) and _ORDER.fullmatch(self.order) and _HASH.fullmatch(self.listed_hash)
        )
        if not (numbers_fit and texts_fit):
            raise ValueError("not a cursor")


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Cursor).decode


def encode_cursor(cursor: Cursor) -> str:
    """The text of a cursor, for URLs and files."""
    return "c1." + urlsafe_b64encode(_encode(cursor)).decode().rstrip("=")


def parse_cursor(text: str) -> Cursor:
    """The cursor of a text. Raises `ValueError` for every text that `encode_cursor` does not make."""
    if len(text) > MAX_CURSOR_CHARACTERS or not _TEXT.fullmatch(text):
        raise ValueError("not a cursor")
    encoded = text.removeprefix("c1.")
    try:
        cursor = _decode(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, msgspec.DecodeError) as error:
        raise ValueError("not a cursor") from error
    if encode_cursor(cursor) != text:  # one text for each cursor
        raise ValueError("not a cursor")
    return cursor
