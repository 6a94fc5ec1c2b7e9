"""Pins: what the content of a blob was when it was first seen, and what is known of a file's content.

A blob's name is the MD5 of its content: the engine's address, and no proof of anything. The proof is
the SHA-256 that is pinned when a blob is first hashed (trust on first use) and agreed upon by all
nodes. A `Measured` is what one node found by reading a file whole, under one identity: as long as the
identity stands, the finding does. A `Pin` is what the fleet agreed on. Where the two differ, the blob
is quarantined: nobody gets it until an operator has looked.

A package file has no name that says what it holds, belongs to one package of one model and has no
second name. So there is nothing for nodes to agree on: it is measured, and never pinned.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from gateway.model.facts import SOURCE_CLI

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from gateway.model.facts import Leaf
    from gateway.model.names import Md5

StatIdentity = tuple[int, int, int, int, int]
"""Device, inode, size, mtime_ns, ctime_ns: no writer can change a file by `write` and keep all five.

One can by `mmap`: the times move when a page is first stored to, and not again before the kernel has
written it back. Whoever did that before the file was measured, and stores to that page once more,
changes content under the same identity. `cachegate cache verify --again` finds it.
"""


def identity_of(found: os.stat_result) -> StatIdentity:
    """The identity of what a stat was taken of."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The content of a file, read whole under this identity. Digests are lower-case hex."""

    identity: StatIdentity
    md5: str
    sha256: str

    @property
    def size(self) -> int:
        """How many bytes there were."""
        return self.identity[2]


class Cause(StrEnum):
    """Why a blob is in quarantine."""

    NOT_ITS_NAME = "not-its-name"  # the MD5 of the content is not the blob's name
    NOT_ITS_PIN = "not-its-pin"  # the name fits, and the SHA-256 is not the one that was pinned


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """That nobody gets a blob, since when, and what was found in its place."""

    cause: Cause
    since: float
    found_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What the fleet agreed on about one blob.

    `sha256` is None for a blob whose content was never its name: there is nothing good to remember.
    """

    md5: Md5
    sha256: str | None
    size: int
    pinned_at: float
    quarantine: Quarantine | None = None
    generation: int = 0
    source: str = SOURCE_CLI

    def is_of(self, measured: Measured) -> bool:
        """Whether this content may be served as the blob."""
        return self.quarantine is None and self.sha256 == measured.sha256 and measured.md5 == self.md5


def find_cause(md5: Md5, measured: Measured, pin: Pin | None) -> Cause | None:
    """Why this content must not be served under this name; None when nothing speaks against it."""
    if measured.md5 != md5:
        return Cause.NOT_ITS_NAME
    if pin is not None and pin.sha256 is not None and pin.sha256 != measured.sha256:
        return Cause.NOT_ITS_PIN
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PinFound:
    """A blob's pin, if it has one, the record that says so, and the generation it is true for."""

    pin: Pin | None
    leaf: Leaf
    generation: int


class PinReader(Protocol):
    """The pins, as a worker knows them."""

    async def find(self, md5: Md5) -> PinFound:
        """A blob's pin. Raises `Refusal(UNREADABLE_FACT)` when its record does not parse."""

    def recall(self, md5: Md5) -> PinFound | None:
        """The same from memory alone; None when it is not remembered, or does not parse."""


class Ledger(Protocol):
    """Where nodes agree on pins."""

    async def agree(self, contents: Sequence[tuple[Md5, Measured]]) -> int:
        """Pin what has no pin, quarantine what is not what it should be.

        Returns a generation at which all of this is true.
        """


class Measurements(Protocol):
    """What this node measured so far; its processes share it. Called from threads.

    Every method raises `Unavailable` when it cannot be read or written.
    """

    def find(self, identity: StatIdentity) -> Measured | None:
        """What was measured under exactly this identity."""

    def put(self, measured: Measured) -> None:
        """Remember it; what was known of that file under an older identity is forgotten."""

    def close(self) -> None:
        """Let go of what is open."""

    def turn(self, identity: StatIdentity) -> AbstractContextManager[bool]:
        """The right to measure this file: one at a time has it on this node. False: somebody else has."""
