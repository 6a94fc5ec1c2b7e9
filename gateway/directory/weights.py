"""What a decoded fact holds: for whoever remembers it, so that memory is charged what it keeps alive.

A fact is up to fifteen times as large as its record: a name of two characters is three bytes there and an
object here. So it is counted, once, when it is decoded: its objects by their number, their characters by
the length of the record, in which all of them stand. Measured, and rounded up.
"""

from __future__ import annotations

from gateway.model.facts import Grants, Key, ModelRule

FACT_BYTES = 250  # of any fact with its fixed fields, but for a key
KEY_BYTES = 600
GRANT_BYTES = 200  # of one grant, without the names in it
NAME_BYTES = 70  # of one name, without its characters
DIGEST_BYTES = 110  # of one digest in a set of them


def held_bytes(fact: object, raw: bytes) -> int:
    """What this fact holds that was decoded from these bytes."""
    # A character beyond Latin-1 widens all the characters beside it: twice the record is the middle.
    return 2 * len(raw) + _object_bytes(fact)


def _object_bytes(fact: object) -> int:
    match fact:
        case Grants():
            names = sum([len(one.models) + len(one.groups) + len(one.packages) for one in fact.grants])
            return FACT_BYTES + GRANT_BYTES * len(fact.grants) + NAME_BYTES * names
        case ModelRule():
            return FACT_BYTES + NAME_BYTES * len(fact.groups)
        case Key():
            return KEY_BYTES + NAME_BYTES * len(fact.networks)
        case frozenset():
            return FACT_BYTES + DIGEST_BYTES * len(fact)
    return FACT_BYTES
