"""Where a node last saw models: what tells a cache that was emptied from one that is not mounted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

Place = tuple[int, int]
"""Device and inode of a directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The root that had models, by its path and its place, and the folder of blobs that it had."""

    path: str
    root: Place
    blobs: Place | None


class SeenCache(Protocol):
    """Where it is kept. Called from threads."""

    @property
    def where(self) -> str:
        """The file, for an operator who wants it forgotten."""

    def load(self) -> Seen | None:
        """What was seen last; None where nothing was. Raises `Unavailable` when it cannot be read."""

    def note(self, seen: Seen) -> None:
        """Keep this; written only if it differs. Raises `Unavailable` when it cannot be."""


class NothingSeen:
    """For whoever keeps nothing: every empty cache is a fresh one."""

    where = "nowhere"

    def load(self) -> Seen | None:
        """Nothing."""
        return None

    def note(self, seen: Seen) -> None:
        """Nothing is kept."""
