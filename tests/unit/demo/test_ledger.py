from __future__ import annotations

import pytest

from gateway.audit.record import DecisionRecord, OutcomeRecord, RequestPart
from gateway.demo.ledger import LoggedAnswer, check_ledger, load_ledger
from gateway.demo.tour import TourAnswer, TourStep, Visit

ENVELOPE = {"schema": 1, "chain": "c", "seq": 1, "prev": "0", "time": "t", "node": "n"}
REQUEST = RequestPart(method="GET", route="/v1", client="127.0.0.1")


def visit(status, body=b"", record="r"):
    step = TourStep(who="acme", path="/v1/x", expected=status, shows="it")
    answer = TourAnswer(status=status, headers=(("cachegate-record", record),), body=body)
    return Visit(step=step, answer=answer, complaints=())


def allow(status=200, sent=3):
    decision = DecisionRecord(id="r", **ENVELOPE, decision="allow", reason="permitted", request=REQUEST)
    outcome = OutcomeRecord(
        id="o", **ENVELOPE, decision_id="r", ending="complete", status=status, bytes=sent, milliseconds=1.0
    )
    return LoggedAnswer(decision=decision, outcome=outcome)


def deny(reason):
    decision = DecisionRecord(id="r", **ENVELOPE, decision="deny", reason=reason, request=REQUEST)
    return LoggedAnswer(decision=decision, outcome=None)


@pytest.mark.parametrize(
    ("seen", "entry"),
    [(visit(200, b"abc"), allow()), (visit(404), deny("not-permitted")), (visit(401), deny("revoked-key"))],
)
def test_a_log_that_says_what_the_client_saw_has_no_complaint(seen, entry):
    assert check_ledger([seen], {"r": entry}) == []


@pytest.mark.parametrize(
    ("seen", "entry"),
    [
        (visit(200, b"abc"), None),
        (visit(200, b"abc"), deny("not-permitted")),
        (visit(200, b"abc"), allow(sent=2)),
        (visit(200, b"abc"), allow(status=206)),
        (visit(200, b"abc"), LoggedAnswer(decision=allow().decision, outcome=None)),
        (visit(404), allow(status=200)),
        (visit(404), deny("revoked-key")),
        (visit(404), deny("no-such-reason")),
    ],
)
def test_a_log_that_says_anything_else_has_one(seen, entry):
    assert len(check_ledger([seen], {"r": entry} if entry else {})) == 1


def test_two_answers_that_name_one_record_are_a_complaint():
    assert check_ledger([visit(404), visit(404)], {"r": deny("absent")}) != []


def test_the_ledger_has_nothing_about_records_that_are_not_there(installed, monkeypatch):
    monkeypatch.setattr("gateway.demo.ledger.PATIENCE_SECONDS", 0.0)
    assert load_ledger(installed.settings.audit_folder, ["01a1f937-f944-7001-8389-121433a237cf"]) == {}
