"""Stores where this node last saw models, in a small file of the state folder shared by its processes.

The file is replaced as a whole. A file that does not parse is treated as absent: its only use is to make the
gateway doubt an empty cache, and an attacker who can write in our state folder can do worse.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from gateway.model.errors import Reason, Unavailable
from gateway.model.presence import Seen

if TYPE_CHECKING:
    from pathlib import Path


class SeenCacheFile:
    """`SeenCache` on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def where(self) -> str:
        """The file's path."""
        return str(self._path)

    def load(self) -> Seen | None:
        """Return what was seen last; None if nothing was, or the file does not parse."""
        try:
            document: Any = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            return None
        except OSError as error:
            why = f"{self._path} cannot be read: {error.strerror}"
            raise Unavailable("state", why, Reason.CACHE_UNAVAILABLE) from error
        match document:
            case {"path": str(path), "root": [int(d), int(i)], "blobs": None | [int(), int()] as blobs}:
                return Seen(path=path, root=(d, i), blobs=None if blobs is None else (blobs[0], blobs[1]))
        return None

    def note(self, seen: Seen) -> None:
        """Store it, if it differs from what is stored."""
        if self.load() == seen:
            return
        unfinished = self._path.with_suffix(f".{os.getpid()}")
        document = {"path": seen.path, "root": seen.root, "blobs": seen.blobs}
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(document) + "\n")
            unfinished.replace(self._path)
        except OSError as error:
            why = f"{self._path} cannot be written: {error.strerror}"
            raise Unavailable("state", why, Reason.CACHE_UNAVAILABLE) from error
