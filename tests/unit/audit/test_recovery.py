"""The chain of a killed process is closed by the next start on its node, stays unproven, and no other is."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import AuditLog, Damage, Ending, Verdict, verify
from gateway.audit.promise import PROMISED_RECORDS
from gateway.audit.recovery import MOST_AT_ONCE

WRITTEN_BEFORE = Path(__file__).parent / "written_before"


@pytest.fixture
def killed(audit):
    """A log whose process was killed: opening, head, three records."""
    log = audit.open()
    audit.write(log, 3)
    audit.kill(log)
    audit.clock.time += 2
    return audit


def _start(audit):
    audit.open().close()


def _of(audit, path):
    chain = path.name.rpartition("-")[0]
    return next(one for one in audit.verify().chains if one.chain == chain)


def _recovered(audit):
    return [head for head in audit.listed() if head["state"] == "recovered"]


def test_before_the_next_start_its_records_are_not_proven_and_no_damage(killed):
    report = killed.verify()
    assert (report.verdict, report.unproven) == (Verdict.NOT_ALL_PROVEN, 3)
    assert report.chains[0].ending is Ending.OPEN  # the newest head of the node names it: its own


def test_the_next_start_says_how_far_it_found_the_chain_to_go(killed):
    [path] = killed.segments
    before = path.read_bytes()
    _start(killed)
    [head] = _recovered(killed)
    assert (head["seq"], head["unproven_from"], head["chain"]) == (6, 3, path.name.rpartition("-")[0])
    assert head["prev"] == json.loads(before.splitlines()[-1])["hash"]
    assert head["chain"] not in head["live"]
    assert path.read_bytes() == before  # no process writes to another's segment
    one = _of(killed, path)
    assert (one.ending, one.proven_seq, one.unproven, one.fault) == (Ending.RECOVERED, 2, 3, None)
    assert list((killed.folder / "live").iterdir()) == []


def test_later_heads_never_prove_what_was_recovered(killed):
    [path] = killed.segments
    for _ in range(3):
        _start(killed)
        killed.clock.time += 100
        one = _of(killed, path)
        assert (one.unproven, one.proven_seq) == (3, 2)
    assert len(_recovered(killed)) == 1
    assert killed.verify().verdict is Verdict.NOT_ALL_PROVEN


@pytest.mark.parametrize("count", [1, 5, 2000])
def test_records_behind_a_recovered_end_are_damage(killed, count):
    [path] = killed.segments
    _start(killed)
    killed.forge(path, count)
    fault = _of(killed, path).fault
    assert (fault.damage, fault.file, fault.line, fault.seq) == (Damage.AFTER_RECOVERED, path.name, 6, 6)


def test_a_recovered_end_that_is_cut_off_is_damage(killed):
    [path] = killed.segments
    _start(killed)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert _of(killed, path).fault.damage is Damage.TRUNCATED


def test_a_recovered_end_that_is_rewritten_is_damage(killed):
    [path] = killed.segments
    _start(killed)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    killed.forge(path)
    assert _of(killed, path).fault.damage is Damage.REWRITTEN


def test_a_chain_is_recovered_once_whoever_puts_its_file_back(killed):
    [path] = killed.segments
    chain = path.name.rpartition("-")[0]
    _start(killed)
    killed.forge(path)
    (killed.folder / "live" / chain).touch()
    _start(killed)
    assert len(_recovered(killed)) == 1
    assert _of(killed, path).fault.damage is Damage.AFTER_RECOVERED


def test_a_chain_that_was_closed_or_given_up_is_not_recovered(audit):
    log = audit.open()
    audit.write(log, 2)
    log.close()
    [closed] = audit.segments
    audit.clock.time += 1
    other = audit.open()
    [given_up] = set(audit.segments) - {closed}
    with given_up.open("ab") as file:
        file.write(b"x")
    assert not other.is_healthy()
    audit.clock.time += 2
    assert other.is_healthy()
    for path in (closed, given_up):
        (audit.folder / "live" / path.name.rpartition("-")[0]).touch()
    other.close()
    _start(audit)
    assert _recovered(audit) == []
    assert _of(audit, given_up).ending is Ending.ABANDONED


def _long(audit, path):
    audit.forge(path, PROMISED_RECORDS - 2)  # three honest ones exist


def _late(audit, path):
    audit.forge(path, seconds=10.001)


def _early(audit, path):
    audit.forge(path, seconds=-0.001)


def _edited(_room, path):
    path.write_bytes(path.read_bytes().replace(b'"acme"', b'"evil"', 1))


def _gapped(_room, path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], *lines[4:]]))


def _junk(_room, path):
    with path.open("ab") as file:
        file.write(b"junk\n")


def _forged_head(audit, path):
    """A head with a right hash and no valid signature."""
    audit.forge(path, kind="head")


def _headless(_room, path):
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


def _emptied(_room, path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "damage"),
    [
        (_long, Damage.UNSIGNED_TAIL),
        (_late, Damage.UNSIGNED_TAIL),
        (_early, Damage.UNSIGNED_TAIL),
        (_edited, Damage.EDITED),
        (_gapped, Damage.DELETED),
        (_junk, Damage.MALFORMED),
        (_forged_head, Damage.BAD_SIGNATURE),
        (_headless, Damage.TRUNCATED),
        (_emptied, Damage.TRUNCATED),
    ],
)
def test_what_no_process_of_ours_leaves_is_never_recovered_and_is_damage(killed, spoil, damage):
    [path] = killed.segments
    spoil(killed, path)
    assert _of(killed, path).fault.damage is damage
    _start(killed)
    assert _recovered(killed) == []
    fault = _of(killed, path).fault
    assert (fault.damage, fault.file) == (damage, path.name)


def test_as_many_records_as_the_promise_allows_are_recovered_and_not_one_more(killed):
    [path] = killed.segments
    killed.forge(path, PROMISED_RECORDS - 3)
    assert _of(killed, path).fault is None
    _start(killed)
    assert _of(killed, path).unproven == PROMISED_RECORDS


def test_half_a_line_that_the_kill_left_stands_in_nobodys_way(killed):
    [path] = killed.segments
    with path.open("ab") as file:
        file.write(b'{"kind":"decision","sche')
    _start(killed)
    one = _of(killed, path)
    assert (one.ending, one.unproven, one.torn_tail) == (Ending.RECOVERED, 3, path.name)
    with path.open("ab") as file:
        file.write(b"\n")  # an attacker completes the line
    assert _of(killed, path).fault is not None


def test_a_chain_with_nothing_behind_its_head_is_ended_as_well(audit):
    log = audit.open()
    audit.kill(log)
    [path] = audit.segments
    _start(audit)
    assert (_of(audit, path).ending, _of(audit, path).unproven) == (Ending.RECOVERED, 0)
    assert audit.verify().verdict is Verdict.INTACT
    audit.forge(path)
    assert _of(audit, path).fault.damage is Damage.AFTER_RECOVERED


def test_a_tail_over_two_segments_is_recovered(audit):
    log = audit.open()
    audit.write(log, 2)
    audit.segments[0].chmod(0o400)
    with pytest.raises(Exception, match="read-only"):
        audit.write(log, 1)
    audit.write(log, 2)
    audit.kill(log)
    assert len(audit.segments) == 2
    _start(audit)
    [head] = _recovered(audit)
    assert (head["segment"], head["unproven_from"]) == (2, 3)
    assert audit.verify().is_intact


def test_a_node_recovers_its_own_chains_only(killed):
    [path] = killed.segments
    other = AuditLog(folder=killed.folder, node="node-10", signing_key=killed.key, clock=killed.clock)
    other.close()
    assert _recovered(killed) == []
    _start(killed)
    assert _of(killed, path).ending is Ending.RECOVERED


def test_a_chain_that_another_key_signed_is_not_recovered(killed):
    [path] = killed.segments
    killed.key = Ed25519PrivateKey.generate()
    _start(killed)
    assert _recovered(killed) == []
    assert _of(killed, path).ending is Ending.ENDED
    assert _of(killed, path).unproven == 3


def test_several_killed_chains_are_recovered_by_one_start(audit):
    logs = []
    for _ in range(3):
        logs.append(audit.open())
        audit.clock.time += 0.1
    for log in logs:
        audit.write(log, 2)
        audit.kill(log)
    _start(audit)
    assert {head["chain"] for head in _recovered(audit)} == {
        path.name.rpartition("-")[0] for path in audit.segments[:3]
    }
    assert audit.verify().unproven == 6


def test_many_files_of_somebody_hold_no_start_up(audit):
    live = audit.folder / "live"
    audit.open().close()
    chain = audit.segments[0].name.rpartition("-")[0]
    for number in range(3 * MOST_AT_ONCE):
        (live / f"{chain[:-8]}{number:08x}").touch()
    _start(audit)
    assert len(list(live.iterdir())) == 2 * MOST_AT_ONCE


def test_links_and_pipes_in_the_live_folder_harm_no_start(audit, tmp_path):
    audit.open().close()
    chain = audit.segments[0].name.rpartition("-")[0]
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (audit.folder / "live" / f"{chain[:-8]}00000000").symlink_to(victim)
    os.mkfifo(audit.folder / "live" / f"{chain[:-8]}00000001")
    _start(audit)
    assert victim.read_text() == "mine"


def test_a_copy_has_no_locks_and_verifies_alike(killed, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(killed.folder, copy)
    assert verify(copy).verdict is Verdict.NOT_ALL_PROVEN
    shutil.rmtree(copy / "live")
    assert verify(copy).chains[0].ending is Ending.OPEN


def test_a_chain_lives_as_long_as_the_newest_head_of_its_node_names_it(audit):
    first = audit.open()
    audit.clock.time += 0.1
    second = audit.open()
    audit.write(first, 2)
    audit.clock.time += 11
    audit.write(second, 1)  # a head comes first, and names both
    endings = [chain.ending for chain in audit.verify().chains]
    assert endings == [Ending.OPEN, Ending.OPEN]
    audit.kill(first)
    audit.clock.time += 11
    audit.write(second, 1)
    endings = [chain.ending for chain in audit.verify().chains]
    assert endings == [Ending.ENDED, Ending.OPEN]
    other = AuditLog(folder=audit.folder, node="elsewhere", signing_key=audit.key, clock=audit.clock)
    other.close()
    assert [chain.ending for chain in audit.verify().chains][1:] == [Ending.ENDED, Ending.OPEN]


def test_a_chain_of_another_node_lives_by_the_heads_of_its_own_node(audit):
    log = audit.open()
    other = AuditLog(folder=audit.folder, node="elsewhere", signing_key=audit.key, clock=audit.clock)
    audit.write(log, 1)
    other.close()
    by_chain = {chain.chain: chain.ending for chain in audit.verify().chains}
    assert sorted(by_chain.values()) == [Ending.CLOSED, Ending.OPEN]


@pytest.fixture
def earlier(audit):
    """A folder of the release before heads said what they know: closed, killed, abandoned, closed."""
    shutil.copytree(WRITTEN_BEFORE, audit.folder)
    audit.key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    return audit


def test_a_log_of_an_earlier_release_verifies(earlier):
    report = earlier.verify()
    assert (report.verdict, report.records, report.unproven) == (Verdict.NOT_ALL_PROVEN, 29, 1)
    endings = [chain.ending for chain in report.chains]
    assert endings == [Ending.CLOSED, Ending.ENDED, Ending.ABANDONED, Ending.CLOSED]


def test_a_chain_of_an_earlier_release_is_recovered_by_the_first_start_of_this_one(earlier):
    [killed] = [one for one in earlier.verify().chains if one.ending is Ending.ENDED]
    (earlier.folder / "live").mkdir()
    (earlier.folder / "live" / killed.chain).touch()
    log = AuditLog(folder=earlier.folder, node="old-node", signing_key=earlier.key, clock=earlier.clock)
    earlier.write(log, 3)
    log.close()
    report = earlier.verify()
    assert (report.verdict, report.unproven) == (Verdict.NOT_ALL_PROVEN, 1)
    assert [one.ending for one in report.chains].count(Ending.RECOVERED) == 1


def test_heads_that_are_taken_out_of_a_log_of_an_earlier_release_are_missed(earlier):
    lines = earlier.heads.read_bytes().splitlines(keepends=True)
    for kept in (lines[1:], lines[:2], lines[:5] + lines[6:], []):
        earlier.heads.write_bytes(b"".join(kept))
        assert not earlier.verify().is_intact
    log = AuditLog(folder=earlier.folder, node="old-node", signing_key=earlier.key, clock=earlier.clock)
    log.close()
    assert not earlier.verify().is_intact
