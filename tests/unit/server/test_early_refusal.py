"""Early refusals have the form of every other refusal."""

from __future__ import annotations

import json

import pytest

from gateway.problems import PROBLEMS
from gateway.server.early_refusal import EarlyRefusal

RECORD = "018f3c1e-7a5b-7c21-9d0e-112233445566"


@pytest.mark.parametrize("refusal", list(EarlyRefusal))
def test_an_early_refusal_is_the_problem_of_its_reason_and_ends_the_connection(refusal):
    head, _, body = refusal.answer(RECORD).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert f"content-length: {len(body)}".encode() in head
    document = json.loads(body)
    assert document["status"] == refusal.status == PROBLEMS[refusal.reason].status
    assert document["record"] == RECORD
    assert f"cachegate-record: {RECORD}".encode() in head


def test_each_refusal_starts_a_trace_of_its_own():
    answers = {EarlyRefusal.SLOW_REQUEST.answer(RECORD) for _ in range(3)}
    assert len(answers) == 3
