"""Estimates the memory that a decoded fact holds, so that caches can be bounded by bytes.

A fact is up to fifteen times as large as its record: a name of two characters is three bytes in a record and
an object in memory, and one character outside the basic plane makes a whole string four times as wide. So the
size is computed once, when the fact is decoded: objects by their count, longer strings by their size. The
constants were measured and rounded up.
"""

from __future__ import annotations

from sys import getsizeof

from gateway.model.facts import Alias, Grants, Key, ModelRule, Tenant
from gateway.model.issuers import Issuer

FACT_BYTES = 250  # of any fact with its fixed fields, except a key
KEY_BYTES = 600
GRANT_BYTES = 200  # of one grant, without its names
TIMES_BYTES = 64  # of the times of a grant that has some
NAME_BYTES = 20  # of a reference to a name, without its text
TEXT_BYTES = 70  # of one text in a list, without its characters
DIGEST_BYTES = 120  # of one digest in a set
WIDEST = 4  # bytes per character, for one byte in the record


def held_bytes(fact: object, raw: bytes) -> int:  # noqa: PLR0911 -- one for each kind
    """Return the bytes that this fact, decoded from `raw`, holds in memory."""
    match fact:
        case Grants():
            names = [name for one in fact.grants for name in (*one.models, *one.groups, *one.packages)]
            times = TIMES_BYTES * sum(one.has_times for one in fact.grants)
            return (
                FACT_BYTES + times + GRANT_BYTES * len(fact.grants) + NAME_BYTES * len(names) + _texts(names)
            )
        case ModelRule():
            return FACT_BYTES + NAME_BYTES * len(fact.groups) + _texts([fact.pattern, *fact.groups])
        case Alias():
            return FACT_BYTES + _texts([fact.alias, fact.canonical])
        case Key():
            return (
                KEY_BYTES
                + NAME_BYTES * len(fact.networks)
                + _texts([fact.name, fact.life.revoked_for, *fact.networks])
            )
        case Issuer():
            values = [text for rule in fact.rules for one in rule.claims for text in one.values]
            return FACT_BYTES + GRANT_BYTES * 2 * len(fact.rules) + TEXT_BYTES * len(values) + len(raw)
        case frozenset():
            return FACT_BYTES + DIGEST_BYTES * len(fact)
    texts = len(fact.image_hosts) + len(fact.allows) if isinstance(fact, Tenant) else 0
    return FACT_BYTES + WIDEST * len(raw) + TEXT_BYTES * texts


def _texts(texts: list[str]) -> int:
    return sum(map(getsizeof, texts))
