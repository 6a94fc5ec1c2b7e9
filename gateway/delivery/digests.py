"""The HTTP fields that carry a file's SHA-256: the entity tag, and Repr-Digest by RFC 9530.

The digest is of the representation, so it is the same for the whole file, for a range of it and for HEAD.
It is always sent, because it costs nothing, unless Want-Repr-Digest says that it is not wanted.
Non-goal: other algorithms. Hashing terabytes a second time would serve no known client.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ALGORITHM = b"sha-256"
MAX_FIELD_BYTES = 1024  # room for every registered algorithm with a preference; bounds the work of a request

_KEY = rb"[a-z*][a-z0-9_.*-]*"
_PARAMETER = rb'; *%b(?:=(?:[A-Za-z0-9*:/._+-]+|"[\x20\x21\x23-\x5b\x5d-\x7e]*"))?' % _KEY
# A dictionary of integers (RFC 9651, 3.2): the preferences of RFC 9530, section 4.
_PREFERENCE = re.compile(rb"(%b)=(-?[0-9]{1,15})(?:%b)*" % (_KEY, _PARAMETER))
_COMMA = re.compile(rb"[ \t]*,[ \t]*")


def entity_tag(sha256: str) -> bytes:
    """The strong validator: equal if and only if the bytes are."""
    return b'"%b"' % sha256.encode()


def repr_digest(sha256: str) -> bytes:
    """The value of Repr-Digest."""
    return b"%b=:%b:" % (ALGORITHM, b64encode(bytes.fromhex(sha256)))


def is_digest_wanted(lines: Sequence[bytes]) -> bool:
    """Whether Want-Repr-Digest allows SHA-256: a weight of 0 refuses it.

    A field that is no dictionary of integers is ignored as a whole (RFC 9651, 4.2), as is one longer than
    `MAX_FIELD_BYTES`. What the field says about other algorithms is ignored too.
    """
    raw, weight, position = b", ".join(lines), 1, 0
    if len(raw) > MAX_FIELD_BYTES:
        return True
    while preference := _PREFERENCE.match(raw, position):
        if preference[1] == ALGORITHM:
            weight = int(preference[2])  # of repeated members, the last counts
        if preference.end() == len(raw):
            return weight != 0
        comma = _COMMA.match(raw, preference.end())
        if comma is None:
            break
        position = comma.end()
    return True
