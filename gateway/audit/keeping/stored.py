"""What an audit folder holds: its segments, their sizes and ages, by names and file sizes alone."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.folder import LIVE_NAME, chain_started, group_segments, parse_segment_name, segment_name
from gateway.audit.packed import PACKED_SUFFIX
from gateway.audit.reading import readable_lines
from gateway.audit.record import parse_link
from gateway.audit.timeline import time_text
from gateway.model.file_lock import try_lock

if TYPE_CHECKING:
    from pathlib import Path


class Stored(msgspec.Struct, frozen=True):
    """One segment. `written_at` is when it was last written to; packing keeps it."""

    chain: str
    number: int
    path: Path
    bytes: int  # on the disk
    written_at: float
    is_closed: bool  # no process writes to it any more
    is_end: bool  # it is the last one of a chain that has ended

    @property
    def name(self) -> str:
        """Its name, whether it is packed or not."""
        return segment_name(self.chain, self.number)

    @property
    def is_packed(self) -> bool:
        """Whether it is compressed."""
        return self.path.name.endswith(PACKED_SUFFIX)


class Inventory(msgspec.Struct, frozen=True):
    """All segments of a folder, each chain's in order, and the bytes of all other files of the log."""

    segments: tuple[Stored, ...]
    other_bytes: int

    @property
    def bytes(self) -> int:
        """The size of the log on the disk."""
        return sum(one.bytes for one in self.segments) + self.other_bytes

    def oldest(self) -> str | None:
        """The time of the oldest record: of the first one in each chain's first segment that is there."""
        firsts: dict[str, Stored] = {}
        for one in self.segments:
            firsts.setdefault(one.chain, one)
        by_age = sorted(firsts.values(), key=_started)
        times = [_first_time(one) for one in by_age[:_CANDIDATES]]
        return min(filter(None, times), default=None)


_CANDIDATES = 16  # chains that began first; a segment that was removed from one makes its first record later


def take_inventory(folder: Path) -> Inventory:
    """What the folder holds. Raises `OSError`."""
    try:
        paths = [entry for entry in folder.iterdir() if not entry.is_dir()]
        marks = {path.name for path in (folder / LIVE_NAME).iterdir()}
    except FileNotFoundError:
        return Inventory((), 0)
    segments: list[Stored] = []
    for chain, numbered in group_segments(paths).items():
        has_ended = chain not in marks and f".{chain}" not in marks
        for number, path in numbered:
            stored = _stored(chain, number, path, is_last=number == numbered[-1][0], has_ended=has_ended)
            if stored is not None:
                segments.append(stored)
    known = {one.path for one in segments}
    others = [
        path for path in paths if path not in known and (parse_segment_name(path.name) or _is_ours(path))
    ]
    return Inventory(tuple(segments), sum(path.lstat().st_size for path in others if path.exists()))


def _stored(chain: str, number: int, path: Path, *, is_last: bool, has_ended: bool) -> Stored | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # it was removed or packed meanwhile, or is no file
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None  # `verify` reports it
        is_closed = (has_ended or not is_last) and try_lock(descriptor, is_shared=True)
    finally:
        os.close(descriptor)
    written_at = status.st_mtime
    return Stored(chain, number, path, status.st_size, written_at, is_closed, is_last and has_ended)


def _is_ours(path: Path) -> bool:
    return path.name.endswith(".jsonl")


def _started(stored: Stored) -> float:
    return chain_started(stored.chain) or 0.0


def _first_time(stored: Stored) -> str | None:
    if stored.number == 1:
        return time_text(_started(stored))
    for _, line in readable_lines(stored.path):
        try:
            return parse_link(line).time
        except ValueError:
            return None
    return None
