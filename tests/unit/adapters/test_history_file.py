from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gateway.adapters.history_file import UNREADABLE, HistoryFile, Seen
from gateway.model.errors import Unavailable

OURS, OTHER = "0a" * 16, "ff" * 16


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "history.json"


@pytest.fixture
def memory(path):
    return HistoryFile(path)


def test_the_first_history_ever_seen_is_taken(memory):
    assert memory.load() is None
    assert memory.accepts(OURS, 5)
    assert memory.accepts("", 0)


def test_what_was_noted_is_remembered_by_the_next_process(memory, path):
    memory.note(OURS, 5)
    other = HistoryFile(path)
    assert other.load() == Seen(history=OURS, generation=5)
    assert [other.accepts(OURS, one) for one in (5, 6, 4)] == [True, True, False]
    assert not other.accepts(OTHER, 5)
    assert not other.accepts("", 0)


def test_a_counter_that_went_back_is_noticed_by_the_process_that_saw_it(memory):
    memory.note(OURS, 5)
    assert not memory.accepts(OURS, 4)
    assert memory.accepts(OURS, 5)


def test_what_went_back_or_is_another_one_is_never_noted(memory, path):
    memory.note(OURS, 5)
    for history, generation in ((OURS, 4), (OTHER, 9), ("", 0), ("not a history", 9)):
        memory.note(history, generation)
        assert HistoryFile(path).load() == Seen(history=OURS, generation=5)


def test_an_operator_may_accept_another_history_or_an_older_state(memory, path):
    memory.note(OURS, 5)
    for history, generation in ((OURS, 3), (OTHER, 1)):
        running = HistoryFile(path)
        assert not running.accepts(history, generation)
        HistoryFile(path).accept(history, generation)
        # A process that refused it just now goes on by itself.
        assert running.accepts(history, generation)
        running.note(history, generation + 1)
        assert HistoryFile(path).load() == Seen(history=history, generation=generation + 1)


def test_a_server_without_facts_is_accepted_by_forgetting(memory, path):
    memory.note(OURS, 5)
    assert not memory.accepts("", 0)
    HistoryFile(path).accept("", 0)
    assert memory.accepts("", 0)
    # Its first change makes a history, which is then the first one seen.
    assert memory.accepts(OTHER, 1)
    memory.note(OTHER, 1)
    assert not HistoryFile(path).accepts(OURS, 5)


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
        b"[" * 100_000,
    ],
)
def test_a_file_that_does_not_parse_matches_nothing_until_an_operator_accepts(memory, path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    assert memory.load() == UNREADABLE
    for history, generation in ((OURS, 5), ("", 0), ("unreadable", 0)):
        assert history == UNREADABLE.history or not memory.accepts(history, generation)
    memory.note(OURS, 5)
    assert path.read_bytes() == content
    memory.accept(OURS, 5)
    assert memory.accepts(OURS, 5)


def test_what_cannot_be_read_is_no_first_day(memory, path):
    path.mkdir(parents=True)
    assert not memory.accepts(OURS, 5)


def test_what_cannot_be_written_is_a_failure_of_the_state_folder():
    memory = HistoryFile(Path("/proc/no-such-folder/history.json"))
    for write in (memory.note, memory.accept):
        with pytest.raises(Unavailable) as unavailable:
            write(OURS, 5)
        assert unavailable.value.dependency == "state"


def test_nothing_is_written_when_nothing_moved(memory, path):
    memory.note(OURS, 5)
    before = path.stat().st_ino
    memory.note(OURS, 5)
    HistoryFile(path).note(OURS, 5)
    assert path.stat().st_ino == before
    memory.note(OURS, 6)
    assert path.stat().st_ino != before


def test_no_half_written_file_is_left_beside_it(memory, path):
    memory.note(OURS, 5)
    memory.note(OURS, 6)
    assert [one.name for one in path.parent.iterdir()] == ["history.json"]


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_what_others_could_have_written_is_a_history_that_nobody_knows(memory, path, mode):
    memory.note(OURS, 5)
    path.chmod(mode)
    assert HistoryFile(path).load() == UNREADABLE
    assert not HistoryFile(path).accepts(OURS, 5)


def test_a_fifo_in_its_place_hangs_nobody(memory, path):
    memory.note(OURS, 5)
    path.unlink()
    os.mkfifo(path)
    assert HistoryFile(path).load() == UNREADABLE


def test_it_is_for_its_user_alone_whatever_the_umask_is(memory, path):
    before = os.umask(0)
    try:
        memory.note(OURS, 5)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_noted_in_a_folder_that_others_may_write(memory, path):
    memory.note(OURS, 5)
    path.parent.chmod(0o777)
    with pytest.raises(Unavailable):
        HistoryFile(path).accept(OURS, 9)
    path.parent.chmod(0o700)
    assert HistoryFile(path).load() == Seen(history=OURS, generation=5)
