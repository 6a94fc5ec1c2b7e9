"""What is packed, and what retention left, is proven and verified as if nothing had been done to it."""

from __future__ import annotations

import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import verify
from gateway.audit.head import Signer, fingerprint
from gateway.audit.keeping.keeper import Bounds, Keeper
from gateway.audit.key_changes import append_change, state_change
from gateway.audit.proof import check_proof
from gateway.audit.proof_search import prove
from gateway.audit.report import Verdict
from gateway.audit.timeline import time_text

DAY = 86_400.0


def keep(audit, *earlier, **bounds):
    keeper = Keeper(
        audit.folder,
        "node-1",
        Signer(audit.key, earlier),
        Bounds(**{"pack_seconds": None, **bounds}),
        audit.open,
    )
    return keeper.run(audit.clock.time)


def packed(audit):
    """Pack what is closed. Files are as old as this machine's clock says, so the keeper's is set after it."""
    moment, audit.clock.time = audit.clock.time, 4_000_000_000.0
    try:
        return keep(audit, pack_seconds=60.0).packed
    finally:
        audit.clock.time = moment


def proven(audit, record_id, **more):
    proof = prove(audit.folder, record_id, now=audit.clock.time, **more)
    public = audit.key.public_key()
    return check_proof(proof, {fingerprint(public): public}).record.id


@pytest.mark.parametrize("is_bounded", [True, False])
def test_records_in_packed_segments_are_proven(audit, is_bounded):
    log = audit.open(segment_bytes=20_000, head_records=15)
    ids = audit.write(log, 120)
    before = {one: prove(audit.folder, one, now=audit.clock.time) for one in ids[:100:9]}
    log.close()
    assert packed(audit) > 4
    for record_id, proof in before.items():
        assert prove(audit.folder, record_id, now=audit.clock.time, is_bounded=is_bounded) == proof
        assert proven(audit, record_id, is_bounded=is_bounded) == record_id


def test_a_record_that_was_removed_has_no_proof_and_those_behind_it_have(audit):
    log = audit.open(segment_bytes=20_000, head_records=15)
    old = audit.write(log, 120)
    audit.clock.time = 4_000_000_000.0
    new = audit.write(log, 40)
    log.close()
    os.utime(audit.segments[-1], (audit.clock.time, audit.clock.time))
    assert keep(audit, keep_seconds=DAY).removed > 3
    assert prove(audit.folder, old[0], now=audit.clock.time) is None
    assert proven(audit, new[-1]) == new[-1]
    assert verify(audit.folder).verdict is Verdict.INTACT


def test_a_segment_that_ended_without_a_head_is_removed_and_the_next_head_is_not_at_fault(audit):
    """As after a fault: the tree of the next head has records that are not there any more."""
    log = audit.open(head_records=1000)
    audit.write(log, 3)
    log._writer._next_segment()
    audit.clock.time = 4_000_000_000.0
    audit.write(log, 3)
    log.close()
    lines = audit.segments[0].read_bytes().splitlines()
    assert json.loads(lines[-1])["kind"] != "head"
    assert keep(audit, keep_seconds=DAY).removed == 1
    report = verify(audit.folder)
    assert report.verdict is Verdict.INTACT
    assert [one.removed_segments for one in report.chains if one.removed_segments]


def test_notes_by_a_key_that_the_trusted_one_signed_are_believed(audit):
    log = audit.open(segment_bytes=20_000, head_records=15)
    audit.write(log, 120)
    log.close()
    old, audit.key = audit.key, Ed25519PrivateKey.generate()
    append_change(
        audit.folder, state_change(Signer(old), audit.key.public_key(), time_text(audit.clock.time))
    )
    audit.clock.time = 4_000_000_000.0
    assert keep(audit, old.public_key(), keep_seconds=DAY).removed > 3
    report = verify(audit.folder, trusted_keys=[old.public_key()])
    assert report.is_intact
    assert report.removed_chains
    (audit.folder / "signing.changes").unlink()
    assert not verify(audit.folder, trusted_keys=[old.public_key()]).is_intact
