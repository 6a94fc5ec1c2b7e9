"""Who still needs which records: files that consumers of the log leave in `needs/`, for retention to wait.

A consumer (an export, an anchor, a feed) keeps one file, `needs/<name>.json`, and replaces it by renaming:

    {"schema": 1,
     "has": {"<chain>": 1234},                      all records of the chain up to this number
     "has_before": "2030-01-31T12:00:00.000000Z"}   and all records of any chain before this time

A segment is needed while neither covers its last record. A file that does not parse needs everything: a
consumer must not lose records by a bug of its own. Retention waits for consumers up to a limit, and no
further (`retention.py`), so a file that nobody keeps any more cannot fill the disk.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

NEEDS_NAME = "needs"
MOST_FILES = 64
MOST_BYTES = 1 << 20
_NAME = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,62})\.json")


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What one consumer has; it needs the rest."""

    schema: int = 1
    has: dict[str, int] = {}
    has_before: str = ""

    def needs(self, chain: str, last_seq: int, last_time: str) -> bool:
        """Whether it still needs a segment that ends with this record."""
        return self.has.get(chain, 0) < last_seq and last_time >= self.has_before


NEEDS_ALL = Needs()
_decoder = msgspec.json.Decoder(Needs)


def read_needs(folder: Path) -> dict[str, Needs]:
    """What each consumer needs, by its name. Raises `OSError` when the folder cannot be listed."""
    try:
        paths = sorted((folder / NEEDS_NAME).iterdir())
    except FileNotFoundError:
        return {}
    names = [(match["name"], path) for path in paths if (match := _NAME.fullmatch(path.name))]
    return {name: _read(path) for name, path in names[:MOST_FILES]}


def _read(path: Path) -> Needs:
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return NEEDS_ALL
        found = _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return NEEDS_ALL
    return found if found.schema == 1 else NEEDS_ALL
