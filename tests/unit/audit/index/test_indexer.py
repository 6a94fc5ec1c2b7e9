"""Heads without records, files of the index that are cut or stale, and forged lines stop no indexer."""

from __future__ import annotations

import os
import shutil

import pytest

from gateway.audit import Query
from gateway.audit.folder import LIVE_NAME
from gateway.audit.index import Indexer, IndexReader, indexer, journal, listed_heads, order, part, reader
from gateway.audit.index import hits as index_hits
from gateway.audit.index.journal import COMPLETE_NAME, DAMAGED_NAME, INDEX_NAME, order_path, read_entries
from gateway.audit.index.order import KnownOrder
from gateway.audit.index.reader import search_log

NODE = "node-1"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    for module in (journal, order, part, indexer, reader, index_hits):
        monkeypatch.setattr(module, "PART_PLACES", 32)


def extended(folder):
    made = Indexer(folder, NODE)
    while made.step():
        pass
    made.close()


def write_chain(audit, count=5, **limits):
    log = audit.open(**{"segment_bytes": 8000, "head_records": 2} | limits)
    audit.write(log, count)
    log.close()


def lines_in_order(folder):
    pages = IndexReader(folder, NODE)
    return [one.line for one in pages.read(pages.start(), 10_000).records]


def order_of(folder):
    return IndexReader(folder, NODE).order_id()


def complete_names(folder):
    known = KnownOrder(folder)
    known.refresh()
    return set(known.complete())


def test_an_index_made_anew_lists_the_folder_once_a_step_whatever_the_heads_of_chains_that_are_gone(
    audit, monkeypatch
):
    for _ in range(20):
        write_chain(audit)
    for path in audit.segments:
        path.unlink()
    write_chain(audit)
    listings = []
    listed = indexer.group_segments

    def counted(paths):
        listings.append(1)
        return listed(paths)

    monkeypatch.setattr(indexer, "group_segments", counted)
    made = Indexer(audit.folder, NODE)
    made.step()
    made.close()
    assert len(listings) <= 3
    assert lines_in_order(audit.folder) == audit.lines()


def test_a_folder_without_marks_of_who_lives_is_put_in_order(audit):
    write_chain(audit)
    shutil.rmtree(audit.folder / LIVE_NAME)
    extended(audit.folder)
    assert lines_in_order(audit.folder) == audit.lines()


def test_heads_of_a_living_chain_whose_records_are_gone_hold_up_no_other_chain(audit, monkeypatch):
    monkeypatch.setattr(listed_heads, "MOST_PENDING", 8)
    monkeypatch.setattr(listed_heads, "_BLOCK_BYTES", 2048)
    monkeypatch.setattr(indexer, "MOST_PENDING", 8)
    gone = audit.open(head_records=2)
    audit.write(gone, 40)
    for path in audit.segments:
        path.unlink()
    write_chain(audit)
    extended(audit.folder)
    assert lines_in_order(audit.folder) == audit.lines()


def test_what_a_full_disk_cut_of_the_complete_segments_costs_no_index(audit):
    write_chain(audit)
    extended(audit.folder)
    before = order_of(audit.folder)
    with (audit.folder / INDEX_NAME / COMPLETE_NAME).open("ab") as file:
        file.write(b"\x40\0\0\0cut")
    write_chain(audit, 60)
    extended(audit.folder)
    extended(audit.folder)
    assert order_of(audit.folder) == before
    assert complete_names(audit.folder) == {path.name for path in audit.segments}
    assert lines_in_order(audit.folder) == audit.lines()


def test_an_order_that_was_cut_behind_its_beginning_is_made_anew_and_holds_nothing_twice(audit):
    write_chain(audit, 60)
    extended(audit.folder)
    path = order_path(audit.folder)
    with path.open("rb") as file:
        _, end = next(read_entries(file.fileno(), 0))
    os.truncate(path, end)
    extended(audit.folder)
    assert lines_in_order(audit.folder) == audit.lines()


def test_segments_that_retention_removed_are_forgotten(audit, monkeypatch):
    monkeypatch.setattr(indexer, "MOST_GONE", 0)
    for _ in range(5):
        write_chain(audit)
    made = Indexer(audit.folder, NODE)
    while made.step():
        pass
    before, *others = audit.segments
    known = (audit.folder / INDEX_NAME / COMPLETE_NAME).stat().st_size
    for path in others:
        path.unlink()
    made.tidy()
    assert (audit.folder / INDEX_NAME / COMPLETE_NAME).stat().st_size < known / 2
    write_chain(audit)
    while made.step():
        pass
    made.close()
    epoch = order_of(audit.folder)
    extended(audit.folder)
    assert order_of(audit.folder) == epoch
    assert complete_names(audit.folder) == {path.name for path in audit.segments} >= {before.name}


def test_who_still_reads_an_index_that_was_replaced_asks_for_no_other_one(audit, monkeypatch):
    monkeypatch.setattr(order, "MOST_OPEN_PARTS", 1)
    write_chain(audit, 60)
    extended(audit.folder)
    search = search_log(audit.folder, Query())
    lines = [next(search).line]
    shutil.rmtree(audit.folder / INDEX_NAME)
    extended(audit.folder)
    lines += [found.line for found in search]
    assert lines == audit.lines()
    assert not (audit.folder / INDEX_NAME / DAMAGED_NAME).exists()


def test_a_reader_for_whom_retention_was_faster_goes_on_reading(audit, monkeypatch):
    """It reads of a part that is removed between its look at the order and its read."""
    write_chain(audit, 100)
    made = Indexer(audit.folder, NODE)
    while made.step():
        pass
    pages = IndexReader(audit.folder, NODE)
    start = pages.start()
    for path in audit.segments[:-1]:
        path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(KnownOrder, "is_changed", lambda _self: False)
        made.tidy()
        assert pages.read(start, 10).records == []
    made.close()
    assert not (audit.folder / INDEX_NAME / DAMAGED_NAME).exists()
    assert [one.line for one in pages.read(start, 10_000).records] == audit.lines()


def test_a_step_of_an_idle_log_lists_and_reads_nothing_and_the_next_record_is_found(audit, monkeypatch):
    log = audit.open(head_records=50)
    audit.write(log, 3)
    made = Indexer(audit.folder, NODE)
    for _ in range(indexer._LISTED_AGAIN + 2):
        made.step()
    with monkeypatch.context() as patched:
        patched.setattr(Indexer, "_extend", None)
        assert made.step() == 0
    audit.write(log, 1)
    assert made.step() > 0
    made.step()
    other = audit.open(head_records=50)
    audit.write(other, 1)
    while made.step():
        pass
    log.close()
    other.close()
    while made.step():
        pass
    assert sorted(lines_in_order(audit.folder)) == sorted(audit.lines())
    assert complete_names(audit.folder) == {path.name for path in audit.segments}
    made.close()


def test_a_forged_number_stops_nothing(audit):
    write_chain(audit)
    lines = audit.lines()
    with audit.segments[0].open("ab") as file:
        file.write(lines[0].replace(b'"seq":1,', b'"seq":%d,' % 10**30) + b"\n")
    extended(audit.folder)
    assert len(audit.lines()) == len(lines) + 1
    assert lines_in_order(audit.folder) == audit.lines()
