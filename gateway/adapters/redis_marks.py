"""Marks identify a history of the facts: a random value per generation, checked before every write.

Each commit makes a random mark for its generation. The hash `generation` holds the counter, the mark of the
last commit, the history id, the size of the group, and the longest lease that any worker was started with, in
milliseconds (`redis_fleet.py`); the marks of past generations are stored in blocks of 256. A node keeps the
newest moment that it is sure of (`history_file.py`). A server has the same history exactly when it has that
mark at that generation: a server that was restored from an older copy, or took over without the last changes,
has another mark there or none, however far its counter advanced since.

Every script that writes begins with `CHECK`, so that nothing is written to a server with another history. Its
keys and arguments come from `check_keys` and `check_arguments`.

Non-goal: deciding what is noted (`directory/memory/follower.py`).
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from gateway.model.errors import Unavailable
from gateway.model.stores import GroupSize, Moment

if TYPE_CHECKING:
    from collections.abc import Sequence

GENERATION = b"{cachegate}:generation"
"""A hash outside the prefix of the facts; every change of a fact changes it."""

MARKS = b"{cachegate}:marks:"
COUNTER, MARK, HISTORY, GROUP = b"counter", b"mark", b"history", b"group"
_COUNTER = re.compile(rb"[0-9]{1,19}")  # HINCRBY's format; `int` would accept signs, blanks, underscores
_SERVERS = re.compile(rb"[1-9][0-9]{0,5}")

SET_BY_OPERATOR = b"s"  # suffix of the group's size

MARK_CHARACTERS = 16  # 64 random bits in hex: two commits do not share one by accident
MARKS_PER_BLOCK = 256
MAX_BLOCKS = 4096  # 2**20 marks, 16 MiB: with the canary's writes alone a node may be off for 12 days

CHECK = b"""
local g = redis.call('HMGET', KEYS[1], 'counter', 'mark', 'history', 'group')
local known = 1
if ARGV[1] ~= '' then
    if (g[3] or '') ~= ARGV[1] or (tonumber(g[1] or '0') or 0) < tonumber(ARGV[2]) then
        known = 0
    elseif ARGV[3] ~= '' and redis.call('GETRANGE', KEYS[2], ARGV[4], ARGV[4] + 15) ~= ARGV[3] then
        known = 0
    end
end
"""
"""Sets `g` to the generation's fields and `known` to whether the noted moment is in this server's past.

A note of a version that had no marks has an empty mark; only history and counter are compared then.
"""

VERIFY = CHECK + b"return {known, g[1], g[2], g[3], g[4]}"


def new_mark() -> str:
    """Make a mark for a commit."""
    return secrets.token_hex(MARK_CHARACTERS // 2)


def block_of(generation: int) -> bytes:
    """Return the block that holds the mark of a generation."""
    return MARKS + b"%d" % (generation // MARKS_PER_BLOCK)


def offset_of(generation: int) -> int:
    """Return the offset of a mark in its block."""
    return generation % MARKS_PER_BLOCK * MARK_CHARACTERS


def check_keys(note: Moment | None) -> tuple[bytes, bytes]:
    """Return the first two keys of a script that begins with `CHECK`."""
    return GENERATION, block_of(note.generation if note is not None else 0)


def check_arguments(note: Moment | None) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the first four arguments of a script that begins with `CHECK`."""
    if note is None:
        return b"", b"0", b"", b"0"
    generation = note.generation
    return note.history.encode(), b"%d" % generation, note.mark.encode(), b"%d" % offset_of(generation)


def parse_moment(fields: Sequence[Any]) -> Moment:
    """Parse counter, mark and history into a moment."""
    counter, mark, history = fields
    return Moment(history=_text(history), generation=counted(counter), mark=_text(mark))


def parse_group(raw: bytes | None) -> GroupSize | None:
    """Parse the number of servers in the group; None if it was never stored."""
    number = (raw or b"").removesuffix(SET_BY_OPERATOR)
    if not _SERVERS.fullmatch(number):
        return None
    return GroupSize(servers=int(number), is_set=number != raw)


def encode_group(group: GroupSize) -> bytes:
    """Encode the group's size as its hash field."""
    return b"%d%s" % (group.servers, SET_BY_OPERATOR if group.is_set else b"")


def counted(raw: bytes | None) -> int:
    """Parse the generation counter; 0 if there is none yet."""
    if raw is None:
        return 0
    if not _COUNTER.fullmatch(raw):
        raise Unavailable("redis", "the generation counter is not a number")
    return int(raw)


def _text(raw: Any) -> str:
    return raw.decode("ascii", "replace") if isinstance(raw, bytes) else ""
