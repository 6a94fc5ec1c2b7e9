"""A proof holds for its record, and for nothing that differs from it by one character."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.events import read_events
from gateway.audit.head import fingerprint
from gateway.audit.proof import ProofError, check_proof
from gateway.audit.proof_search import Unproven, prove
from gateway.audit.record import DecisionRecord
from gateway.model.errors import Misconfigured, Unavailable
from gateway.model.verdicts import Ending, Outcome

WRITTEN_VERSION_1 = Path(__file__).parent / "written_version_1"


def _keys(audit):
    public = audit.key.public_key()
    return {fingerprint(public): public}


def _prove(audit, record_id, **more):
    return prove(audit.folder, record_id, now=audit.clock.time, **more)


def _ids(audit):
    return [json.loads(line)["id"] for line in audit.lines()]


@pytest.mark.parametrize("count", [1, 2, 3, 999, 1000])
def test_every_record_of_a_log_is_proven(audit, count):
    """Trees of these sizes: the head at the opening has the record of the opening alone."""
    log = audit.open()
    log.record_all([audit.held_admission() for _ in range(count)])
    log.close()
    sizes = [json.loads(line).get("tree_size") for line in audit.lines()]
    assert count in sizes
    chosen = _ids(audit)
    for record_id in chosen if count < 10 else [*chosen[:4], *chosen[-4:], chosen[500]]:
        proof = _prove(audit, record_id)
        proven = check_proof(proof, _keys(audit))
        assert proven.record.id == record_id


@pytest.mark.slow
@pytest.mark.parametrize("count", [999, 1000])
def test_every_single_record_of_a_large_tree_is_proven(audit, count):
    log = audit.open()
    log.record_all([audit.held_admission() for _ in range(count)])
    log.close()
    for record_id in _ids(audit):
        assert check_proof(_prove(audit, record_id), _keys(audit)).record.id == record_id


@pytest.fixture
def proof(audit):
    log = audit.open(segment_bytes=20_000, head_records=50)
    ids = audit.write(log, 120)
    log.close()
    audit.proven_id = ids[70]
    return _prove(audit, ids[70])


def test_a_proof_is_small_and_shows_no_other_record(audit, proof):
    assert len(proof) < 6000
    document = json.loads(proof)
    others = {json.loads(line)["id"] for line in audit.lines()} - {audit.proven_id, document["head"]["id"]}
    assert not any(other.encode() in proof for other in others)


def test_a_proof_that_a_program_has_printed_anew_still_holds(audit, proof):
    document = json.loads(proof)
    loose = json.dumps(document, sort_keys=True, indent=4).encode()
    minimal = json.dumps(dict(reversed(document.items())), separators=(",", ":"), ensure_ascii=False).encode()
    for printed in (loose, minimal):
        assert check_proof(printed, _keys(audit)).record.id == audit.proven_id


def test_every_changed_character_is_found(audit, proof):
    """In the record, the path and the head; blanks between members are no part of what is proven."""
    compact = json.dumps(json.loads(proof), separators=(",", ":")).encode()
    chance = random.Random(7)
    for at in range(len(compact)):
        other = compact[:at] + bytes([compact[at] ^ chance.choice((1, 2, 4, 16))]) + compact[at + 1 :]
        with pytest.raises(ProofError):
            check_proof(other, _keys(audit))


def test_a_head_of_another_log_proves_nothing(audit, proof, tmp_path):
    other = type(audit)(tmp_path / "other", key=audit.key)
    log = other.open(head_records=50)
    ids = other.write(log, 120)
    log.close()
    foreign = json.loads(_prove(other, ids[70]))
    document = json.loads(proof)
    mixed = json.dumps({**document, "head": foreign["head"]}).encode()
    with pytest.raises(ProofError, match="of another chain"):
        check_proof(mixed, _keys(audit))
    for taken in ({"path": foreign["path"]}, {"path": []}):
        with pytest.raises(ProofError, match="path"):
            check_proof(json.dumps({**document, **taken}).encode(), _keys(audit))


def test_a_proof_of_one_log_is_none_to_who_trusts_another_key(proof):
    stranger = Ed25519PrivateKey.generate().public_key()
    with pytest.raises(ProofError, match="not a trusted key"):
        check_proof(proof, {fingerprint(stranger): stranger})


def test_a_later_head_of_the_same_chain_does_not_cover_the_record(audit, proof):
    heads = [json.loads(line) for line in audit.lines() if b'"kind":"head"' in line]
    document = json.loads(proof)
    for head in heads:
        if head["id"] == document["head"]["id"]:
            continue
        with pytest.raises(ProofError, match="covers the records"):
            check_proof(json.dumps({**document, "head": head}).encode(), _keys(audit))


@pytest.mark.parametrize(
    "changed",
    [
        {"record": {"a": "\ud800", "hash": "0" * 64}},
        {"head": {"\ud800": 1}},
        {"key_changes": [1]},
        {"key_changes": [{}] * 1001},
        {"key_changes": 7},
        {"path": ["0" * 64] * 33},
        {"path": ["A" * 64]},
        {"more": 1},
        {"record": []},
    ],
)
def test_what_has_no_form_at_all_is_refused(audit, proof, changed):
    with pytest.raises(ProofError):
        check_proof(json.dumps({**json.loads(proof), **changed}).encode(), _keys(audit))


def test_an_inner_node_is_no_record(audit, proof):
    """What an attacker may put in place of the record is hashed as a record, whatever it is."""
    document = json.loads(proof)
    node = {"hash": document["path"][-1]}
    for record in (node, {**document["record"], **node}, document["path"][-1]):
        with pytest.raises(ProofError):
            check_proof(json.dumps({**document, "record": record}).encode(), _keys(audit))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"format":"cachegate-proof","version":2}',
        b'{"format":"cachegate-proof"}',
    ],
)
def test_what_is_no_proof_says_so(raw):
    with pytest.raises(ProofError, match="proof"):
        check_proof(raw, {})


def test_a_record_behind_the_last_head_is_proven_later(audit):
    log = audit.open()
    [record_id] = audit.write(log, 1)
    unproven = _prove(audit, record_id)
    assert isinstance(unproven, Unproven)
    assert unproven.again_in_seconds == 10
    audit.clock.time += 3
    assert _prove(audit, record_id).again_in_seconds == 7
    audit.clock.time += 8
    log.tick(audit.clock.time)
    assert check_proof(_prove(audit, record_id), _keys(audit)).record.id == record_id
    log.close()


def test_a_record_that_a_killed_process_left_has_no_proof_for_good(audit):
    log = audit.open()
    [record_id] = audit.write(log, 1)
    audit.kill(log)
    audit.clock.time += 30
    audit.open().close()
    assert _prove(audit, record_id).again_in_seconds is None


def test_the_head_of_a_chain_that_was_given_up_proves_what_is_in_front_of_it(audit):
    log = audit.open()
    ids = audit.write(log, 5)
    with audit.segments[0].open("ab") as file:
        file.write(b"x")
    with pytest.raises(Unavailable):
        audit.write(log, 1)
    audit.clock.time += 2
    audit.write(log, 1)
    log.close()
    proven = check_proof(_prove(audit, ids[2]), _keys(audit))
    assert (proven.record.id, proven.head.state) == (ids[2], "abandoned")


def test_a_tree_goes_on_in_the_next_segment(audit, monkeypatch):
    """As after a segment that was made read-only: no head stands at its end."""
    log = audit.open()
    ids = audit.write(log, 3)
    log._writer._next_segment()
    ids += audit.write(log, 3)
    log.close()
    assert len(audit.segments) == 2
    for record_id in ids:
        assert check_proof(_prove(audit, record_id), _keys(audit)).record.id == record_id
    assert audit.verify().is_intact


def test_a_record_of_version_1_says_why_it_has_no_proof():
    decisions = [one for one in read_events(WRITTEN_VERSION_1) if isinstance(one.record, DecisionRecord)]
    [path] = {one.path for one in decisions if one.file.endswith("-000002.jsonl")}
    for event in read_events([path]):
        unproven = prove(WRITTEN_VERSION_1, event.record.id, now=2e9)
        assert isinstance(unproven, Unproven)
        assert "no Merkle root" in unproven.why
        assert unproven.again_in_seconds is None


def test_an_id_that_no_record_has_is_none_bounded_or_not(audit, proof):
    absent = audit.proven_id[:-1] + ("0" if audit.proven_id[-1] != "0" else "1")
    assert _prove(audit, absent) is None
    assert _prove(audit, absent, is_bounded=False) is None


def test_a_record_that_may_not_be_shown_is_none(audit, proof):
    assert _prove(audit, audit.proven_id, may_show=lambda _: False) is None


def test_a_bounded_search_reads_only_segments_of_the_time_of_the_id(audit, monkeypatch):
    log = audit.open(segment_bytes=4000)
    ids = []
    for _ in range(30):
        audit.clock.time += 300
        ids += audit.write(log, 3)
    log.close()
    assert len(audit.segments) > 15
    read = []
    from gateway.audit import proof_search  # noqa: PLC0415

    offsets = proof_search._offsets
    monkeypatch.setattr(
        proof_search, "_offsets", lambda path, *more: read.append(path) or offsets(path, *more)
    )
    assert check_proof(_prove(audit, ids[45]), _keys(audit)).record.id == ids[45]
    assert len(read) <= 3


def test_a_damaged_log_gives_no_proof_and_says_that_it_is_damaged(audit, proof):
    [path] = [one for one in audit.segments if audit.proven_id.encode() in one.read_bytes()]
    beside = (
        next(json.loads(line) for line in path.read_bytes().splitlines() if audit.proven_id.encode() in line)[
            "seq"
        ]
        + 1
    )
    path.write_bytes(path.read_bytes().replace(b'"seq":%d,' % beside, b'"seq":%d,' % (beside + 50)))
    with pytest.raises(Misconfigured, match="damaged"):
        _prove(audit, audit.proven_id)


def test_an_outcome_is_proven_as_its_decision_is(audit):
    log = audit.open()
    receipt = log.admit(audit.held_admission())
    receipt.close(Outcome(ending=Ending.COMPLETE, status=200, bytes_sent=3, milliseconds=0.5))
    log.close()
    outcome = next(json.loads(line) for line in audit.lines() if b'"kind":"outcome"' in line)
    proven = check_proof(_prove(audit, outcome["id"]), _keys(audit))
    assert proven.values["decision_id"] == receipt.record_id
