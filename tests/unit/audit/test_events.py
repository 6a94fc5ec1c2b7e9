"""Searching and following the log: all chains as one stream, oldest first."""

from __future__ import annotations

import json
import os
import resource
import shutil

import pytest
from msgspec.structs import replace

from gateway.audit import AuditLog, Query, find_record, read_events
from gateway.audit.events import Searched, survey
from gateway.audit.head import fingerprint
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import BadNameError, Reason, Unavailable
from gateway.model.questions import Answered, Evaluated, Question
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


def test_chains_are_merged_by_time(audit):
    first = audit.open()
    audit.clock.time += 1
    second = audit.open()
    written = []
    for log in (first, second, second, first, second):
        written += audit.write(log, 1)
    read = [event.record.id for event in read_events(audit.folder) if event.record.id in written]
    assert read == written
    times = [event.record.time for event in read_events(audit.folder)]
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
def test_a_search_finds_what_matches_all_that_is_given(audit, query, count):
    log = audit.open()
    log.admit(audit.admission()).close(audit.outcome())
    log.reject(audit.denial())
    log.reject(audit.nobody())
    log.change(
        Change(actor="cli:root", action="keys.list", tenant="acme", key_id="key_abcdefghijkl", received_at=1)
    )
    assert len(list(read_events(audit.folder, query))) == count


def test_a_search_in_time_takes_the_start_and_leaves_the_end(audit):
    log = audit.open()
    ids = []
    for _ in range(4):
        audit.clock.time += 10
        ids.append(log.reject(audit.denial()))
    start = audit.clock.time
    query = Query(decision="deny", since=start - 20, until=start)
    assert [event.record.id for event in read_events(audit.folder, query)] == ids[1:3]


def test_a_suppressed_reason_is_found_in_its_summary(audit):
    log = audit.open(anonymous_per_source=1)
    for reason in (Reason.UNKNOWN_KEY, Reason.MISTYPED_KEY):
        log.reject(audit.nobody(reason=reason))
    log.close()
    assert _kinds(read_events(audit.folder, Query(reason="mistyped-key"))) == ["summary"]


def test_a_record_is_found_by_its_id_and_with_it_its_outcome(audit):
    log = audit.open(segment_bytes=2000)
    audit.write(log, 10)
    receipt = log.admit(audit.admission())
    receipt.close(audit.outcome())
    audit.write(log, 10)
    event = find_record(audit.folder, receipt.record_id)
    assert event.record.id == receipt.record_id
    assert event.line in audit.lines()
    assert _kinds(read_events(audit.folder, Query(record_id=receipt.record_id))) == ["decision", "outcome"]


def test_an_id_that_nothing_has_is_none_and_one_that_is_no_id_is_refused(audit):
    audit.open().close()
    assert find_record(audit.folder, "01990f1e-0000-7000-8000-000000000000") is None
    for text in ("", "x", "01990f1e-0000-4000-8000-000000000000", "01990F1E-0000-7000-8000-000000000000"):
        with pytest.raises(BadNameError):
            find_record(audit.folder, text)


def test_a_follower_sees_new_records_new_segments_and_new_chains_once(audit):
    log = audit.open(segment_bytes=1500)
    written = audit.write(log, 3)
    rounds = iter(range(3))

    def sleep(_seconds):
        turn = next(rounds, None)
        if turn is None:
            raise EnoughError
        written.extend(audit.write(log if turn < 2 else audit.open(), 4))

    seen = [event.record.id for event in _follow(audit.folder, Query(tenant="acme"), sleep=sleep)]
    assert seen == written


def test_a_follower_from_the_end_leaves_out_what_was_there(audit):
    log = audit.open()
    audit.write(log, 3)
    new = []

    def sleep(_seconds):
        if new:
            raise EnoughError
        new.extend(audit.write(log, 2))

    seen = [event.record.id for event in _follow(audit.folder, sleep=sleep, is_from_end=True)]
    assert seen == new


def test_half_a_line_waits_until_it_is_whole(audit):
    log = audit.open()
    audit.write(log, 2)
    path = audit.segments[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    turns = iter(range(2))

    def sleep(_seconds):
        if next(turns, None) is None:
            raise EnoughError
        path.write_bytes(whole)

    seen = [event.line for event in _follow(audit.folder, sleep=sleep)]
    assert seen == whole.splitlines()


def test_a_line_that_is_no_record_does_not_end_the_reading(audit):
    log = audit.open()
    audit.write(log, 2)
    path = audit.segments[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\xff\x00 not a record\n", *lines[2:]]))
    assert len(list(read_events(audit.folder))) == len(lines)


def test_hundreds_of_short_chains_need_few_open_files(audit):
    for _ in range(60):
        audit.clock.time += 1
        log = audit.open()
        audit.write(log, 1)
        log.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))  # noqa: PTH208
    try:
        assert len(list(read_events(audit.folder, Query(tenant="acme")))) == 60
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_folder_that_is_not_there_is_unavailable(tmp_path):
    with pytest.raises(Unavailable):
        list(read_events(tmp_path / "absent"))


def _keys(audit):
    public = audit.key.public_key()
    return lambda _folder: {fingerprint(public): public}


def _marks(audit, source=None):
    return [event.is_proven for event in read_events(source or audit.folder, keys=_keys(audit))]


def test_records_behind_the_last_head_are_marked(audit):
    log = audit.open()
    audit.write(log, 3)
    assert _marks(audit) == [True, True, False, False, False]
    audit.clock.time += 11
    log.tick(audit.clock.now())
    assert _marks(audit) == [True] * 6
    assert [event.is_proven for event in read_events(audit.folder)] == [None] * 6


def test_a_mark_stays_on_what_a_killed_process_left(audit):
    log = audit.open()
    audit.write(log, 2)
    audit.kill(log)
    audit.clock.time += 20
    audit.open().close()
    assert _marks(audit) == [True, True, False, False, True, True, True, True]


def test_what_a_writer_itself_vouched_for_when_it_gave_its_chain_up_is_proven(audit):
    log = audit.open()
    audit.write(log, 3)
    [path] = audit.segments
    audit.forge(path)
    with pytest.raises(Unavailable):
        audit.write(log, 1)
    audit.clock.time += 2
    log.close()
    events = [event for event in read_events(audit.folder, keys=_keys(audit)) if event.path == path]
    assert [event.is_proven for event in events] == [True] * 5 + [False]


def test_a_chain_without_a_head_or_with_the_head_of_another_is_marked_whole(audit):
    audit.open().close()
    [path] = audit.segments
    forged = path.with_name(f"{path.name[:-21]}11111111-000001.jsonl")
    audit.forge(forged, 2, chain=forged.name.rpartition("-")[0])
    assert [e.is_proven for e in read_events(audit.folder, keys=_keys(audit)) if e.path == forged] == [
        False
    ] * 2
    with forged.open("ab") as file:
        file.write(path.read_bytes().splitlines(keepends=True)[-1])
    assert [e.is_proven for e in read_events(audit.folder, keys=_keys(audit)) if e.path == forged] == [
        False
    ] * 3


def test_a_record_put_behind_everything_is_marked_whatever_number_it_claims(audit):
    log = audit.open()
    audit.write(log, 2)
    log.close()
    [path] = audit.segments
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines(keepends=True)[2])
    assert _marks(audit)[-1] is False


def test_a_follower_marks_what_is_not_proven_when_it_comes(audit):
    log = audit.open()
    turns = iter([1, 0])

    def sleep(_seconds):
        if not next(turns, 0):
            raise EnoughError
        audit.write(log, 1)

    seen = _follow(audit.folder, sleep=sleep, keys=_keys(audit))
    assert [event.is_proven for event in seen] == [True, True, False]


def test_several_folders_and_files_are_one_stream(audit, tmp_path):
    audit.open().close()
    audit.clock.time += 5
    copy = tmp_path / "copy"
    shutil.copytree(audit.folder, copy)
    other = AuditLog(folder=tmp_path / "other", node="node-2", signing_key=audit.key, clock=audit.clock)
    other.close()
    [segment] = copy.glob("*-0*.jsonl")
    events = list(read_events([audit.folder, tmp_path / "other", segment]))
    assert len(events) == 9
    assert [event.record.time for event in events] == sorted(event.record.time for event in events)
    assert survey([audit.folder, tmp_path / "other"]) == Searched(2, ("node-1", "node-2"))
    assert find_record([copy, tmp_path / "other"], events[-1].record.id).path.parent == tmp_path / "other"


def test_a_folder_that_is_named_twice_is_read_once(audit):
    audit.open().close()
    assert len(list(read_events([audit.folder, audit.folder, *audit.segments]))) == 3


def test_a_question_is_found_by_what_it_names_and_never_as_a_decision(audit):
    about = Resource(kind=ResourceKind.MODEL, model="globex/asked-about")
    question = Question(action=Action.READ, resource=about)
    answered = Answered(question=question, is_yes=True, reason=Reason.PERMITTED)
    log = audit.open()
    receipt = log.admit(replace(audit.admission(), found=Evaluated(answers=(answered,), is_batch=False)))
    receipt.close(audit.outcome())

    def kinds(**query):
        return _kinds(read_events(audit.folder, Query(**query)))

    assert kinds(model="globex/asked-about") == ["question"]
    assert kinds(decision="allow") == ["decision"]
    assert kinds(reason="permitted") == ["decision", "question"]
    assert sorted(kinds(record_id=receipt.record_id)) == ["decision", "outcome", "question"]
    assert kinds(tenant="acme").count("question") == 1
