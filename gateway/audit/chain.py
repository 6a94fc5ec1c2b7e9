"""Where one process's chain stands: in the file, and ahead of it by what is not written yet.

A record gets its place in the chain when its line is sealed, and keeps it only once the line is in the
file. Several may be sealed before one write; and records that nobody waits for may be left here, to go
out in front of the next one. A record's time is that of its writing, so that times ascend as the clock
does. A fault takes everything back that was not written, so that the file's last record is the chain's
last again: what was left waits on, what was refused is forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.audit.envelope import enveloped
from gateway.audit.record import Links, seal

if TYPE_CHECKING:
    from collections.abc import Iterable

    Ready = tuple[str, str, bytes]
    """A record but for its time and place: kind, id, tail."""


class Chain:
    """One chain at a time; `links` is where the next record stands."""

    def __init__(self) -> None:
        self.links = Links("")
        self.unwritten = b""  # lines of what was left
        self._written = self.links.seq, self.links.hash
        self._waiting: list[Ready] = []
        self._sealed: list[Ready] = []

    @property
    def is_behind(self) -> bool:
        """Whether something was left."""
        return bool(self._waiting or self._sealed)

    def start(self, name: str) -> Links:
        """Begin another chain. What was left is left to this one."""
        self.roll_back()
        self.links = Links(name)
        self._written = self.links.seq, self.links.hash
        return self.links

    def leave(self, record: Ready) -> None:
        """Have a record written in front of the next one."""
        self._waiting.append(record)

    def take_waiting(self) -> list[Ready]:
        """What was left and has no place yet. It is sealed next, or goes back with `roll_back`."""
        waiting, self._waiting = self._waiting, []
        self._sealed += waiting
        return waiting

    def seal(self, covered: bytes) -> bytes:
        """The line of the next record."""
        line, digest = seal(covered)
        self.links.seq += 1
        self.links.hash = digest
        return line

    def seal_all(self, records: Iterable[Ready], time: str) -> bytes:
        """The lines of the next records, which are written at this time."""
        links = self.links
        return b"".join(
            [self.seal(enveloped(kind, record_id, links, time, tail)) for kind, record_id, tail in records]
        )

    def note_written(self) -> None:
        """All that was sealed is in the file."""
        self._written = self.links.seq, self.links.hash
        self._sealed, self.unwritten = [], b""

    def roll_back(self) -> None:
        """What was sealed and not written is not in the chain."""
        self.links.seq, self.links.hash = self._written
        self._waiting = self._sealed + self._waiting
        self._sealed, self.unwritten = [], b""
