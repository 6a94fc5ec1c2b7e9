"""Receipts are closed once, however often `close` is called."""

from __future__ import annotations

import os

import pytest

from gateway.model.names import FileHandle, ModelId, PackageId
from gateway.model.verdicts import WITHDRAWN, Admission, ChangeReceipt, OpenFile, Receipt


@pytest.fixture
def admission(tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(b"x")
    found = OpenFile(
        descriptor=os.open(path, os.O_RDONLY),
        size=1,
        identity=(0, 0, 0, 0, 0),
        model=ModelId("m"),
        package=PackageId("p"),
        handle=FileHandle("f"),
        md5=None,
    )
    return Admission(request=None, allowed=None, found=found, stamp=None, key_stamp=None)


def test_closing_twice_records_one_outcome_and_closes_the_file_once(admission):
    outcomes = []
    receipt = Receipt(record_id="r", admission=admission, on_close=outcomes.append)
    receipt.close(WITHDRAWN)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(admission.found.descriptor)
    receipt.close(WITHDRAWN)
    assert outcomes == [WITHDRAWN]


def test_a_file_is_let_go_even_when_its_outcome_cannot_be_recorded(admission):
    def fail(outcome):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Receipt(record_id="r", admission=admission, on_close=fail).close(WITHDRAWN)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(admission.found.descriptor)


def test_a_change_is_closed_once():
    closed = []
    receipt = ChangeReceipt(
        record_id="r",
        on_close=lambda generation, result, digests: closed.append((generation, result, digests)),
    )
    receipt.close(generation=3, result="done", digests=("before", "after"))
    receipt.close(generation=None, result="failed")
    assert closed == [(3, "done", ("before", "after"))]
