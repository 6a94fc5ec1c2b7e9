"""A copy of the heads that is kept elsewhere shows every other history."""

from __future__ import annotations

import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.head import fingerprint
from gateway.audit.heads_copy import compare_heads
from gateway.model.errors import Misconfigured


@pytest.fixture
def earlier(audit, tmp_path):
    log = audit.open()
    audit.write(log, 2)
    log.close()
    copy = tmp_path / "earlier.jsonl"
    shutil.copy(audit.heads, copy)
    return copy


def test_heads_that_went_on_begin_with_the_earlier_copy(audit, earlier):
    assert compare_heads(earlier, audit.folder).is_continued
    audit.open().close()
    found = compare_heads(earlier, audit.folder)
    assert (found.is_continued, found.earlier, found.later) == (True, 2, 4)


def test_a_log_that_was_written_anew_with_the_right_key_is_another_one(audit, earlier):
    shutil.rmtree(audit.folder)
    log = audit.open()
    audit.write(log, 2)
    log.close()
    assert audit.verify().is_intact
    found = compare_heads(earlier, audit.folder)
    assert (found.is_continued, found.line) == (False, 1)


def test_heads_that_were_cut_are_found(audit, earlier):
    lines = audit.heads.read_bytes().splitlines(keepends=True)
    audit.heads.write_bytes(lines[0])
    found = compare_heads(earlier, audit.folder)
    assert (found.is_continued, found.line) == (False, 2)


def test_a_copy_that_was_made_while_a_line_was_written_is_a_beginning(audit, earlier):
    audit.open().close()
    earlier.write_bytes(audit.heads.read_bytes()[:-100])
    assert compare_heads(earlier, audit.folder).is_continued


def test_with_a_key_the_copies_are_verified_as_well(audit, earlier):
    own, other = audit.key.public_key(), Ed25519PrivateKey.generate().public_key()
    assert compare_heads(earlier, audit.heads, {fingerprint(own): own}).is_continued
    assert not compare_heads(earlier, audit.heads, {fingerprint(other): other}).is_continued


def test_a_file_that_is_not_there_is_named(audit, earlier, tmp_path):
    with pytest.raises(Misconfigured, match=r"none\.jsonl"):
        compare_heads(tmp_path / "none.jsonl", earlier)
