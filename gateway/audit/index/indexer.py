"""Put the records of a folder in one order, and follow what is written to it.

One process does it at a time: the caller holds the lock (`index.lock`). It reads each segment once, whole
lines only, and appends to the order what it read (`journal.py`). A chain's records come in the chain's own
order; what is new in several chains comes as it is found.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.folder import FILE_MODE, chain_started, group_segments, segment_name
from gateway.audit.index.journal import MAX_RUN_BYTES, RunEntry, SourceEntry, begin_order, framed, order_path
from gateway.audit.index.order import KnownOrder
from gateway.audit.packed import DamagedSegmentError
from gateway.audit.reading import opened
from gateway.audit.record import MAX_LINE_BYTES, parse_link
from gateway.audit.segment import write_whole

if TYPE_CHECKING:
    from pathlib import Path

LOCK_NAME = "index.lock"
_BLOCK_BYTES = MAX_RUN_BYTES


class _ReadChain(msgspec.Struct):
    """How far a chain is in order: all segments before `number`, and `offset` bytes of that one."""

    number: int = 0
    offset: int = 0
    seq: int = 0
    source: int = -1


class Indexer:
    """The order of one folder, extended."""

    def __init__(self, folder: Path, node: str) -> None:
        self._folder = folder
        self._node = node
        self._known = KnownOrder(folder)
        self._chains: dict[str, _ReadChain] = {}
        self._resume()

    def _resume(self) -> None:
        self._known.refresh()
        if not self._known.order or self._known.node != self._node:
            begin_order(self._folder, self._node)
            self._known.refresh()
        self._descriptor = os.open(
            order_path(self._folder), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE
        )
        os.ftruncate(self._descriptor, self._known.size)
        for run in self._known.runs:
            chain, number = self._known.sources[run.source]
            self._chains[chain] = _ReadChain(number, run.end, run.seq, run.source)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def step(self) -> int:
        """Put in order what is new in all chains; how many records that was. Raises `OSError`."""
        chains = group_segments(self._folder.iterdir())
        entries: list[bytes] = []
        count = 0
        for chain in sorted(chains, key=lambda one: chain_started(one) or 0.0):
            count += self._read_on(chain, chains[chain], entries)
        if entries:
            write_whole(self._descriptor, b"".join(entries))
        return count

    def _read_on(self, chain: str, segments: list[tuple[int, Path]], entries: list[bytes]) -> int:
        state = self._chains.setdefault(chain, _ReadChain())
        count = 0
        for number, path in segments:
            if number < state.number:
                continue
            if number > state.number:
                state.number, state.offset, state.source = number, 0, -1
            # The segment being written is plain, and most looks find nothing new there.
            with suppress(OSError):
                if path.stat().st_size == state.offset:
                    continue
            with suppress(FileNotFoundError, DamagedSegmentError), opened(path, state.offset) as file:
                while block := file.read(_BLOCK_BYTES):
                    end = block.rfind(b"\n") + 1
                    if not end:
                        block += file.readline(MAX_LINE_BYTES - len(block))
                        end = len(block) if block.endswith(b"\n") else 0
                    elif end < len(block):
                        block += file.readline(MAX_LINE_BYTES)
                        end = block.rfind(b"\n") + 1
                    if not end:
                        break
                    count += self._add(chain, state, block[:end], entries)
                    if end < len(block):
                        break
        return count

    def _add(self, chain: str, state: _ReadChain, lines: bytes, entries: list[bytes]) -> int:
        if state.source < 0:
            state.source = len(self._known.sources)
            self._known.sources.append((chain, state.number))
            entries.append(framed(SourceEntry(segment_name(chain, state.number))))
        count = lines.count(b"\n")
        with suppress(ValueError):
            state.seq = parse_link(lines[lines.rfind(b"\n", 0, -1) + 1 :]).seq
        start, state.offset = state.offset, state.offset + len(lines)
        entries.append(framed(RunEntry(state.source, start, state.offset, count, state.seq, 0, "")))
        return count
