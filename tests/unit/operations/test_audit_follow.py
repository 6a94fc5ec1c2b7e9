"""Following writes everything of every node at least once, whatever ends it and whichever node is away."""

from __future__ import annotations

import json
import stat
import threading

import pytest

from gateway.model.errors import BadNameError, Misconfigured, Unavailable
from gateway.operations.audit_follow import CursorFile, Follow, FollowedNode, FollowedPage


class Nodes:
    """Nodes with lists of lines; a cursor is how many were read. Each page has two lines at most."""

    def __init__(self, **lines):
        self.lines = {name: [one.encode() for one in text.split()] for name, text in lines.items()}
        self.away = {}
        self.asked = threading.Event()

    def nodes(self):
        return [FollowedNode(name, f"http://{name}") for name in self.lines]

    def read(self, url, after, *, waits):
        name = url.removeprefix("http://")
        if error := self.away.get(name):
            self.asked.set()
            raise error
        lines = self.lines[name]
        if after == "bad":
            raise BadNameError("no cursor.")
        begin = len(lines) if after == "end" else int(after or 0)
        end = min(begin + 2, len(lines))
        return FollowedPage(lines[begin:end], str(end), end == len(lines))


class StoppedError(Exception):
    """Stands for whatever kills the process."""


def follow(nodes, file, write, **more):
    told = []
    Follow(nodes, CursorFile(file), write, told.append, is_once=True, **more).run()
    return told


def test_all_lines_of_all_nodes_are_written_each_nodes_in_order(tmp_path):
    nodes, file, written = Nodes(a="a1 a2 a3 a4 a5", b="b1 b2 b3"), tmp_path / "cursors.json", []
    follow(nodes, file, written.extend)
    assert [one for one in written if one[:1] == b"a"] == nodes.lines["a"]
    assert [one for one in written if one[:1] == b"b"] == nodes.lines["b"]
    assert json.loads(file.read_bytes()) == {"version": 1, "nodes": {"a": "5", "b": "3"}}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_the_next_run_goes_on_where_the_last_one_ended(tmp_path):
    nodes, file, written = Nodes(a="a1 a2 a3"), tmp_path / "cursors.json", []
    follow(nodes, file, lambda _: None)
    nodes.lines["a"].append(b"a4")
    follow(nodes, file, written.extend)
    assert written == [b"a4"]


def test_what_was_not_written_out_comes_again_however_a_run_ends(tmp_path):
    """Killed in each write, once: nothing is missed, and no page comes twice that was written out."""
    nodes, file = Nodes(a="1 2 3 4 5 6 7"), tmp_path / "cursors.json"
    written = []

    def write_and_die(lines):
        written.extend(lines)
        raise StoppedError

    def write_half_and_die(lines):
        written.append(lines[0])
        raise StoppedError

    for write in (write_and_die, write_half_and_die):
        with pytest.raises(StoppedError):
            follow(nodes, file, write)
    follow(nodes, file, written.extend)
    assert written == [b"1", b"2", b"1", *nodes.lines["a"]]


def test_a_node_that_is_away_is_tried_again_and_the_others_go_on(tmp_path):
    nodes, written, told = Nodes(a="a1 a2", b="b1"), [], []
    nodes.away["b"] = Unavailable("gateway", "it is away")
    has_all, has_a = threading.Event(), threading.Event()

    def write(lines):
        written.extend(lines)
        if b"a2" in written:
            has_a.set()
        if b"b1" in written:
            has_all.set()
            raise StoppedError

    run = Follow(nodes, CursorFile(tmp_path / "cursors.json"), write, told.append, longest_pause_seconds=0.01)

    def run_until_stopped():
        with pytest.raises(StoppedError):
            run.run()

    thread = threading.Thread(target=run_until_stopped)
    thread.start()
    assert has_a.wait(30)
    assert nodes.asked.wait(30)
    assert not has_all.is_set()
    del nodes.away["b"]
    thread.join(30)
    assert sorted(written) == [b"a1", b"a2", b"b1"]
    assert [one.split(":")[0] for one in told] == ["b", "b"]


def test_new_nodes_are_found_while_it_runs(tmp_path):
    nodes, written = Nodes(a="a1"), []

    def write(lines):
        written.extend(lines)
        nodes.lines.setdefault("b", [b"b1"])
        if b"b1" in written:
            raise StoppedError

    run = Follow(nodes, CursorFile(tmp_path / "cursors.json"), write, print, list_seconds=0.01)
    with pytest.raises(StoppedError):
        run.run()
    assert set(written) == {b"a1", b"b1"}


def test_with_from_end_nothing_old_is_written(tmp_path):
    nodes, file, written = Nodes(a="a1 a2"), tmp_path / "cursors.json", []
    follow(nodes, file, written.extend, is_from_end=True)
    nodes.lines["a"].append(b"a3")
    follow(nodes, file, written.extend, is_from_end=True)
    assert written == [b"a3"]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Unavailable("gateway", "away"), Unavailable),
        (Misconfigured("key", "refused"), Misconfigured),
        (BadNameError("no cursor"), BadNameError),
    ],
)
def test_what_cannot_be_waited_for_ends_it(tmp_path, failure, expected):
    nodes = Nodes(a="a1")
    nodes.away["a"] = failure
    with pytest.raises(expected):
        follow(nodes, tmp_path / "cursors.json", print)


@pytest.mark.parametrize("content", ["", "x", "[]", '{"nodes":{"a":1}}', '{"nodes":[]}'])
def test_a_file_that_holds_no_cursors_is_not_overwritten(tmp_path, content):
    file = tmp_path / "cursors.json"
    file.write_text(content)
    with pytest.raises(Misconfigured):
        follow(Nodes(a="a1"), file, print)
    assert file.read_text() == content


def test_without_a_node_there_is_nothing_to_follow(tmp_path):
    with pytest.raises(Misconfigured):
        follow(Nodes(), tmp_path / "cursors.json", print)
