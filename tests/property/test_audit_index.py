"""Laws of the index: a search by it finds what a scan finds, and a cursor misses no record.

Logs are random: several chains that are opened, killed, rotated, packed and removed, clocks that are set, an
indexer that is killed between any two bytes that it writes, and index files that are spoilt or removed.
"""

from __future__ import annotations

import os
import random
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit import AuditLog, Limits, Query, read_events
from gateway.audit.folder import group_segments
from gateway.audit.index import Indexer, IndexReader, indexer, journal, order, part, reader
from gateway.audit.index import hits as index_hits
from gateway.audit.index.reader import search_log
from gateway.audit.keeping.packing import pack_segment
from gateway.model.errors import Reason
from gateway.model.verdicts import Change, Rejection
from tests import samples

NODE = "n"
KEYS = [f"key_{number:020}" for number in range(3)]
REASONS = [Reason.NO_CREDENTIAL, Reason.UNKNOWN_KEY, Reason.NOT_PERMITTED]
PLACES = 16  # of a part, instead of thousands


class Killed(BaseException):
    """The indexer's process ends here."""


class HandClock:
    def __init__(self):
        self.time = 1_790_000_000.0

    def now(self):
        self.time += 0.001
        return self.time


@pytest.fixture(scope="module", autouse=True)
def small_parts():
    with pytest.MonkeyPatch.context() as patch:
        for module in (journal, order, part, indexer, reader, index_hits):
            patch.setattr(module, "PART_PLACES", PLACES)
        for module in (journal, indexer):
            patch.setattr(module, "MAX_RUN_BYTES", 4096)
        yield


class World:
    """An audit folder, its writers, its indexer, and a consumer that reads on behind a cursor."""

    def __init__(self, folder, seed):
        self.random = random.Random(seed)
        self.folder = folder
        self.clock = HandClock()
        self.key = Ed25519PrivateKey.generate()
        self.logs = []
        self.indexer = None
        self.reader = IndexReader(folder, NODE)
        self.cursor = self.reader.start()
        self.seen = set()
        self.was_set_back = False
        self.has_removed = False

    def open(self):
        if len(self.logs) < 3:
            limits = Limits(
                segment_bytes=self.random.choice([3000, 100_000]), head_records=self.random.choice([3, 40])
            )
            self.logs.append(
                AuditLog(folder=self.folder, node=NODE, signing_key=self.key, clock=self.clock, limits=limits)
            )

    def write(self):
        if not self.logs:
            return
        log = self.random.choice(self.logs)
        for _ in range(self.random.randint(1, 6)):
            key = self.random.choice(KEYS)
            if self.random.random() < 0.5:
                request = samples.wire_request(headers=(), client="192.0.2.1", route="/v1/models")
                log.reject(Rejection(request=request, reason=self.random.choice(REASONS), claimed_key_id=key))
            else:
                tenant = self.random.choice("xy")
                change = Change(actor="a", action="b", tenant=tenant, key_id=key, received_at=0.0)
                log.change(change).close(generation=1, result="done")

    def set_clock(self):
        step = self.random.choice([0.5, 30.0, -2.0, -500.0])
        self.was_set_back |= step < 0
        self.clock.time += step

    def close(self):
        if self.logs:
            self.logs.pop(self.random.randrange(len(self.logs))).close()

    def kill(self):
        if self.logs:
            writer = self.logs.pop(self.random.randrange(len(self.logs)))._writer
            writer._segment.close()
            os.close(writer._live._descriptor)
            writer._process = -1

    def closed(self):
        """The segments that are closed: what keeping may pack or remove."""
        chains = group_segments(self.folder.iterdir()) if self.folder.exists() else {}
        live = {log._writer.chain.links.chain for log in self.logs}
        return [
            numbered[0 if self.random.random() < 0.5 else at][1]
            for chain, numbered in chains.items()
            for at in range(len(numbered) - (chain in live))
        ]

    def pack(self):
        plain = [path for path in self.closed() if path.suffix == ".jsonl"]
        if plain:
            pack_segment(self.random.choice(plain))

    def remove(self):
        if (closed := self.closed()) and self.random.random() < 0.3:
            self.has_removed = True
            path = self.random.choice(closed)
            with suppress(StopIteration):  # only what the consumer has, as retention waits for it
                if all(event.record.id in self.seen for event in read_events([path])):
                    path.unlink()

    def index(self):
        if not self.folder.exists():
            return
        budget = self.random.choice([None, None, self.random.randint(0, 3000)])
        try:
            with killed_after(budget):
                if self.indexer is None:
                    self.indexer = Indexer(self.folder, NODE, is_thorough=self.random.random() < 0.5)
                if self.random.random() < 0.2:
                    self.indexer.tidy()
                for _ in range(self.random.randint(1, 4)):
                    self.indexer.step()
        except Killed:
            self.indexer = None

    def spoil(self):
        """Something happens to the files of the index."""
        place = self.folder / "index"
        if self.random.random() < 0.7 or not place.exists():
            return
        self.indexer = None  # one that lives writes on, to files that are its own
        files = sorted(path for path in place.iterdir() if path.is_file())
        if not files:
            return
        path = self.random.choice(files)
        content = bytearray(path.read_bytes())
        match self.random.choice(["flip", "cut", "remove"]):
            case "flip" if content:
                content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
                path.write_bytes(content)
            case "cut":
                path.write_bytes(content[: self.random.randint(0, len(content))])
            case _:
                path.unlink()

    def read(self):
        query = self.random.choice([None, None, Query()])
        page = self.reader.read(self.cursor, self.random.randint(1, 30), query)
        self.seen |= {one.record.id for one in page.records}
        self.cursor = page.cursor
        assert page.is_at_end != self.reader.has_more(self.cursor)

    def search(self):
        if not self.folder.exists():
            return
        now = self.clock.time
        query = Query(
            key_id=self.random.choice([None, *KEYS, "nobody"]),
            tenant=self.random.choice([None, None, "x"]),
            reason=self.random.choice([None, None, *map(str, REASONS)]),
            record_id=self.random.choice([None, None, *sorted(self.seen)[:50]]),
            since=self.random.choice([None, now - 30, now - 0.02]),
            until=self.random.choice([None, None, now - 0.01]),
        )
        scanned = [event.line for event in read_events(self.folder, query)]
        found = [one.line for one in search_log(self.folder, query)]
        newest = [one.line for one in search_log(self.folder, query, is_newest_first=True)]
        if self.was_set_back and self.has_removed:  # a time that sorted others may be removed
            scanned, found, newest = sorted(scanned), sorted(found), sorted(newest, reverse=True)
        assert found == scanned
        assert newest == scanned[::-1]

    def catch_up(self):
        """Everything is put in order, and read."""
        self.indexer = self.indexer or Indexer(self.folder, NODE)
        self.indexer.tidy()
        for _ in range(20):
            while self.indexer.step():
                pass
            while self.reader.has_more(self.cursor):
                self.read()
            self.indexer.tidy()  # a damage that reading found
        assert self.indexer.behind() == 0

    def missed(self):
        return [one.line for one in read_events(self.folder) if one.record.id not in self.seen]


class killed_after:  # noqa: N801 -- used as a function is
    """A process that is killed when it has written so many bytes to files of the index."""

    def __init__(self, budget):
        self.left = budget
        self.patch = pytest.MonkeyPatch()

    def spend(self, content):
        if self.left is None:
            return content
        taken, self.left = content[: self.left], self.left - len(content)
        return taken

    def __enter__(self):
        if self.left is None:
            return
        true_append, true_write = indexer.write_whole, journal.write_file

        def append(descriptor, content):
            true_append(descriptor, self.spend(content))
            if self.left < 0:
                raise Killed

        def write(path, *pieces):
            content = b"".join(pieces)
            taken = self.spend(content)
            if self.left < 0:
                path.with_suffix(".partial").write_bytes(taken)
                raise Killed
            true_write(path, content)

        self.patch.setattr(indexer, "write_whole", append)
        self.patch.setattr(indexer, "write_file", write)
        self.patch.setattr(part, "write_file", write)

    def __exit__(self, *_):
        self.patch.undo()


STEPS = ["write"] * 6 + ["index"] * 4 + ["read"] * 3 + ["search"] * 2
STEPS += ["open", "open", "set_clock", "close", "kill", "pack", "pack", "remove", "spoil"]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_a_search_finds_what_a_scan_finds_and_a_cursor_misses_nothing(seed):
    with tempfile.TemporaryDirectory() as temporary:
        world = World(Path(temporary) / "audit", seed)
        world.open()
        for _ in range(60):
            getattr(world, world.random.choice(STEPS))()
        world.catch_up()
        assert world.missed() == []
        world.search()
        for log in world.logs:
            log.close()
