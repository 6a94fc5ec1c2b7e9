"""What all records in Redis have in common, the types of their fields, and the two records of a policy set.

A record is one fact of `facts.py`, `pins.py` or `rulings.py`, and the class of the fact is its layout: an
array of the kind's number (`tag`), the layout's version, the generation of the last change, then the fields
in the order of the class. To change a kind, add a layout 2 beside layout 1 and read both; numbers of kinds
and the order of fields never get a new meaning. The types bound what is accepted from Redis. They are not
checked where our own code makes a fact.

Non-goal: encoding and decoding (`directory/records/codec.py`).
"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import msgspec

SOURCE_CLI = "cli"
"""The source of facts that an operator wrote by command."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
Time = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
"""Seconds since the epoch. NaN fails every comparison: a key that expires at NaN would never expire."""


class Record(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The base of all kinds; `replace` with the generation of a transaction before it is written."""

    layout: Literal[1] = 1
    generation: Count = 0


class PolicyHead(Record, frozen=True, kw_only=True, tag=6):
    """The policy set in force: its digest, and the digest that names the record of its texts."""

    source: Text
    digest: Text
    text_digest: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class PolicyTexts(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True, tag=7
):
    """The policy texts, stored under the SHA-256 of this record: immutable, so without a generation."""

    layout: Literal[1] = 1
    schema: str
    policies: tuple[tuple[str, str], ...]
