"""The old key signs the new one: who trusts the first trusts all that follow, and nobody else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import AuditLog, Damage, Ending, verify
from gateway.audit.head import Signer, fingerprint
from gateway.audit.key_changes import KEY_CHANGES_NAME, append_change, follow, load_changes, state_change
from gateway.audit.proof import ProofError, check_proof
from gateway.audit.proof_search import prove

TIME = "2026-09-21T14:13:20.250000Z"


def _change(audit, new):
    append_change(audit.folder, state_change(Signer(audit.key), new.public_key(), TIME))
    return replace(audit, key=new)


def _write(audit, *earlier):
    log = AuditLog(
        folder=audit.folder, node="node-1", signing_key=audit.key, clock=audit.clock,
        earlier_keys=[one.public_key() for one in earlier],
    )  # fmt: skip
    ids = audit.write(log, 3)
    log.close()
    audit.clock.time += 20
    return ids


@pytest.fixture
def rotated(audit):
    """A log that three keys have signed, one after the other."""
    keys = [audit.key, Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()]
    _write(audit)
    for new in keys[1:]:
        audit = _change(audit, new)
        audit.ids = _write(audit)
    audit.keys = keys
    return audit


def test_who_trusts_the_first_key_verifies_what_all_later_ones_signed(rotated):
    report = verify(rotated.folder, trusted_keys=[rotated.keys[0].public_key()])
    assert report.is_intact
    assert report.unproven == 0
    assert len(report.signers) == 3
    assert report.foreign_signers == ()


def test_trust_goes_forward_only(rotated):
    report = verify(rotated.folder, trusted_keys=[rotated.keys[-1].public_key()])
    faults = {one.fault.damage for one in report.chains if one.fault}
    assert faults == {Damage.UNKNOWN_SIGNER}
    assert report.chains[-1].is_intact


def test_without_the_file_the_new_heads_are_of_an_unknown_signer(rotated):
    (rotated.folder / KEY_CHANGES_NAME).unlink()
    report = verify(rotated.folder, trusted_keys=[rotated.keys[0].public_key()])
    assert not report.is_intact
    assert Damage.UNKNOWN_SIGNER in {one.fault.damage for one in report.chains if one.fault}


def test_a_key_that_nobody_signed_is_not_followed(rotated):
    stranger = Ed25519PrivateKey.generate()
    lines = (rotated.folder / KEY_CHANGES_NAME).read_bytes().splitlines(keepends=True)
    forged = state_change(Signer(stranger), stranger.public_key(), TIME)
    bent = lines[0].replace(
        rotated.keys[1].public_key().public_bytes_raw().hex().encode(),
        stranger.public_key().public_bytes_raw().hex().encode(),
    )
    first = rotated.keys[0].public_key()
    trusted = {fingerprint(first): first}
    (rotated.folder / KEY_CHANGES_NAME).write_bytes(forged)
    assert follow(trusted, load_changes(rotated.folder / KEY_CHANGES_NAME)) == trusted
    assert bent != lines[0]
    (rotated.folder / KEY_CHANGES_NAME).write_bytes(bent)
    with pytest.raises(ValueError, match="signature"):
        follow(trusted, load_changes(rotated.folder / KEY_CHANGES_NAME))
    report = verify(rotated.folder, trusted_keys=[first])
    assert any(KEY_CHANGES_NAME in problem for problem in report.problems)


@pytest.mark.parametrize("content", [b"x\n", b"{}\n", b'{"kind":"key-change"}\n', b"{}\n" * 2000])
def test_a_damaged_file_is_a_problem_that_is_named(rotated, content):
    (rotated.folder / KEY_CHANGES_NAME).write_bytes(content)
    report = verify(rotated.folder, trusted_keys=[rotated.keys[0].public_key()])
    assert any(KEY_CHANGES_NAME in problem for problem in report.problems)


def test_a_proof_carries_the_changes_of_the_key(rotated):
    proof = prove(rotated.folder, rotated.ids[0], now=rotated.clock.time)
    for key in rotated.keys:
        assert check_proof(proof, {fingerprint(key.public_key()): key.public_key()})
    document = json.loads(proof)
    first = rotated.keys[0].public_key()
    without = json.dumps({**document, "key_changes": document["key_changes"][1:]}).encode()
    with pytest.raises(ProofError, match="not a trusted key"):
        check_proof(without, {fingerprint(first): first})


def test_a_chain_that_the_old_key_signed_is_recovered_by_a_start_with_the_new_one(audit):
    log = audit.open()
    audit.write(log, 2)
    audit.kill(log)
    audit.clock.time += 2
    old, new = audit.key, Ed25519PrivateKey.generate()
    _write(_change(audit, new), old)
    report = verify(audit.folder, trusted_keys=[old.public_key()])
    assert report.is_intact
    assert Ending.RECOVERED in {one.ending for one in report.chains}
