"""What the SHA-256 of a file is on the wire: its entity tag, and its digest by RFC 9530.

The digest is of the representation, so it is the same on the whole file, on a range of it and on
HEAD. It is always sent, because it costs nothing, unless Want-Repr-Digest says that it is not wanted.
Not here: other algorithms. A second hash of terabytes for nobody's sake is work without a use.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ALGORITHM = b"sha-256"
MAX_FIELD_BYTES = 1024  # every algorithm that has a name, with a preference; bounds the work for one request

_KEY = rb"[a-z*][a-z0-9_.*-]*"
_PARAMETER = rb'; *%b(?:=(?:[A-Za-z0-9*:/._+-]+|"[\x20\x21\x23-\x5b\x5d-\x7e]*"))?' % _KEY
# A dictionary of integers (RFC 9651, 3.2): the preferences of RFC 9530, section 4.
_PREFERENCE = re.compile(rb"(%b)=(-?[0-9]{1,15})(?:%b)*" % (_KEY, _PARAMETER))
_COMMA = re.compile(rb"[ \t]*,[ \t]*")


def entity_tag(sha256: str) -> bytes:
    """The strong validator: equal when, and only when, the bytes are."""
    return b'"%b"' % sha256.encode()


def repr_digest(sha256: str) -> bytes:
    """The value of Repr-Digest."""
    return b"%b=:%b:" % (ALGORITHM, b64encode(bytes.fromhex(sha256)))


def is_digest_wanted(lines: Sequence[bytes]) -> bool:
    """Whether Want-Repr-Digest leaves room for SHA-256: a weight of 0 refuses it.

    A field that is no dictionary of integers is ignored as a whole (RFC 9651, 4.2), as is one that is
    longer than any client's, and so is what it says of algorithms that we do not have.
    """
    raw, weight, position = b", ".join(lines), 1, 0
    if len(raw) > MAX_FIELD_BYTES:
        return True
    while preference := _PREFERENCE.match(raw, position):
        if preference[1] == ALGORITHM:
            weight = int(preference[2])  # of several, the last counts
        if preference.end() == len(raw):
            return weight != 0
        comma = _COMMA.match(raw, preference.end())
        if comma is None:
            break
        position = comma.end()
    return True
