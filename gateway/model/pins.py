"""Pins: the agreed SHA-256 of a blob, and the measured content of files.

A blob's name is the MD5 of its content: the engine's address, and no proof of anything. The proof is the
SHA-256 that is pinned when a blob is first hashed (trust on first use) and agreed on by all nodes. A
`Measured` is what one node found by reading a file whole, under one stat identity: it holds as long as the
identity does. A `Pin` is what all nodes agreed on. Where the two differ, the blob is quarantined: it is not
served until an operator has acted.

A package file has no name that states its content, belongs to one package of one model and has no second
name. So there is nothing for nodes to agree on: it is measured, and never pinned.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.model.names import Md5
from gateway.model.records import SOURCE_CLI, Count, Record, Text, Time

if TYPE_CHECKING:
    import os

    from gateway.model.stamps import Leaf

StatIdentity = tuple[int, int, int, int, int]
"""Device, inode, size, mtime_ns, ctime_ns: no writer can change a file by `write` and keep all five.

A writer can by `mmap`: the times change when a page is first stored to, and not again before the kernel has
written it back. A process that stored to a page before the file was measured, and stores to it once more,
changes content under the same identity. `cachegate cache verify --again` finds it.
"""


def identity_of(found: os.stat_result) -> StatIdentity:
    """The identity of the file that a stat was taken of."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a file, read whole under this identity. Digests are lower-case hex."""

    identity: StatIdentity
    md5: str
    sha256: str

    @property
    def size(self) -> int:
        """The number of bytes in the file."""
        return self.identity[2]


class QuarantineCause(StrEnum):
    """Why a blob is in quarantine."""

    NOT_ITS_NAME = "not-its-name"  # the MD5 of the content is not the blob's name
    NOT_ITS_PIN = "not-its-pin"  # the name fits, and the SHA-256 is not the one that was pinned


class Quarantine(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Since when a blob is not served, why, and the SHA-256 of what was found."""

    cause: QuarantineCause
    since: Time
    found_sha256: str


class Pin(Record, frozen=True, kw_only=True, tag=8):
    """What the nodes agreed on about one blob.

    `sha256` is None for a blob whose content never matched its name: there is no good digest to remember.
    A record has digests as raw bytes, half the size of hex, and the three fields of the quarantine at its
    end; a million pins are about 150 MB.
    """

    source: Text = SOURCE_CLI
    md5: Md5
    sha256: str | None
    size: Count
    pinned_at: Time
    quarantine: Quarantine | None = None

    def is_of(self, measured: Measured) -> bool:
        """Whether this content may be served as the blob."""
        return self.quarantine is None and self.sha256 == measured.sha256 and measured.md5 == self.md5


def find_cause(md5: Md5, measured: Measured, pin: Pin | None) -> QuarantineCause | None:
    """Why this content must not be served under this name; None when it may."""
    if measured.md5 != md5:
        return QuarantineCause.NOT_ITS_NAME
    if pin is not None and pin.sha256 is not None and pin.sha256 != measured.sha256:
        return QuarantineCause.NOT_ITS_PIN
    return None


class PinFound(msgspec.Struct, frozen=True, kw_only=True):
    """A blob's pin, if it has one, the record it was read from, and the generation it is true for."""

    pin: Pin | None
    leaf: Leaf
    generation: int
