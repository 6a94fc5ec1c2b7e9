from __future__ import annotations

import click

from gateway.audit.record import (
    DecisionRecord,
    OutcomeRecord,
    QuestionRecord,
    RequestPart,
    ResourcePart,
    SubjectPart,
    SummaryRecord,
)
from gateway.terminal.record_lines import record_line, thing

ENVELOPE = {"schema": 1, "chain": "n.0123456789ab-01234567", "seq": 1, "prev": "0" * 64, "node": "n"}
REQUEST = RequestPart(method="GET", route="/v1/models/{model}", client="127.0.0.1")
TIME = "2026-11-20T11:10:12.176704Z"


def decision(**more):
    return DecisionRecord(
        id="r", time=TIME, **ENVELOPE, **{"decision": "deny", "reason": "x", "request": REQUEST, **more}
    )


def test_a_decision_says_when_who_what_why_and_how_much_in_one_line():
    resource = ResourcePart(
        kind="file", requested="acme/latest", model="acme/cars/1", package="p1", file="w.onnx"
    )
    record = decision(
        decision="allow",
        reason="permitted",
        tenant="acme",
        key_id="key_1",
        action="read",
        resource=resource,
        size=9,
    )
    words = click.unstyle(record_line(record)).split()
    assert words[:6] == [TIME, "r", "allow", "acme", "key_1", "read"]
    assert " ".join(words[6:]) == "acme/latest -> acme/cars/1 p1 w.onnx permitted 9 B from 127.0.0.1"


def test_a_record_that_is_not_proven_says_so_at_its_end():
    assert click.unstyle(record_line(decision(), is_proven=False)).endswith("  (not proven)")
    assert "proven" not in record_line(decision())


def test_a_summary_says_whose_key_it_was_and_from_where():
    record = SummaryRecord(
        id="s", time=TIME, **ENVELOPE, source="192.0.2.7", tenant="acme", claimed_key_id="key_1", second=TIME,
        count=3, reasons={"revoked-key": 3},
    )  # fmt: skip
    words = click.unstyle(record_line(record)).split()
    assert words[1:] == [
        "s",
        "summary",
        "acme",
        "key_1",
        "3",
        "refusals",
        "revoked-key:3",
        "from",
        "192.0.2.7",
    ]


def test_allow_is_green_and_deny_is_red():
    assert "\x1b[32mallow" in record_line(decision(decision="allow"))
    assert "\x1b[31mdeny" in record_line(decision())


def test_recorded_text_cannot_reach_the_terminal():
    hostile = "\x1b]0;title\x07\n\u202e"
    record = decision(tenant=hostile, key_id=hostile, reason=hostile, resource=ResourcePart(kind=hostile))
    assert click.unstyle(record_line(record)).isprintable()


def test_a_decision_label_cannot_reach_the_terminal():
    assert "\x1b]0;" not in record_line(decision(decision="\x1b]0;title\x07"))


def test_a_refused_digest_is_named_by_itself():
    assert thing(ResourcePart(kind="blob", md5="a" * 32)) == "a" * 32


def test_a_question_says_who_asked_about_whom_and_what_was_answered():
    question = {"id": "q", "time": TIME, **ENVELOPE, "ask_id": "r", "item": 0, "answer": "no"}
    record = QuestionRecord(
        **question,
        tenant="acme",
        reason="not-permitted",
        subject=SubjectPart("tenant", "acme"),
        asked="read",
        resource=ResourcePart(kind="model", requested="globex/cars/1"),
    )
    line = click.unstyle(record_line(record))
    assert "question  acme  -  may tenant acme read  globex/cars/1  no  not-permitted  of r" in line
    unknown = QuestionRecord(**question, reason="malformed-body")
    assert "may nobody known do what is unknown  nothing known  no" in click.unstyle(record_line(unknown))


def test_an_outcome_says_what_was_sent():
    record = OutcomeRecord(
        id="o",
        time=TIME,
        **ENVELOPE,
        decision_id="r",
        ending="complete",
        status=200,
        bytes=12,
        milliseconds=3.1,
    )
    assert "complete 200  12 B  3.1 ms  of r" in click.unstyle(record_line(record))
