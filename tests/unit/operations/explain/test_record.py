from __future__ import annotations

from pathlib import Path

import pytest

from gateway.assembly.signing import create_signing_key, load_signing_key
from gateway.audit.events import Event, find_record
from gateway.audit.log import AuditLog
from gateway.audit.record import DecisionRecord, RequestPart, ResourcePart
from gateway.model.access import Action
from gateway.model.errors import BadNameError
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Ending, Outcome
from gateway.operations.explain.record import find_outcome, question_again, record_rows
from tests import samples

KEY = "key_0123456789ab"


class StillClock:
    def now(self) -> float:
        return 1_800_000_000.0


@pytest.fixture
def log(tmp_path):
    create_signing_key(tmp_path / "key.pem")
    key = load_signing_key(tmp_path / "key.pem")
    recorder = AuditLog(folder=tmp_path / "audit", node="n", signing_key=key, clock=StillClock())
    yield recorder, tmp_path / "audit"
    recorder.close()


def admission():
    return samples.admission(
        samples.principal(key_id=KEY),
        request=samples.wire_request(route="/v1/whoami"),
        action=Action.IDENTIFY,
        policies=("p",),
        stamp=Stamp(7, ()),
    )


def decision(**more):
    envelope = {"schema": 1, "id": "r", "chain": "c", "seq": 1, "prev": "0", "time": "t", "node": "n"}
    request = RequestPart(method="GET", route="/v1", client="127.0.0.1")
    values = {"decision": "deny", "reason": "not-permitted", "request": request, "action": "read"}
    return DecisionRecord(**envelope, **{**values, **more})


def test_the_outcome_of_an_allow_is_found_behind_it_and_that_of_no_other(log):
    recorder, folder = log
    receipts = [recorder.admit(admission()) for _ in range(3)]
    for size, receipt in enumerate(receipts[:2]):
        receipt.close(Outcome(ending=Ending.COMPLETE, status=200, bytes_sent=size, milliseconds=1.0))
    found = [find_outcome(find_record(folder, one.record_id)) for one in receipts]
    assert [one.bytes if one else None for one in found] == [0, 1, None]
    rows = dict(record_rows(find_record(folder, receipts[2].record_id), None))
    assert "not recorded" in rows["outcome"]
    assert rows["generation"] == "7"


def test_the_question_of_a_refusal_is_asked_by_the_name_that_the_client_used():
    resource = ResourcePart(kind="file", requested="acme/latest", model="acme/cars/1", package="p1", file="w")
    question = question_again(decision(key_id=KEY, resource=resource))
    assert (question.key_id, question.model, question.package, question.file, question.action) == (
        KEY, "acme/latest", "p1", "w", Action.READ,
    )  # fmt: skip
    assert question.address == "127.0.0.1"  # the key's networks are checked with this address


def test_a_key_that_was_not_valid_then_is_asked_about_too():
    resource = ResourcePart(kind="model", requested="acme/cars/1")
    assert question_again(decision(claimed_key_id=KEY, resource=resource)).key_id == KEY


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"key_id": KEY},
        {"key_id": KEY, "resource": ResourcePart(kind="blob", md5="a" * 32)},
        {"key_id": KEY, "resource": ResourcePart(kind="model", requested="a/../b")},
        {"key_id": KEY, "resource": ResourcePart(kind="model", requested="a/b"), "action": "conquer"},
        {"key_id": "\x1b[2J", "resource": ResourcePart(kind="model", requested="a/b")},
    ],
)
def test_what_a_record_does_not_hold_is_not_guessed(more):
    with pytest.raises(BadNameError):
        question_again(decision(**more))


def test_recorded_text_cannot_reach_the_terminal():
    hostile = "\x1b]0;title\x07\u202e"
    record = decision(
        tenant=hostile,
        reason=hostile,
        policies=(hostile,),
        resource=ResourcePart(kind="model", model=hostile),
    )
    rows = record_rows(Event(record=record, line=b"{}", path=Path("f"), line_number=1), None)
    assert all(text.isprintable() for _, text in rows)
    assert any("does not know" in text for _, text in rows)
