from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path

import pytest

from gateway.adapters.history_file import UNREADABLE, HistoryFile
from gateway.model.errors import Unavailable
from gateway.model.stores import Moment

OURS, OTHER = "0a" * 16, "ff" * 16


def moment(generation, history=OURS, mark=None):
    return Moment(history=history, generation=generation, mark=mark or f"{generation:016x}")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "history.json"


@pytest.fixture
def memory(path):
    return HistoryFile(path)


def test_on_the_first_day_nothing_is_known(memory):
    assert memory.known() is None


def test_what_was_noted_is_known_to_the_next_process(memory, path):
    assert memory.note(moment(5))
    assert memory.known() == moment(5)
    assert HistoryFile(path).known() == moment(5)


def test_an_older_moment_is_noted_already_and_another_history_never_is(memory, path):
    memory.note(moment(5))
    assert memory.note(moment(4))
    for other in (moment(9, OTHER), moment(9, ""), moment(9, "not a history"), moment(9, mark="no mark")):
        assert not memory.note(other)
    assert HistoryFile(path).load() == moment(5)


def test_of_two_processes_the_newer_moment_stays(memory, path):
    other = HistoryFile(path)
    assert other.known() is None
    memory.note(moment(7))
    assert other.note(moment(6))  # a later moment is stored
    assert HistoryFile(path).load() == moment(7)
    assert other.known() == moment(7)


def test_many_that_write_at_once_leave_the_newest(path):
    def write(start):
        memory = HistoryFile(path)
        for number in range(start, 400, 4):
            while not memory.note(moment(number)):
                pass
            assert HistoryFile(path).load().generation >= number

    threads = [threading.Thread(target=write, args=[start]) for start in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert HistoryFile(path).load() == moment(400 - 4 + 3)


def test_a_writer_that_was_stopped_in_the_middle_holds_nobody_up_and_nothing_is_called_noted(memory, path):
    memory.note(moment(5))
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert not memory.note(moment(6))
    finally:
        os.close(descriptor)
    assert memory.note(moment(6))


def test_an_operator_may_accept_another_history_or_an_older_state(memory, path):
    memory.note(moment(5))
    for accepted in (moment(3, mark="ab" * 8), moment(1, OTHER)):
        running = HistoryFile(path)
        running.known()
        HistoryFile(path).accept(accepted)
        # A process that refused it a moment ago accepts it without a restart.
        assert running.reload() == accepted
        assert running.note(moment(accepted.generation + 1, accepted.history))
        assert HistoryFile(path).load() == moment(accepted.generation + 1, accepted.history)


def test_a_server_without_facts_is_accepted_by_forgetting(memory, path):
    memory.note(moment(5))
    HistoryFile(path).accept(Moment())
    assert memory.reload() is None
    # The server's first change makes a history, which is then the first one stored.
    assert memory.note(moment(1, OTHER))
    assert HistoryFile(path).known() == moment(1, OTHER)


def test_a_note_from_before_there_were_marks_gets_one(memory, path):
    path.parent.mkdir()
    path.write_text(json.dumps({"history": OURS, "generation": 5}))
    assert memory.known() == Moment(history=OURS, generation=5)
    assert memory.note(moment(5))
    assert HistoryFile(path).load() == moment(5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b"{",
        b"\xff\xfe",
        b"{}",
        b'{"history": "0a", "generation": 1}',
        b'{"history": "", "generation": 0}',
        b'{"history": null, "generation": 0}',
        json.dumps({"history": OURS}).encode(),
        json.dumps({"history": OURS, "generation": "5"}).encode(),
        json.dumps({"history": OURS, "generation": 5.5}).encode(),
        json.dumps({"history": OURS, "generation": -1}).encode(),
        json.dumps({"history": OURS, "generation": 5, "mark": 7}).encode(),
        json.dumps({"history": OURS, "generation": 5, "mark": "abc"}).encode(),
        b"[" * 100_000,
    ],
)
def test_a_file_that_does_not_parse_is_a_history_that_nobody_has_until_an_operator_accepts(
    memory, path, content
):
    path.parent.mkdir()
    path.write_bytes(content)
    assert memory.known() == UNREADABLE
    assert not memory.note(moment(5))
    assert path.read_bytes() == content
    memory.accept(moment(5))
    assert memory.known() == moment(5)


def test_what_cannot_be_read_is_no_first_day(memory, path):
    path.mkdir(parents=True)
    assert memory.known() == UNREADABLE


def test_what_cannot_be_written_is_a_failure_of_the_state_folder():
    memory = HistoryFile(Path("/proc/no-such-folder/history.json"))
    for write in (memory.note, memory.accept):
        with pytest.raises(Unavailable) as unavailable:
            write(moment(5))
        assert unavailable.value.dependency == "state"


def test_nothing_is_written_when_nothing_moved(memory, path):
    memory.note(moment(5))
    os.utime(path, (0, 0))
    memory.note(moment(5))
    HistoryFile(path).note(moment(5))
    assert path.stat().st_mtime == 0
    memory.note(moment(6))
    assert path.stat().st_mtime != 0


def test_a_note_of_the_same_history_overwrites_the_file_and_an_accepted_one_replaces_it(memory, path):
    memory.note(moment(5))
    before = path.stat()
    memory.note(moment(10**17))
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    assert HistoryFile(path).load() == moment(10**17)
    memory.accept(moment(1, OTHER))
    assert path.stat().st_ino != before.st_ino


@pytest.mark.parametrize("at", range(192))
def test_parts_of_two_notes_are_no_note(memory, path, at):
    notes = []
    for one in (moment(5), moment(6, mark="ab" * 8)):
        memory.note(one)
        notes.append(path.read_bytes())
    mixed = notes[1][:at] + notes[0][at:]
    path.write_bytes(mixed)
    known = {notes[0]: moment(5), notes[1]: moment(6, mark="ab" * 8)}
    assert HistoryFile(path).load() == known.get(mixed, UNREADABLE)


def test_a_reader_that_meets_an_unfinished_write_reads_again(memory, path, monkeypatch):
    memory.note(moment(5))
    whole, seen = path.read_bytes(), []

    def read(_path, *, max_bytes):
        seen.append(max_bytes)
        return whole if len(seen) == 3 else whole[: 20 + len(seen)] + b" " * (len(whole) - 20 - len(seen))

    monkeypatch.setattr("gateway.adapters.history_file.read_trusted", read)
    assert HistoryFile(path).load() == moment(5)
    assert len(seen) == 3


def test_a_file_that_a_backup_has_linked_to_is_replaced(memory, path):
    memory.note(moment(5))
    path.with_name("backup").hardlink_to(path)
    memory.note(moment(6))
    assert HistoryFile(path).load() == moment(6)
    assert HistoryFile(path.with_name("backup")).load() == moment(5)


def test_a_longer_file_is_replaced_as_a_whole(memory, path):
    path.parent.mkdir()
    document = {"history": OURS, "generation": 5, "mark": moment(5).mark, "more": "x" * 300}
    path.write_text(json.dumps(document))
    assert memory.note(moment(6))
    assert HistoryFile(path).load() == moment(6)


def test_a_file_of_a_version_without_a_checksum_is_known_and_gets_one(memory, path):
    path.parent.mkdir()
    path.write_text(json.dumps({"history": OURS, "generation": 5, "mark": moment(5).mark}) + "\n")
    assert memory.known() == moment(5)
    assert memory.note(moment(6))
    assert b"check" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b'"check"', b'"other"'))
    assert HistoryFile(path).load() == UNREADABLE


def test_no_half_written_file_is_left_beside_it(memory, path):
    memory.note(moment(5))
    memory.note(moment(6))
    assert sorted(one.name for one in path.parent.iterdir()) == ["history.json", "history.lock"]


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_what_others_could_have_written_is_a_history_that_nobody_knows(memory, path, mode):
    memory.note(moment(5))
    path.chmod(mode)
    assert HistoryFile(path).known() == UNREADABLE
    assert not HistoryFile(path).note(moment(6))


def test_a_fifo_in_its_place_hangs_nobody(memory, path):
    memory.note(moment(5))
    path.unlink()
    os.mkfifo(path)
    assert HistoryFile(path).load() == UNREADABLE


def test_it_is_for_its_user_alone_whatever_the_umask_is(memory, path):
    before = os.umask(0)
    try:
        memory.note(moment(5))
    finally:
        os.umask(before)
    assert [one.stat().st_mode & 0o777 for one in path.parent.iterdir()] == [0o600, 0o600]


def test_nothing_is_noted_in_a_folder_that_others_may_write(memory, path):
    memory.note(moment(5))
    path.parent.chmod(0o777)
    with pytest.raises(Unavailable):
        HistoryFile(path).accept(moment(9))
    with pytest.raises(Unavailable):
        HistoryFile(path).note(moment(9))
    path.parent.chmod(0o700)
    assert HistoryFile(path).load() == moment(5)
