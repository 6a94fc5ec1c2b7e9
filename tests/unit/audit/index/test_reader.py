"""Pages of the order: bounds, what retention removed, filters, an order that was lost."""

from __future__ import annotations

import shutil

import pytest

from gateway.audit import Query, read_events
from gateway.audit.index import Indexer, IndexReader, encode_cursor, indexer, journal, order, part, reader
from gateway.audit.index import hits as index_hits
from gateway.audit.index.journal import DAMAGED_NAME
from gateway.audit.index.reader import search_log, unindexed_bytes
from gateway.audit.keeping.packing import pack_segment

NODE = "node-1"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    for module in (journal, order, part, indexer, reader, index_hits):
        monkeypatch.setattr(module, "PART_PLACES", 32)


@pytest.fixture
def written(audit):
    """A closed chain of some segments, in order as a whole."""
    log = audit.open(segment_bytes=8000, head_records=10)
    audit.write(log, 60)
    log.close()
    extended(audit.folder)
    return audit


def extended(folder):
    made = Indexer(folder, NODE)
    while made.step():
        pass
    made.close()


def all_of(pages, cursor, **options):
    found, removed = [], 0
    while True:
        page = pages.read(cursor, 7, **options)
        assert len(page.records) <= 7
        found += page.records
        removed += page.removed
        cursor = page.cursor
        if page.is_at_end:
            return found, removed, cursor


def test_pages_hold_every_record_once_in_the_order_of_its_chain(written):
    pages = IndexReader(written.folder, NODE)
    found, removed, cursor = all_of(pages, pages.start())
    assert [one.line for one in found] == written.lines()
    assert removed == 0
    assert cursor == pages.end()
    assert not pages.has_more(cursor)
    assert pages.has_more(found[-2].cursor)
    assert pages.read(found[-2].cursor, 5).records[0].line == found[-1].line


def test_a_page_ends_at_its_bytes_with_one_record_at_least(written):
    pages = IndexReader(written.folder, NODE)
    assert len(pages.read(pages.start(), 100, max_bytes=1).records) == 1
    two = sum(map(len, written.lines()[:2]))
    assert len(pages.read(pages.start(), 100, max_bytes=two).records) == 2


def test_a_filter_passes_over_what_does_not_match_and_moves_on(written):
    pages = IndexReader(written.folder, NODE)
    found, _, cursor = all_of(pages, pages.start(), query=Query(decision="allow"))
    assert [one.line for one in found] == [
        event.line for event in read_events(written.folder, Query(decision="allow"))
    ]
    assert cursor == pages.end()
    none, _, cursor = all_of(pages, pages.start(), query=Query(tenant="nobody"))
    assert none == []
    assert cursor == pages.end()


@pytest.mark.parametrize("query", [None, Query(decision="allow")])
def test_what_retention_removed_is_counted_and_keeps_its_places(written, query):
    pages = IndexReader(written.folder, NODE)
    end = pages.end()
    first, *_ = written.segments
    gone = first.read_bytes().count(b"\n")
    first.unlink()
    found, removed, cursor = all_of(pages, pages.start(), query=query)
    assert removed == gone
    assert cursor == end
    assert [one.line for one in found] == [event.line for event in read_events(written.folder, query)]


def test_packed_segments_are_read_as_before(written):
    lines = written.lines()
    for path in written.segments:
        pack_segment(path)
    pages = IndexReader(written.folder, NODE)
    assert [one.line for one in all_of(pages, pages.start())[0]] == lines
    assert unindexed_bytes(written.folder) == 0


def test_a_part_without_any_record_left_is_forgotten(written):
    pages = IndexReader(written.folder, NODE)
    before = pages.start()
    for path in written.segments[:-1]:
        path.unlink()
    made = Indexer(written.folder, NODE)
    made.tidy()
    made.close()
    start = pages.start()
    assert start.place > before.place
    assert not list((written.folder / "index").glob("*-00000000.part"))
    page = pages.read(before, 100)
    assert page.removed >= start.place
    assert [one.line for one in page.records] == written.lines()


def test_a_cursor_goes_on_after_the_index_was_lost(written):
    pages = IndexReader(written.folder, NODE)
    read, _, cursor = all_of(pages, pages.start())
    log = written.open()
    written.write(log, 5)
    shutil.rmtree(written.folder / "index")
    assert not pages.has_more(cursor)
    assert pages.read(cursor, 9).cursor == cursor
    extended(written.folder)
    assert pages.has_more(cursor)
    again, _, _ = all_of(pages, cursor)
    assert {one.line for one in [*read, *again]} == set(written.lines())
    assert len(again) < len(read)
    log.close()


def test_a_cursor_of_a_log_that_was_replaced_begins_at_the_oldest_record(written):
    pages = IndexReader(written.folder, NODE)
    cursor = pages.end()
    shutil.rmtree(written.folder / "index")
    content = written.heads.read_bytes()
    written.heads.write_bytes(content[: len(content) // 2])
    extended(written.folder)
    assert [one.line for one in all_of(pages, cursor)[0]] == written.lines()


def test_damage_is_reported_and_waited_for_and_a_search_goes_on(written):
    path = next((written.folder / "index").glob("*-00000000.part"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    content[len(content) // 2] ^= 1
    content[40] ^= 1
    path.write_bytes(content)
    pages = IndexReader(written.folder, NODE)
    start = pages.start()
    page = pages.read(start, 10)
    assert (page.records, page.cursor, page.is_at_end) == ([], start, True)
    assert not pages.has_more(start)
    assert (written.folder / "index" / DAMAGED_NAME).exists()
    found = [one.line for one in search_log(written.folder, Query())]
    assert found == written.lines()
    extended(written.folder)
    assert pages.has_more(start)
    assert [one.line for one in all_of(pages, start)[0]] == written.lines()


def test_an_index_that_lies_hides_nothing_behind_a_changed_segment(written):
    """A closed segment that is written to does not fit any more: it is read as a whole, then indexed anew."""
    path = written.segments[0]
    content = path.read_bytes().replace(b'"reason":"permitted"', b'"reason":"forbidden"')
    path.write_bytes(content)
    query = Query(reason="forbidden")
    found = [one.line for one in search_log(written.folder, query)]
    assert found == [event.line for event in read_events(written.folder, query)]
    assert found
    pages = IndexReader(written.folder, NODE)
    before = encode_cursor(pages.start())
    extended(written.folder)
    assert encode_cursor(pages.start()) != before
