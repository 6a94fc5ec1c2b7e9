"""Verification names the first bad record, whatever was changed in the copy."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import Damage, verify
from gateway.audit.events import read_events
from gateway.model.errors import Misconfigured


@pytest.fixture
def closed(audit):
    """A chain of several segments, cleanly closed."""
    log = audit.open(segment_bytes=6000, head_records=7)
    audit.write(log, 40)
    log.close()
    assert audit.verify().is_intact
    return audit


def _lines(path):
    return path.read_bytes().splitlines(keepends=True)


def _head(line):
    return json.loads(line)["head"]


def _fault(audit):
    report = audit.verify()
    assert not report.is_intact
    return next((chain.fault for chain in report.chains if chain.fault), None)


def test_an_untouched_log_is_intact_and_wholly_proven(closed):
    report = closed.verify()
    (chain,) = report.chains
    assert (report.unproven, chain.is_closed, chain.fault, report.missing_chains) == (0, True, None, ())
    assert chain.records == chain.last_seq == chain.proven_seq == len(closed.lines())
    assert report.key_source.endswith("signing.pub")


def test_an_auditor_needs_nothing_of_ours_to_check_the_hashes(closed):
    previous = "0" * 64
    for line in closed.lines():
        body, _, tail = line.rpartition(b',"hash":"')
        digest = hashlib.sha256(body + b"}").hexdigest()
        assert tail == digest.encode() + b'"}'
        assert json.loads(line)["prev"] == previous
        previous = digest


def test_a_changed_word_is_named_with_file_line_and_number(closed):
    path = closed.segments[1]
    lines = _lines(path)
    lines[2] = lines[2].replace(b'"acme"', b'"evil"')
    path.write_bytes(b"".join(lines))
    fault = _fault(closed)
    assert (fault.damage, fault.file, fault.line) == (Damage.EDITED, path.name, 3)
    assert fault.seq == json.loads(lines[2])["seq"]


def test_a_changed_record_with_a_fresh_hash_breaks_the_next_link(closed):
    path = closed.segments[1]
    lines = _lines(path)
    covered = lines[2].replace(b'"acme"', b'"evil"')[:-76] + b"}"
    lines[2] = covered[:-1] + b',"hash":"%b"}\n' % hashlib.sha256(covered).hexdigest().encode()
    path.write_bytes(b"".join(lines))
    fault = _fault(closed)
    assert (fault.damage, fault.line) == (Damage.RELINKED, 4)


def test_a_wholly_rewritten_chain_fails_at_the_next_head(closed):
    previous, is_changed = "0" * 64, False
    for path in closed.segments:
        rewritten = []
        for line in _lines(path):
            record = json.loads(line)
            covered = line[:-76] + b"}"
            covered = covered.replace(record["prev"].encode(), previous.encode())
            if record["seq"] == 5:
                covered, is_changed = covered.replace(b'"acme"', b'"evil"'), True
            previous = hashlib.sha256(covered).hexdigest()
            rewritten.append(covered[:-1] + b',"hash":"%b"}\n' % previous.encode())
        path.write_bytes(b"".join(rewritten))
    assert is_changed
    fault = _fault(closed)
    assert fault.damage is Damage.BAD_SIGNATURE
    assert 5 < fault.seq <= 5 + 9


def test_a_deleted_record_is_named_by_the_one_after_it(closed):
    path = closed.segments[0]
    lines = _lines(path)
    del lines[3]
    path.write_bytes(b"".join(lines))
    fault = _fault(closed)
    assert (fault.damage, fault.line, fault.seq) == (Damage.DELETED, 4, 4)


def test_two_exchanged_records_are_noticed(closed):
    path = closed.segments[0]
    lines = _lines(path)
    lines[3], lines[4] = lines[4], lines[3]
    path.write_bytes(b"".join(lines))
    fault = _fault(closed)
    assert (fault.damage, fault.line) == (Damage.DELETED, 4)


def test_a_repeated_record_is_noticed(closed):
    path = closed.segments[0]
    lines = _lines(path)
    path.write_bytes(b"".join([*lines[:4], lines[3], *lines[4:]]))
    fault = _fault(closed)
    assert (fault.damage, fault.line) == (Damage.REORDERED, 5)


def test_a_record_of_another_chain_is_foreign(closed):
    other = closed.open()
    other.close()
    path = closed.segments[0]
    caller = _lines(closed.segments[-1])[0]
    lines = _lines(path)
    path.write_bytes(b"".join([caller, *lines[1:]]))
    fault = _fault(closed)
    assert (fault.damage, fault.line) == (Damage.FOREIGN, 1)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_records_cut_off_the_end_are_noticed_by_the_signed_head(audit, kept):
    log = audit.open()
    audit.write(log, 10)
    log.close()
    (path,) = audit.segments
    path.write_bytes(b"".join(_lines(path)[:kept]))
    fault = _fault(audit)
    assert (fault.damage, fault.file, fault.line) == (Damage.TRUNCATED, path.name, kept + 1)


def test_even_the_closing_head_alone_cannot_be_cut_off(closed):
    path = closed.segments[-1]
    path.write_bytes(b"".join(_lines(path)[:-1]))
    assert _fault(closed).damage is Damage.TRUNCATED


def test_a_line_added_after_the_end_is_noticed(closed):
    path = closed.segments[-1]
    path.write_bytes(path.read_bytes() + b'{"kind":')
    assert _fault(closed).damage is Damage.AFTER_CLOSE


@pytest.mark.parametrize("index", [0, 1, -1])
def test_a_missing_segment_is_named(closed, index):
    path = closed.segments[index]
    path.unlink()
    report = closed.verify()
    assert not report.is_intact
    assert report.chains[0].missing_segments == (path.name,)


def test_a_missing_segment_does_not_hide_an_edit_after_it(closed):
    closed.segments[0].unlink()
    path = closed.segments[-1]
    path.write_bytes(path.read_bytes().replace(b'"acme"', b'"evil"', 1))
    assert _fault(closed).damage is Damage.EDITED


def test_segments_renamed_over_a_missing_one_are_noticed(closed):
    first, second, *_ = closed.segments
    second.replace(first)
    assert _fault(closed).damage is Damage.DELETED


def test_a_missing_chain_is_named(closed):
    chain = closed.verify().chains[0].chain
    closed.open().close()
    for path in closed.segments:
        if path.name.startswith(chain):
            path.unlink()
    report = closed.verify()
    assert report.missing_chains == (chain,)
    assert not report.is_intact


def test_a_chain_is_missed_even_when_its_heads_are_gone_because_another_names_it(audit):
    first = audit.open()
    audit.clock.time += 1
    second = audit.open()
    audit.write(first, 1)
    audit.clock.time += 20
    first.tick(audit.clock.now())  # a head that names both
    second.close()
    first.close()
    chain = audit.verify().chains[1].chain
    for path in audit.segments:
        if path.name.startswith(chain):
            path.unlink()
    heads = audit.folder / "heads.jsonl"
    heads.write_bytes(b"".join(line for line in _lines(heads) if _head(line)["chain"] != chain))
    named = {name for line in _lines(heads) for name in _head(line)["live"]}
    assert chain in named
    assert audit.verify().missing_chains == (chain,)


def test_a_file_named_after_a_time_that_no_calendar_has_is_damage_and_stops_nobody(closed):
    planted = closed.folder / "node-9.ffffffffffff-00000000-000001.jsonl"
    planted.write_bytes(closed.lines()[0] + b"\n")
    report = closed.verify()
    assert [chain.fault is not None for chain in report.chains] == [False, True]
    assert len(list(read_events(closed.folder))) == len(closed.lines())
    log = closed.open()
    closed.write(log, 1)
    log.close()
    assert not closed.verify().is_intact


def test_a_forged_head_is_a_bad_signature(closed):
    heads = closed.folder / "heads.jsonl"
    lines = _lines(heads)
    covered = lines[0].replace(b'"state":"live"', b'"state":"lies"')[:-76] + b"}"
    lines[0] = covered[:-1] + b',"hash":"%b"}\n' % hashlib.sha256(covered).hexdigest().encode()
    heads.write_bytes(b"".join(lines))
    (problem,) = closed.verify().problems
    assert "heads.jsonl, line 1" in problem


def test_heads_that_were_taken_out_are_missed(closed):
    heads = closed.folder / "heads.jsonl"
    heads.write_bytes(_lines(heads)[0])
    assert closed.verify().problems
    heads.unlink()
    assert closed.verify().problems


def test_a_key_given_from_outside_is_the_one_that_counts(closed):
    assert verify(closed.folder, trusted_keys=[closed.key.public_key()]).key_source == "given"
    assert verify(closed.folder, trusted_keys=[closed.key.public_key()]).is_intact
    report = verify(closed.folder, trusted_keys=[Ed25519PrivateKey.generate().public_key()])
    assert report.chains[0].fault.damage is Damage.UNKNOWN_SIGNER


def test_a_new_signing_key_leaves_older_chains_verifiable(closed):
    closed.key = Ed25519PrivateKey.generate()
    closed.open().close()
    report = closed.verify()
    assert report.is_intact
    assert len(report.signers) == 2


def test_half_a_line_at_the_end_is_a_torn_tail_and_no_damage(audit):
    log = audit.open()
    audit.write(log, 4)
    path = audit.segments[0]
    path.write_bytes(path.read_bytes()[:-20])
    report = audit.verify()
    assert report.is_intact
    assert report.chains[0].torn_tail == path.name
    assert (report.chains[0].last_seq, report.unproven) == (5, 3)


def test_half_a_line_that_a_head_vouched_for_is_damage(audit):
    log = audit.open(head_records=3)
    audit.write(log, 6)
    path = audit.segments[0]
    path.write_bytes(b"".join(_lines(path)[:2])[:-20])
    assert _fault(audit).damage is Damage.TRUNCATED


def test_what_lies_after_the_last_head_is_unproven(audit):
    log = audit.open()
    audit.write(log, 5)
    report = audit.verify()
    assert report.is_intact
    assert (report.unproven, report.chains[0].proven_seq, report.chains[0].is_closed) == (5, 2, False)


def test_a_list_of_files_is_verified_as_far_as_it_goes(closed):
    report = verify(closed.segments[:2])
    assert report.chains[0].fault is None
    assert report.is_intact
    with_heads = verify([*closed.segments[:2], closed.folder / "heads.jsonl"])
    assert len(with_heads.chains[0].missing_segments) == len(closed.segments) - 2


def test_a_copy_verifies_anywhere(closed, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(closed.folder, copy)
    assert verify(copy).is_intact


def test_nothing_to_verify_is_a_mistake_and_not_a_success(tmp_path):
    with pytest.raises(Misconfigured):
        verify(tmp_path)
    with pytest.raises(Misconfigured):
        verify(tmp_path / "absent")


def test_an_endless_line_is_malformed_and_read_in_pieces(audit):
    log = audit.open()
    log.close()
    path = audit.segments[0]
    path.write_bytes(b"x" * (3 << 20))
    assert _fault(audit).damage is Damage.MALFORMED
