"""What `heads.jsonl` lists, in its sequence: how far each chain is covered by how much of the file."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.audit.folder import HEADS_NAME
from gateway.audit.heads_file import parse_listed
from gateway.audit.record import ENDED_BY_OTHERS, LINE_TAIL_BYTES, MAX_LINE_BYTES, hash_tail

if TYPE_CHECKING:
    from pathlib import Path

HASH_CHARACTERS = 32  # of a line's hash that cursors carry
MOST_PENDING = 4096
_BLOCK_BYTES = 256 << 10


class ListedHead(NamedTuple):
    """One line: the records of a chain up to a number are covered by the file up to `end`."""

    end: int
    hash: str
    chain: str
    seq: int


class _Head(msgspec.Struct):
    chain: str
    seq: int
    state: str
    hash: str


_decode = msgspec.json.Decoder(_Head).decode


class ListedHeads:
    """The lines behind an offset, read as the file grows. What does not parse is passed over."""

    def __init__(self, folder: Path, offset: int) -> None:
        self._path = folder / HEADS_NAME
        self._offset = offset
        self.pending: deque[ListedHead] = deque()

    def refresh(self) -> bool:
        """Read on; whether everything is read. A file that is gone or shorter lists nothing more."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            while len(self.pending) < MOST_PENDING:
                block = os.pread(descriptor, _BLOCK_BYTES, self._offset)
                if b"\n" not in block and len(block) == _BLOCK_BYTES:
                    block = os.pread(descriptor, 2 * MAX_LINE_BYTES, self._offset)
                whole = block.rfind(b"\n") + 1
                if not whole:
                    return True
                for line in block[:whole].splitlines(keepends=True):
                    self._offset += len(line)
                    with suppress(ValueError):
                        head = _decode(bytes(parse_listed(line).head))
                        seq = head.seq - (head.state in ENDED_BY_OTHERS)
                        digest = line[-LINE_TAIL_BYTES:].partition(b'"hash":"')[2][:HASH_CHARACTERS].decode()
                        self.pending.append(ListedHead(self._offset, digest, head.chain, seq))
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False


def is_still_listed(folder: Path, listed_bytes: int, listed_hash: str) -> bool:
    """Whether a line of heads.jsonl with this hash (its first half) ends at this offset."""
    if listed_bytes == 0:
        return True
    tail_bytes = len(hash_tail("0" * 64))
    try:
        descriptor = os.open(folder / HEADS_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        tail = os.pread(descriptor, tail_bytes, max(0, listed_bytes - tail_bytes))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return len(listed_hash) == HASH_CHARACTERS and b'"hash":"%b' % listed_hash.encode() in tail
