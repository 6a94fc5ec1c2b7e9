"""The position of one process's chain: what is written to the file, and what is sealed but not yet written.

Sealing a record gives it its sequence number and the hash of the record before it; the position is final
once the line is in the file. Several records may be sealed before one write. Records that nobody waits for
are deferred: they are written in front of the next record. A record carries the time at which it is
written, so that times ascend as the clock does. A fault rolls back everything that was not written, so that
the last record in the file is again the last of the chain: deferred records stay queued, the others
are dropped.

The hashes of the records since the last head are kept for the Merkle root that the next head contains.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from gateway.audit.merkle import root_of
from gateway.audit.record import HASH_TAIL, ChainPosition, seal
from gateway.audit.record_body import SEALED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.audit.record_body import Body

    Ready = tuple[str, Body]
    """A record without its time and position: its id, and the rest."""


class Chain:
    """The state of the chain being written; `links` is the position of the next record."""

    def __init__(self) -> None:
        self.links = ChainPosition("")
        self.unwritten = b""  # sealed lines of deferred records
        self._hashes: list[bytes] = []  # of the records since the last head
        self._note_position()
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

    def start(self, name: str) -> ChainPosition:
        """Begin another chain. Deferred records are written to it."""
        self.roll_back()
        self.links = ChainPosition(name)
        self._hashes = []
        self._note_position()
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
        self._hashes.append(bytes.fromhex(digest))
        return line

    def seal_head(self, covered: bytes) -> bytes:
        """Seal the next head, which contains `tree`: the records after it are of another tree."""
        line = self.seal(covered)
        self._hashes = []  # another list: rolling back returns to the one before
        return line

    def tree(self) -> tuple[int, str]:
        """The size and the root of the tree over the records since the last head."""
        return len(self._hashes), root_of(self._hashes).hex()

    def seal_all(self, records: Iterable[Ready], time: str) -> bytes:
        """Seal the next records, all with this time, and return their lines."""
        links, sealed, tail, hashes = self.links, SEALED, HASH_TAIL, self._hashes
        chain, at, seq, hashed = links.chain.encode(), time.encode(), links.seq, links.hash.encode()
        pieces: list[bytes] = []
        for record_id, (first, second, third, fourth, fifth, last) in records:
            seq += 1
            covered = sealed % (
                first,
                chain,
                second,
                record_id.encode(),
                third,
                hashed,
                fourth,
                seq,
                fifth,
                at,
                last,
            )
            digest = sha256(covered).digest()
            hashes.append(digest)
            hashed = digest.hex().encode()
            # The line of `seal`, in pieces that are joined once: without the brace at the end.
            pieces += (covered[:-1], tail % hashed)
        links.seq, links.hash = seq, hashed.decode()
        return b"".join(pieces)

    def note_written(self) -> None:
        """Take note that all sealed lines are in the file."""
        self._note_position()
        self._sealed, self.unwritten = [], b""

    def _note_position(self) -> None:
        self._written = self.links.seq, self.links.hash
        self._written_hashes = self._hashes, len(self._hashes)

    def roll_back(self) -> None:
        """Return to the last written position and requeue the deferred records that were sealed."""
        self.links.seq, self.links.hash = self._written
        self._hashes, count = self._written_hashes
        del self._hashes[count:]
        self._waiting = self._sealed + self._waiting
        self._sealed, self.unwritten = [], b""
