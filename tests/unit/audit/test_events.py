"""Searching and following the log: all chains as one stream, oldest first."""

from __future__ import annotations

import json
import os
import resource
import shutil

import pytest

from gateway.audit import AuditLog, Query, find_record, read_events
from gateway.audit.events import Searched, survey
from gateway.audit.head import fingerprint
from gateway.model.errors import BadNameError, Reason, Unavailable
from gateway.model.verdicts import Change


class EnoughError(Exception):
    """Ends a follower that would otherwise scan again without end."""


def _follow(folder, query=None, **options):
    """The events that a follower saw until its `sleep` raised."""
    seen = []
    try:
        for event in read_events(folder, query, **options):
            seen.append(event)  # noqa: PERF402 -- list() would lose the events seen before the exception
    except EnoughError:
        return seen
    raise AssertionError("the follower ended by itself")


def _kinds(events):
    return [json.loads(event.line)["kind"] for event in events]


def test_chains_are_merged_by_time(room):
    first = room.open()
    room.clock.time += 1
    second = room.open()
    written = []
    for log in (first, second, second, first, second):
        written += room.write(log, 1)
    read = [event.record.id for event in read_events(room.folder) if event.record.id in written]
    assert read == written
    times = [event.record.time for event in read_events(room.folder)]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (Query(tenant="acme"), 4),
        (Query(tenant="globex"), 0),
        (Query(key_id="key_abcdefghijkl"), 4),
        (Query(model="acme/yolo"), 1),
        (Query(model="acme/alias"), 1),
        (Query(model="globex/secret-model"), 1),
        (Query(decision="deny"), 2),
        (Query(decision="deny", reason="unknown-key"), 1),
        (Query(reason="permitted"), 1),
    ],
)
def test_a_search_finds_what_matches_all_that_is_given(room, query, count):
    log = room.open()
    log.admit(room.admission()).close(room.outcome())
    log.reject(room.denial())
    log.reject(room.nobody())
    log.change(
        Change(actor="cli:root", action="keys.list", tenant="acme", key_id="key_abcdefghijkl", received_at=1)
    )
    assert len(list(read_events(room.folder, query))) == count


def test_a_search_in_time_takes_the_start_and_leaves_the_end(room):
    log = room.open()
    ids = []
    for _ in range(4):
        room.clock.time += 10
        ids.append(log.reject(room.denial()))
    start = room.clock.time
    query = Query(decision="deny", since=start - 20, until=start)
    assert [event.record.id for event in read_events(room.folder, query)] == ids[1:3]


def test_a_suppressed_reason_is_found_in_its_summary(room):
    log = room.open(nobody_per_source=1)
    for reason in (Reason.UNKNOWN_KEY, Reason.MISTYPED_KEY):
        log.reject(room.nobody(reason=reason))
    log.close()
    assert _kinds(read_events(room.folder, Query(reason="mistyped-key"))) == ["summary"]


def test_a_record_is_found_by_its_id_and_with_it_its_outcome(room):
    log = room.open(segment_bytes=2000)
    room.write(log, 10)
    receipt = log.admit(room.admission())
    receipt.close(room.outcome())
    room.write(log, 10)
    event = find_record(room.folder, receipt.record_id)
    assert event.record.id == receipt.record_id
    assert event.line in room.lines()
    assert _kinds(read_events(room.folder, Query(record_id=receipt.record_id))) == ["decision", "outcome"]


def test_an_id_that_nothing_has_is_none_and_one_that_is_no_id_is_refused(room):
    room.open().close()
    assert find_record(room.folder, "01990f1e-0000-7000-8000-000000000000") is None
    for text in ("", "x", "01990f1e-0000-4000-8000-000000000000", "01990F1E-0000-7000-8000-000000000000"):
        with pytest.raises(BadNameError):
            find_record(room.folder, text)


def test_a_follower_sees_new_records_new_segments_and_new_chains_once(room):
    log = room.open(segment_bytes=1500)
    written = room.write(log, 3)
    rounds = iter(range(3))

    def sleep(_seconds):
        turn = next(rounds, None)
        if turn is None:
            raise EnoughError
        written.extend(room.write(log if turn < 2 else room.open(), 4))

    seen = [event.record.id for event in _follow(room.folder, Query(tenant="acme"), sleep=sleep)]
    assert seen == written


def test_a_follower_from_the_end_leaves_out_what_was_there(room):
    log = room.open()
    room.write(log, 3)
    new = []

    def sleep(_seconds):
        if new:
            raise EnoughError
        new.extend(room.write(log, 2))

    seen = [event.record.id for event in _follow(room.folder, sleep=sleep, is_from_end=True)]
    assert seen == new


def test_half_a_line_waits_until_it_is_whole(room):
    log = room.open()
    room.write(log, 2)
    path = room.segments[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    turns = iter(range(2))

    def sleep(_seconds):
        if next(turns, None) is None:
            raise EnoughError
        path.write_bytes(whole)

    seen = [event.line for event in _follow(room.folder, sleep=sleep)]
    assert seen == whole.splitlines()


def test_a_line_that_is_no_record_does_not_end_the_reading(room):
    log = room.open()
    room.write(log, 2)
    path = room.segments[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\xff\x00 not a record\n", *lines[2:]]))
    assert len(list(read_events(room.folder))) == len(lines)


def test_hundreds_of_short_chains_need_few_open_files(room):
    for _ in range(60):
        room.clock.time += 1
        log = room.open()
        room.write(log, 1)
        log.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))  # noqa: PTH208
    try:
        assert len(list(read_events(room.folder, Query(tenant="acme")))) == 60
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_folder_that_is_not_there_is_unavailable(tmp_path):
    with pytest.raises(Unavailable):
        list(read_events(tmp_path / "absent"))


def _keys(room):
    public = room.key.public_key()
    return lambda _folder: {fingerprint(public): public}


def _marks(room, source=None):
    return [event.is_proven for event in read_events(source or room.folder, keys=_keys(room))]


def test_records_behind_the_last_head_are_marked(room):
    log = room.open()
    room.write(log, 3)
    assert _marks(room) == [True, True, False, False, False]
    room.clock.time += 11
    log.tick(room.clock.now())
    assert _marks(room) == [True] * 6
    assert [event.is_proven for event in read_events(room.folder)] == [None] * 6


def test_a_mark_stays_on_what_a_killed_process_left(room):
    log = room.open()
    room.write(log, 2)
    room.kill(log)
    room.clock.time += 20
    room.open().close()
    assert _marks(room) == [True, True, False, False, True, True, True, True]


def test_what_a_writer_itself_vouched_for_when_it_gave_its_chain_up_is_proven(room):
    log = room.open()
    room.write(log, 3)
    [path] = room.segments
    room.forge(path)
    with pytest.raises(Unavailable):
        room.write(log, 1)
    room.clock.time += 2
    log.close()
    events = [event for event in read_events(room.folder, keys=_keys(room)) if event.path == path]
    assert [event.is_proven for event in events] == [True] * 5 + [False]


def test_a_chain_without_a_head_or_with_the_head_of_another_is_marked_whole(room):
    room.open().close()
    [path] = room.segments
    forged = path.with_name(f"{path.name[:-21]}11111111-000001.jsonl")
    room.forge(forged, 2, chain=forged.name.rpartition("-")[0])
    assert [e.is_proven for e in read_events(room.folder, keys=_keys(room)) if e.path == forged] == [
        False
    ] * 2
    with forged.open("ab") as file:
        file.write(path.read_bytes().splitlines(keepends=True)[-1])
    assert [e.is_proven for e in read_events(room.folder, keys=_keys(room)) if e.path == forged] == [
        False
    ] * 3


def test_a_record_put_behind_everything_is_marked_whatever_number_it_claims(room):
    log = room.open()
    room.write(log, 2)
    log.close()
    [path] = room.segments
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines(keepends=True)[2])
    assert _marks(room)[-1] is False


def test_a_follower_marks_what_is_not_proven_when_it_comes(room):
    log = room.open()
    turns = iter([1, 0])

    def sleep(_seconds):
        if not next(turns, 0):
            raise EnoughError
        room.write(log, 1)

    seen = _follow(room.folder, sleep=sleep, keys=_keys(room))
    assert [event.is_proven for event in seen] == [True, True, False]


def test_several_folders_and_files_are_one_stream(room, tmp_path):
    room.open().close()
    room.clock.time += 5
    copy = tmp_path / "copy"
    shutil.copytree(room.folder, copy)
    other = AuditLog(folder=tmp_path / "other", node="node-2", signing_key=room.key, clock=room.clock)
    other.close()
    [segment] = copy.glob("*-0*.jsonl")
    events = list(read_events([room.folder, tmp_path / "other", segment]))
    assert len(events) == 9
    assert [event.record.time for event in events] == sorted(event.record.time for event in events)
    assert survey([room.folder, tmp_path / "other"]) == Searched(2, ("node-1", "node-2"))
    assert find_record([copy, tmp_path / "other"], events[-1].record.id).path.parent == tmp_path / "other"


def test_a_folder_that_is_named_twice_is_read_once(room):
    room.open().close()
    assert len(list(read_events([room.folder, room.folder, *room.segments]))) == 3
