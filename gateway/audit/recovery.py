"""Close the chains of processes that ended without a last head, at the next start on the same node.

`live/` holds a file for each chain that is being written, locked by its process; an unlocked one was left
by a killed process (`kill -9` is not an attack). The next process of the node to start lists a recovered
head for such a chain: "found to go so far; not proven from this record on". That head proves no record; it
says that no record may follow. So records added later are damage, and records after the chain's own last
head stay unproven permanently.

A chain is recovered only if an honest process could have left it: it has a head of its own, signed by our
key, followed by nothing but whole, linked records within the signer's promise. Any other chain is left as
it is, for `verify` to report.

Anyone who may write to the folder can add records after the last head of a chain before it is recovered, as
many and as old as the promise allows. That is why they are not proven.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from gateway.audit.folder import (
    HEADS_NAME,
    LIVE_NAME,
    chain_started,
    group_segments,
    node_of,
    parse_segment_name,
)
from gateway.audit.heads_file import parse_listed
from gateway.audit.last_head import linked_records, read_tail
from gateway.audit.promise import promise_after
from gateway.audit.reading import lines_backward
from gateway.audit.record import ENDED_BY_OTHERS, ChainPosition, HeadRecord, parse_line
from gateway.audit.segment import SegmentError
from gateway.model.errors import Unavailable
from gateway.model.file_lock import is_at, try_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.audit.head import Signer
    from gateway.audit.heads_file import HeadsFile
    from gateway.audit.last_head import ChainEnd

    MakeHead = Callable[[float, ChainPosition, int, int], bytes]
    """Makes the line of a recovered head, of a time, a position, a segment and the first unproven record."""

MOST_AT_ONCE = 64  # files that one start handles; the next start continues
MOST_SEARCHED_BYTES = 256 << 20  # of heads.jsonl, from its end: months of heads
_PATIENCE_SECONDS = 1.0


def recover(
    folder: Path,
    node: str,
    signer: Signer,
    heads: HeadsFile,
    make_head: MakeHead,
    now: float,
    *,
    is_synced: bool,
) -> int:
    """List recovered heads for the chains of this node whose processes ended without a last head.

    Returns their number. A chain whose files cannot be read or written now is left to the next start.
    """
    recovered = 0
    for path in _left_behind(folder, node)[:MOST_AT_ONCE]:
        chain = path.name.removeprefix(".")
        with suppress(OSError, SegmentError, Unavailable), _held(path) as is_left:
            if not is_left:
                continue
            segments = group_segments(folder.glob(f"{chain}-*.jsonl*")).get(chain, [])
            if any(_is_written(segment) for _, segment in segments):  # any: a segment may have been added
                continue
            tail = read_tail(chain, segments, signer.public_keys)
            links = None if tail is None or tail.head.state == "closed" else _find_end(tail)
            if tail is not None and links is not None and not _has_ended(folder / HEADS_NAME, chain):
                pending = [make_head(now, links, tail.segment, tail.head.seq + 1)]
                heads.append(pending, is_synced=is_synced, patience_seconds=_PATIENCE_SECONDS)
                if pending:
                    continue
                recovered += 1
            path.unlink()
    return recovered


def _left_behind(folder: Path, node: str) -> list[Path]:
    """The files in `live/` of chains of this node, whether their processes live or not."""
    try:
        return sorted(path for path in (folder / LIVE_NAME).iterdir() if _is_of(node, path.name))
    except OSError:
        return []


def _is_of(node: str, name: str) -> bool:
    """Whether a process of the node creates a file of this name in `live/`, for a chain or a segment."""
    segment = parse_segment_name(name.removeprefix("."))
    chain = segment[0] if segment and name.startswith(".") else name.removeprefix(".")
    return chain_started(chain) is not None and node_of(chain) == node


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Try to lock a file; False when its process lives or another start handles it. Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield try_lock(descriptor) and is_at(path, descriptor)
    finally:
        os.close(descriptor)


def _is_written(path: Path) -> bool:
    """Whether a process has this segment locked for writing."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return not try_lock(descriptor, is_shared=True)
    finally:
        os.close(descriptor)


def _find_end(tail: ChainEnd) -> ChainPosition | None:
    """The end of the chain; None unless an honest process could have left the lines after its head."""
    promise = promise_after(tail.head)
    links = ChainPosition(tail.head.chain)
    links.seq, links.hash = tail.head.seq, tail.head.hash
    for _, link, digest in linked_records(tail):
        if link.kind == "head" or not promise.covers(link.seq, link.time):
            return None
        links.seq, links.hash = link.seq, digest
    return links if links.seq == tail.head.seq + len(tail.lines) else None


def _has_ended(path: Path, chain: str) -> bool:
    """Whether the newest line of the chain in `heads.jsonl` ends it. No head of its own comes after that."""
    left = MOST_SEARCHED_BYTES
    name = chain.encode()
    for _, line in lines_backward(path):
        left -= len(line)
        if left < 0:
            return True  # beyond the search bound: treated as ended long ago
        if name not in line:
            continue
        try:
            head = parse_line(bytes(parse_listed(line).head))
        except ValueError:
            continue
        if isinstance(head, HeadRecord) and head.chain == chain:
            return head.state in ENDED_BY_OTHERS
    return False
