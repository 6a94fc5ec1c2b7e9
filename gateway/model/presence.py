"""Remember where a node last saw models, to tell a cache that was emptied from one that is not mounted."""

from __future__ import annotations

from typing import Protocol

import msgspec

Place = tuple[int, int]
"""Device and inode of a directory."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The root that had models, by path, device and inode, and the folder of blobs in it."""

    path: str
    root: Place
    blobs: Place | None


class SeenCache(Protocol):
    """Stores what was seen last. Called from threads."""

    @property
    def where(self) -> str:
        """The path of the file, for an operator who wants to delete it."""

    def load(self) -> Seen | None:
        """What was seen last; None when nothing was. Raises `Unavailable` when it cannot be read."""

    def note(self, seen: Seen) -> None:
        """Store this; written only if it differs. Raises `Unavailable` when it cannot be."""


class NothingSeen:
    """Stores nothing: every empty cache counts as a new one."""

    where = "nowhere"

    def load(self) -> Seen | None:
        """Return None: nothing is stored."""
        return None

    def note(self, seen: Seen) -> None:
        """Store nothing."""
