"""The events of a search by the index, as `read_events` gives them: the same ones, in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.audit.events import Event
from gateway.audit.folder import group_segments, segment_name
from gateway.audit.index.reader import search_log
from gateway.audit.proven import ProvenEnd, ProvenEnds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.audit.events import FindKeys, Query

UNKNOWN_LINE = 0  # the number of a line is known only to who reads the lines in front of it


def find_events(folder: Path, query: Query, *, keys: FindKeys | None = None) -> Iterator[Event]:
    """The records of a folder that match, oldest first. Raises `OSError` when a segment cannot be read."""
    ends = None if keys is None else ProvenEnds(folder, keys(folder))
    segments = group_segments(folder.iterdir()) if ends is not None else {}
    proven: dict[str, ProvenEnd] = {}
    for found in search_log(folder, query):
        hit = found.hit
        is_proven = None
        if ends is not None:
            if hit.chain not in proven:
                proven[hit.chain] = ends.find(hit.chain, segments.get(hit.chain, []))
            is_proven = ProvenEnd(hit.number, hit.end) <= proven[hit.chain]
        yield Event(
            record=found.record,
            line=found.line,
            path=folder / segment_name(hit.chain, hit.number),
            line_number=UNKNOWN_LINE,
            is_proven=is_proven,
        )
