"""Evaluates the preconditions If-Match, If-None-Match and If-Range, by RFC 9110, section 13.

The only validator is the entity tag made of the SHA-256; it is strong. There is no modification date, since
the mtime of a file in the cache says when it was downloaded. So If-Modified-Since and If-Unmodified-Since
are ignored (13.1.3, 13.1.4), and a date in If-Range matches nothing (13.1.5).

A list that does not parse names no tag: then If-Match fails, If-None-Match sends the whole file, and
If-Range ignores the Range. In no case does a client get bytes that it takes for something else.
Evaluated after an allow only; nothing here raises.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_FIELD_BYTES = 4096  # about sixty of our tags; clients ask about one. Bounds the work for one request

_ENTITY_TAG = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')  # 8.8.3; it may contain a comma
_BETWEEN = re.compile(rb"[ \t]*(?:,[ \t]*)+|[ \t]*\Z")  # 5.6.1: empty members are skipped


class Condition(Enum):
    """The result of the preconditions of a GET or HEAD."""

    MET = auto()
    NOT_MODIFIED = auto()
    FAILED = auto()
    UNDECIDABLE = auto()  # If-Match names tags, and the file has none yet


class NamedTags(msgspec.Struct, frozen=True, kw_only=True):
    """The tags that a field names: any tag at all, or these. Each is kept with its quotes."""

    is_any: bool = False
    strong: frozenset[bytes] = frozenset()
    weak: frozenset[bytes] = frozenset()

    def names(self, tag: bytes) -> bool:
        """Whether the field names this tag, by weak comparison (8.8.3.2): the W/ prefix does not count."""
        return tag in self.strong or tag in self.weak


NOTHING = NamedTags()


def entity_tags(lines: Sequence[bytes]) -> NamedTags:
    """The tags that the lines of one field name together; none if they do not parse or are too long."""
    raw = b", ".join(lines)
    if len(raw) > MAX_FIELD_BYTES:
        return NOTHING
    if raw == b"*":
        return NamedTags(is_any=True)
    found: dict[bool, set[bytes]] = {True: set(), False: set()}
    start = _BETWEEN.match(raw)
    position = start.end() if start else 0
    while position < len(raw):
        tag = _ENTITY_TAG.match(raw, position)
        after = _BETWEEN.match(raw, tag.end()) if tag else None
        if tag is None or after is None:
            return NOTHING
        found[tag[1] is None].add(tag[2])
        position = after.end()
    return NamedTags(strong=frozenset(found[True]), weak=frozenset(found[False]))


def evaluate(asked: Mapping[bytes, Sequence[bytes]], etag: bytes | None) -> Condition:
    """Evaluate If-Match, then If-None-Match (13.2.2). `etag` is None for a file not yet pinned."""
    if b"if-match" in asked:
        wanted = entity_tags(asked[b"if-match"])
        if not wanted.is_any and etag not in wanted.strong:
            may_match_later = etag is None and wanted.strong
            return Condition.UNDECIDABLE if may_match_later else Condition.FAILED
    if b"if-none-match" in asked:
        held = entity_tags(asked[b"if-none-match"])
        if held.is_any or (etag is not None and held.names(etag)):
            return Condition.NOT_MODIFIED
    return Condition.MET


def may_use_range(asked: Mapping[bytes, Sequence[bytes]], etag: bytes) -> bool:
    """Whether If-Range, if there is one, lets a Range apply (13.1.5): one tag, strongly equal."""
    return asked.get(b"if-range", [etag]) == [etag]
