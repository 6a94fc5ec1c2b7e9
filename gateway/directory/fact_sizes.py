"""What a decoded fact holds: for whoever remembers it, so that memory is charged what it keeps alive.

A fact is up to fifteen times as large as its record: a name of two characters is three bytes there and an
object here, and one character beyond the basic plane makes a whole text four times as wide. So it is
counted, once, when it is decoded: its objects by their number, its longer texts by their size. Measured,
and rounded up.
"""

from __future__ import annotations

from sys import getsizeof

from gateway.model.facts import Alias, Grants, Key, ModelRule

FACT_BYTES = 250  # of any fact with its fixed fields, but for a key
KEY_BYTES = 600
GRANT_BYTES = 200  # of one grant, without the names in it
NAME_BYTES = 20  # of a name's place, beside its text
DIGEST_BYTES = 120  # of one digest in a set of them
WIDEST = 4  # bytes of a character, for one in the record


def held_bytes(fact: object, raw: bytes) -> int:
    """What this fact holds that was decoded from these bytes."""
    match fact:
        case Grants():
            names = [name for one in fact.grants for name in (*one.models, *one.groups, *one.packages)]
            return FACT_BYTES + GRANT_BYTES * len(fact.grants) + NAME_BYTES * len(names) + _texts(names)
        case ModelRule():
            return FACT_BYTES + NAME_BYTES * len(fact.groups) + _texts([fact.pattern, *fact.groups])
        case Alias():
            return FACT_BYTES + _texts([fact.alias, fact.canonical])
        case Key():
            return KEY_BYTES + NAME_BYTES * len(fact.networks) + _texts([fact.name, *fact.networks])
        case frozenset():
            return FACT_BYTES + DIGEST_BYTES * len(fact)
    return FACT_BYTES + WIDEST * len(raw)


def _texts(texts: list[str]) -> int:
    return sum(map(getsizeof, texts))
