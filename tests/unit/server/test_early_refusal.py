"""Early refusals: ready-made answers in the shape of every other refusal."""

from __future__ import annotations

import json

import pytest

from gateway.problems import PROBLEMS, UNRECORDED
from gateway.server.early_refusal import EarlyRefusal


@pytest.mark.parametrize("refusal", list(EarlyRefusal))
def test_an_early_refusal_is_the_problem_of_its_reason_and_ends_the_connection(refusal):
    head, _, body = refusal.answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert f"content-length: {len(body)}".encode() in head
    document = json.loads(body)
    assert document["status"] == refusal.status == PROBLEMS[refusal.reason].status
    assert document["record"] == UNRECORDED
