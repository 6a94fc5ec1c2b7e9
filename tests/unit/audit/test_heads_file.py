"""`heads.jsonl` is linked line to line, whichever process appends, so that every removal leaves a gap."""

from __future__ import annotations

import hashlib
import json
import os

import pytest


@pytest.fixture
def three(audit):
    """Three chains, one after the other, each closed."""
    for _ in range(3):
        log = audit.open()
        audit.write(log, 3)
        log.close()
        audit.clock.time += 60
    assert audit.verify().is_intact
    return audit


def _lines(audit):
    return (audit.folder / "heads.jsonl").read_bytes().splitlines(keepends=True)


def _put(audit, lines):
    (audit.folder / "heads.jsonl").write_bytes(b"".join(lines))


def _head(line):
    return json.loads(line)["head"]


def _chains(audit):
    return list(dict.fromkeys(_head(line)["chain"] for line in _lines(audit)))


def _resealed(covered):
    return covered[:-1] + b',"hash":"%b"}\n' % hashlib.sha256(covered).hexdigest().encode()


@pytest.mark.parametrize("index", [0, 1])
def test_a_chain_that_is_taken_away_with_its_own_lines_leaves_a_gap_that_is_named(three, index):
    gone = _chains(three)[index]
    for path in three.segments:
        if path.name.startswith(gone):
            path.unlink()
    kept = [line for line in _lines(three) if _head(line)["chain"] != gone]
    following = _chains(three)[index + 1]
    first_after = next(n for n, line in enumerate(kept, 1) if _head(line)["chain"] == following)
    _put(three, kept)
    report = three.verify()
    assert not report.is_intact
    assert report.missing_chains == ()
    (problem,) = report.problems
    assert f"heads.jsonl, line {first_after}:" in problem
    assert _head(kept[first_after - 1])["time"] in problem


def test_each_line_holds_its_head_as_the_segment_has_it(three):
    listed = [
        line[line.index(b'"head":') + 7 : line.index(b',"kind":"listed-head"')] for line in _lines(three)
    ]
    heads = [line for line in three.lines() if json.loads(line)["kind"] == "head"]
    assert sorted(listed) == sorted(heads)


def test_exchanged_lines_are_noticed(three):
    lines = _lines(three)
    lines[1], lines[2] = lines[2], lines[1]
    _put(three, lines)
    assert any("line 2" in problem for problem in three.verify().problems)


def test_a_link_that_is_bent_over_a_gap_is_not_signed(three):
    first, _, third, *rest = _lines(three)
    prev = b'"kind":"listed-head","prev":"%b"'
    linked, gap = (prev % json.loads(third)["prev"].encode()), (prev % json.loads(first)["hash"].encode())
    assert third.count(linked) == 1
    bent = third[:-76].replace(linked, gap)
    _put(three, [first, _resealed(bent + b"}"), *rest])
    problems = three.verify().problems
    assert any("line 2: the signature" in problem for problem in problems), problems


def test_lines_cut_off_the_front_are_noticed(three):
    _put(three, _lines(three)[2:])
    assert any("line 1" in problem for problem in three.verify().problems)


def test_writing_goes_on_after_a_line_that_somebody_spoilt_and_verify_names_it(three):
    lines = _lines(three)
    _put(three, [*lines[:-1], b"spoilt\n"])
    three.open().close()
    assert any(f"line {len(lines)}:" in problem for problem in three.verify().problems)
    _put(three, [line for line in _lines(three) if line != b"spoilt\n"])
    assert three.verify().problems


def test_half_a_line_that_a_crash_left_is_no_part_of_the_links(three):
    whole = _lines(three)
    _put(three, [*whole, whole[-1][:200]])
    assert three.verify().is_intact
    three.open().close()
    assert three.verify().is_intact
    assert _lines(three)[: len(whole)] == whole


def test_processes_that_append_at_the_same_time_write_one_chain_of_lines(audit):
    audit.open().close()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(15):
                    audit.open().close()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert len(_lines(audit)) == 2 * 61
    assert audit.verify().is_intact
