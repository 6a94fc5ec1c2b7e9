"""Every change of one byte, one line or one file of a log is found, and the report names where.

The sample has a thousand records in several segments. A line is refused by its hash before anything else is
looked at, so every byte of every line can be tried at the level of lines; that the whole verification
names file and line is tried at places spread over the sample, and at all of them in the slow tests.
"""

from __future__ import annotations

import random
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import verify
from gateway.audit.record import find_digest
from tests.unit.audit.conftest import AuditFolder

RECORDS = 1000


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The folder, and what was in it."""
    audit = AuditFolder(tmp_path_factory.mktemp("sample") / "audit", key=Ed25519PrivateKey.generate())
    log = audit.open(segment_bytes=150_000, head_records=100)
    audit.write(log, RECORDS)
    log.close()
    assert len(audit.lines()) >= RECORDS
    assert len(audit.segments) > 4
    assert audit.verify().is_intact
    return audit


@pytest.fixture
def copy(sample, tmp_path):
    shutil.copytree(sample.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("live"))
    return tmp_path / "copy"


def report_of(sample, copy):
    return verify(copy, trusted_keys=[sample.key.public_key()])


def places(lines, sample, step):
    """Every `step`th place of the lines of all segments: file, line from 0."""
    found = [(path.name, number) for path in sample.segments for number in range(lines[path.name])]
    return found[::step]


def lines_of(folder):
    return {path.name: path.read_bytes().splitlines(keepends=True) for path in folder.glob("*-0*.jsonl")}


def fault_of(sample, copy, name, lines):
    path = copy / name
    before = path.read_bytes()
    path.write_bytes(b"".join(lines))
    try:
        report = report_of(sample, copy)
    finally:
        path.write_bytes(before)
    assert not report.is_intact
    return next((one.fault for one in report.chains if one.fault), None)


def test_no_byte_of_a_line_can_be_changed_without_its_hash(sample):
    chance = random.Random(1)
    lines = [line for path in sample.segments for line in path.read_bytes().splitlines(keepends=True)]
    assert all(find_digest(line) for line in lines)
    for line in lines[:: len(lines) // 40]:
        assert_each_byte_counts(line, chance)


@pytest.mark.slow
def test_no_byte_of_any_line_can_be_changed_without_its_hash(sample):
    chance = random.Random(2)
    for path in sample.segments:
        for line in path.read_bytes().splitlines(keepends=True):
            assert_each_byte_counts(line, chance)


def assert_each_byte_counts(line, chance):
    for at in range(len(line)):
        edited = line[:at] + bytes([line[at] ^ chance.randint(1, 255)]) + line[at + 1 :]
        assert find_digest(edited) is None, (at, line)


SPREAD = [pytest.param(61, id="spread"), pytest.param(1, id="all", marks=pytest.mark.slow)]


@pytest.mark.parametrize("step", SPREAD)
def test_a_changed_byte_is_named_with_its_line(sample, copy, step):
    chance = random.Random(3)
    lines = lines_of(sample.folder)
    for name, number in places({one: len(lines[one]) for one in lines}, sample, step):
        edited = list(lines[name])
        line = edited[number]
        at = chance.randrange(len(line))
        edited[number] = line[:at] + bytes([line[at] ^ chance.randint(1, 255)]) + line[at + 1 :]
        fault = fault_of(sample, copy, name, edited)
        assert (fault.file, fault.line) == (name, number + 1)


@pytest.mark.parametrize("step", SPREAD)
def test_a_line_end_that_is_gone_is_named(sample, copy, step):
    lines = lines_of(sample.folder)
    for name, number in places({one: len(lines[one]) for one in lines}, sample, step):
        edited = list(lines[name])
        edited[number] = edited[number][:-1] + b" "
        fault = fault_of(sample, copy, name, edited)
        assert (fault.file, fault.line) == (name, number + 1)


@pytest.mark.parametrize("step", SPREAD)
def test_a_record_that_is_gone_is_named(sample, copy, step):
    lines = lines_of(sample.folder)
    for name, number in places({one: len(lines[one]) for one in lines}, sample, step):
        edited = list(lines[name])
        del edited[number]
        fault = fault_of(sample, copy, name, edited)
        if number < len(edited):
            assert (fault.file, fault.line) == (name, number + 1)
        else:  # the last of a segment: what follows it is in the next one, if there is one
            assert fault.seq == last_seq_before(sample, name)


def last_seq_before(sample, name):
    """The number of the last record of a segment."""
    names = [path.name for path in sample.segments]
    return sum(len(lines_of(sample.folder)[one]) for one in names[: names.index(name) + 1])


@pytest.mark.parametrize("step", SPREAD)
def test_two_records_that_were_exchanged_are_named(sample, copy, step):
    lines = lines_of(sample.folder)
    for name, number in places({one: len(lines[one]) - 1 for one in lines}, sample, step):
        edited = list(lines[name])
        edited[number], edited[number + 1] = edited[number + 1], edited[number]
        fault = fault_of(sample, copy, name, edited)
        assert (fault.file, fault.line) == (name, number + 1)


@pytest.mark.parametrize("step", SPREAD)
def test_a_segment_that_was_cut_is_named(sample, copy, step):
    lines = lines_of(sample.folder)
    chance = random.Random(4)
    for name, number in places({one: len(lines[one]) for one in lines}, sample, step):
        for cut in (b"", lines[name][number][: chance.randrange(1, len(lines[name][number]))]):
            fault = fault_of(sample, copy, name, [*lines[name][:number], cut])
            first_missing = last_seq_before(sample, name) - len(lines[name]) + number + 1
            assert fault.seq == first_missing


def test_segments_that_were_exchanged_removed_or_doubled_are_named(sample, copy):
    names = [path.name for path in sample.segments]
    lines = lines_of(sample.folder)
    for at, name in enumerate(names):
        for other in names[at + 1 :]:
            (copy / other).write_bytes(b"".join(lines[name]))
            fault = fault_of(sample, copy, name, lines[other])
            assert fault.file == name
            (copy / other).write_bytes(b"".join(lines[other]))
        (copy / name).unlink()
        report = report_of(sample, copy)
        assert [missing for one in report.chains for missing in one.missing_segments] == [name] or not at
        assert not report.is_intact
        (copy / name).write_bytes(b"".join(lines[name]))
    assert report_of(sample, copy).is_intact


@pytest.mark.parametrize(
    "step", [pytest.param(401, id="spread"), pytest.param(7, id="more", marks=pytest.mark.slow)]
)
def test_a_changed_byte_of_the_heads_is_a_problem_that_names_a_line(sample, copy, step):
    chance = random.Random(5)
    path = copy / "heads.jsonl"
    content = path.read_bytes()
    for at in range(0, len(content), step):
        path.write_bytes(content[:at] + bytes([content[at] ^ chance.randint(1, 255)]) + content[at + 1 :])
        report = report_of(sample, copy)
        assert not report.is_intact
        assert any(
            "heads.jsonl, line" in problem or "heads.jsonl was cut" in problem for problem in report.problems
        ) or any(one.fault for one in report.chains)
