"""A `heads.jsonl` that is cut, replaced or removed: writers detect it, and `verify` reports it for good."""

from __future__ import annotations

import json
import shutil

import pytest

from gateway.audit import AuditLog, Ending, Verdict, verify
from gateway.model.errors import Unavailable

GENESIS = "0" * 64


@pytest.fixture
def busy(audit):
    """A closed chain of a command, and a running gateway that has signed some heads."""
    command = audit.open()
    audit.write(command, 2)
    command.close()
    audit.clock.time += 1
    audit.gateway = audit.open()
    for _ in range(3):
        _go_on(audit)
    assert audit.verify().is_intact
    return audit


def _go_on(audit, log=None):
    """Let some time pass, with records and the ticks of the server."""
    log = log or audit.gateway
    audit.write(log, 2)
    audit.clock.time += 11
    log.tick(audit.clock.now())


def _outlive(audit):
    """Let the gateway detect the loss and continue."""
    with pytest.raises(Unavailable):
        audit.gateway.tick(audit.clock.now())
    assert not audit.gateway.is_healthy()
    audit.clock.time += 2
    assert audit.gateway.is_healthy()


def _remove(path):
    path.unlink()


def _empty(path):
    path.write_bytes(b"")


def _cut_last(path):
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def _keep_first(path):
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


def _cut_front(path):
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[2:]))


def _cut_half_a_line(path):
    path.write_bytes(path.read_bytes()[:-10])


def _replace_by_another(path):
    """Replace it by the heads of another folder, all of whose lines are valid."""
    path.write_bytes((path.parent.parent / "other" / "heads.jsonl").read_bytes())


TAMPERING = [_remove, _empty, _cut_last, _keep_first, _cut_front, _cut_half_a_line, _replace_by_another]


@pytest.fixture
def other(audit):
    """Another folder that was signed with the same key."""
    log = AuditLog(
        folder=audit.folder.parent / "other", node="node-1", signing_key=audit.key, clock=audit.clock
    )
    audit.write(log, 2)
    log.close()


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("tamper", TAMPERING)
def test_a_running_writer_notices_within_a_tick_and_verify_names_it_for_good(busy, tamper):
    tamper(busy.heads)
    _outlive(busy)
    assert not busy.verify().is_intact
    for _ in range(3):
        _go_on(busy)
        assert not busy.verify().is_intact
    opened = [json.loads(line) for line in busy.lines() if b'"kind":"open"' in line]
    assert any(one["reason"].startswith("new chain: ") and "heads.jsonl" in one["reason"] for one in opened)
    busy.gateway.close()
    for _ in range(2):  # the next starts find a file that appears valid
        log = busy.open()
        _go_on(busy, log)
        log.close()
        report = busy.verify()
        assert report.verdict is Verdict.DAMAGED
        assert any("heads.jsonl" in problem for problem in report.problems)


@pytest.mark.parametrize("tamper", [_remove, _empty, _cut_last])
def test_it_is_noticed_before_the_next_head_as_well(busy, tamper):
    audit = busy
    tamper(audit.heads)
    audit.clock.time += 11  # no tick comes, as in a command
    with pytest.raises(Unavailable):
        audit.gateway.reject(audit.denial())
    assert not audit.gateway.is_healthy()


@pytest.mark.parametrize("tamper", TAMPERING[:-1])
def test_it_is_noticed_by_the_last_head(busy, tamper):
    tamper(busy.heads)
    with pytest.raises(Unavailable):
        busy.gateway.close()
    assert busy.verify().verdict is Verdict.DAMAGED


def test_heads_and_all_closed_chains_taken_away_beside_a_running_gateway_stay_damage(busy):
    """From an issue: it was damage for 23 seconds, and then reported as intact."""
    running = busy.gateway._writer._links.chain
    gone = [path for path in busy.segments if not path.name.startswith(running)]
    assert gone
    for path in (*gone, busy.heads):
        path.unlink()
    assert busy.verify().verdict is Verdict.DAMAGED
    _outlive(busy)
    for _ in range(3):
        _go_on(busy)
        report = busy.verify()
        assert report.verdict is Verdict.DAMAGED
    lines = busy.heads.read_bytes().splitlines()
    assert json.loads(lines[0])["prev"] != GENESIS  # it is not started again as a new file
    busy.gateway.close()
    assert busy.verify().verdict is Verdict.DAMAGED


def test_a_start_that_finds_no_heads_beside_older_chains_begins_no_new_file(busy):
    busy.gateway.close()
    last = json.loads(busy.heads.read_bytes().splitlines()[-1])
    busy.heads.unlink()
    log = busy.open()
    first = json.loads(busy.heads.read_bytes().splitlines()[0])
    assert first["prev"] == last["prev"]  # what the last head of the older chains knew
    opened = json.loads([line for line in busy.lines() if b'"kind":"open"' in line][-1])
    assert opened["reason"].startswith("start: heads.jsonl is missing")
    log.close()
    assert busy.verify().verdict is Verdict.DAMAGED


def test_the_first_start_of_all_begins_the_file(audit):
    audit.open().close()
    assert json.loads(audit.heads.read_bytes().splitlines()[0])["prev"] == GENESIS


def test_every_head_says_what_the_file_held(busy):
    content = busy.heads.read_bytes()
    heads = [json.loads(line) for line in busy.lines() if b'"kind":"head"' in line]
    for head in heads:
        before = content[: head["listed_bytes"]].splitlines()
        assert head["listed_hash"] == (json.loads(before[-1])["hash"] if before else GENESIS)
    assert len({head["listed_bytes"] for head in heads}) == len(heads)


def test_a_head_that_knows_more_than_the_file_has_is_damage_in_a_copy(busy, tmp_path):
    """The chain's last heads exist; the file was cut to what its first ones knew."""
    copy = tmp_path / "copy"
    shutil.copytree(busy.folder, copy)
    lines = busy.heads.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines) - 1):
        (copy / "heads.jsonl").write_bytes(b"".join(lines[:kept]))
        assert verify(copy).verdict is Verdict.DAMAGED, kept
    (copy / "heads.jsonl").write_bytes(b"".join(lines[:-1]))
    assert verify(copy).problems == ()  # the last head itself is in its segment and proves everything


def test_segments_without_the_file_of_heads_prove_as_far_as_their_own_heads_go(busy):
    report = verify(busy.segments)
    assert report.is_intact
    assert {chain.ending for chain in report.chains} == {Ending.CLOSED, Ending.OPEN}


def test_a_file_that_several_processes_extend_is_never_taken_for_a_lost_one(audit):
    logs = [audit.open() for _ in range(4)]
    for turn in range(12):
        audit.clock.time += 3
        audit.write(logs[turn % 4], 2)
        for log in logs:
            log.tick(audit.clock.now())
        if turn == 6:
            logs[0].close()
            logs[0] = audit.open()
    for log in logs:
        log.close()
    report = audit.verify()
    assert (report.verdict, len(report.chains)) == (Verdict.INTACT, 5)
