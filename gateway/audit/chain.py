"""The position of one process's chain: what is written to the file, and what is sealed but not yet written.

Sealing a record gives it its sequence number and the hash of the record before it; the position is final
once the line is in the file. Several records may be sealed before one write. Records that nobody waits for
are deferred: they are written in front of the next record. A record carries the time at which it is
written, so that times ascend as the clock does. A fault rolls back everything that was not written, so that
the last record in the file is again the last of the chain: deferred records stay queued, the others
are dropped.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from gateway.audit.envelope import opening
from gateway.audit.record import Links, hash_tail, seal

if TYPE_CHECKING:
    from collections.abc import Iterable

    Ready = tuple[str, str, bytes]
    """A record without its time and position: kind, id, tail."""


class Chain:
    """The state of the chain being written; `links` is the position of the next record."""

    def __init__(self) -> None:
        self.links = Links("")
        self.unwritten = b""  # sealed lines of deferred records
        self._written = self.links.seq, self.links.hash
        self._waiting: list[Ready] = []
        self._sealed: list[Ready] = []

    @property
    def is_behind(self) -> bool:
        """Whether a deferred record is not yet written."""
        return bool(self._waiting or self._sealed)

    @property
    def waiting(self) -> int:
        """How many deferred records are not yet written."""
        return len(self._waiting) + len(self._sealed)

    def start(self, name: str) -> Links:
        """Begin another chain. Deferred records are written to it."""
        self.roll_back()
        self.links = Links(name)
        self._written = self.links.seq, self.links.hash
        return self.links

    def leave(self, records: Iterable[Ready]) -> None:
        """Defer records: they are written in front of the next one."""
        self._waiting += records

    def take_waiting(self) -> list[Ready]:
        """The deferred records that are not sealed. The caller seals them; `roll_back` requeues them."""
        waiting, self._waiting = self._waiting, []
        self._sealed += waiting
        return waiting

    def seal(self, covered: bytes) -> bytes:
        """Seal the next record and return its line."""
        line, digest = seal(covered)
        self.links.seq += 1
        self.links.hash = digest
        return line

    def seal_all(self, records: Iterable[Ready], time: str) -> bytes:
        """Seal the next records, all with this time, and return their lines."""
        links = self.links
        pieces: list[bytes] = []
        for kind, record_id, tail in records:
            opened = opening(kind, record_id, links, time)
            digest = sha256(opened)
            digest.update(tail)
            links.seq += 1
            links.hash = hashed = digest.hexdigest()
            # The line of `seal`, in pieces that are joined once: without the brace at the end of the tail.
            pieces += (opened, tail[:-1], hash_tail(hashed))
        return b"".join(pieces)

    def note_written(self) -> None:
        """Take note that all sealed lines are in the file."""
        self._written = self.links.seq, self.links.hash
        self._sealed, self.unwritten = [], b""

    def roll_back(self) -> None:
        """Return to the last written position and requeue the deferred records that were sealed."""
        self.links.seq, self.links.hash = self._written
        self._waiting = self._sealed + self._waiting
        self._sealed, self.unwritten = [], b""
