"""Several records in one write, and outcomes deferred to the next write: the chain stays valid."""

from __future__ import annotations

import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import AuditLog, Limits, verify
from gateway.model.access import Access, Action, Resource, ResourceKind
from gateway.model.errors import Reason, Unavailable
from gateway.model.facts import Scope
from gateway.model.header_block import Headers
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Admission, Allowed, Ending, HeldFile, Outcome, Rejection
from tests import samples


class Clock:
    def __init__(self):
        self.time = 1_790_000_000.25
        self.step = 0.001

    def now(self):
        self.time += self.step
        return self.time


def admission(client="192.0.2.7"):
    principal = samples.principal(scopes=frozenset({Scope.READ}))
    resource = Resource(kind=ResourceKind.FILE, model="acme/cars/1", package="p", file="f")
    stamp = Stamp(7, ())
    allowed = Allowed(
        access=Access(principal=principal, action=Action.READ, resource=resource),
        model="acme/cars/1", policies=("owner",), grant="owner", stamp=stamp,
    )  # fmt: skip
    found = HeldFile(
        descriptor=-1, content=b"abc", headers=Headers.of(),
        size=3, identity=(1, 2, 3, 4, 5), model="acme/cars/1", package="p",
        handle="f", md5="0" * 32, sha256="1" * 64,
    )  # fmt: skip
    request = samples.wire_request(client=client, route="/v1/{file}", received_at=1.0)
    return Admission(request=request, allowed=allowed, found=found, stamp=stamp, key_stamp=stamp)


DONE = Outcome(ending=Ending.COMPLETE, status=200, bytes_sent=3, milliseconds=0.5)


class DeferringLog:
    """A log that counts how often it reported deferred outcomes."""

    def __init__(self, folder):
        self.folder = folder
        self.told = 0
        self.log = AuditLog(
            folder=folder, node="node-1", signing_key=Ed25519PrivateKey.generate(), clock=Clock(),
            on_left=self.tell,
        )  # fmt: skip

    def tell(self):
        self.told += 1

    @property
    def segment(self):
        return max(self.folder.glob("*-0*.jsonl"))

    def records(self):
        lines = self.segment.read_bytes().splitlines()
        return [record for record in map(json.loads, lines) if record["kind"] in {"decision", "outcome"}]

    def kinds(self):
        return [record["kind"] for record in self.records()]


@pytest.fixture
def subject(tmp_path):
    return DeferringLog(tmp_path)


def test_allows_that_are_recorded_together_are_each_proven(subject):
    admissions = [admission(f"192.0.2.{number}") for number in range(5)]
    receipts = subject.log.record_all(admissions)
    assert [receipt.admission for receipt in receipts] == admissions
    records = subject.records()
    assert [record["id"] for record in records] == [receipt.record_id for receipt in receipts]
    assert [record["request"]["client"] for record in records] == [f"192.0.2.{n}" for n in range(5)]
    subject.log.close()
    assert verify(subject.folder).is_intact


def test_an_outcome_that_was_left_is_written_before_the_next_record(subject):
    [receipt] = subject.log.record_all([admission()])
    receipt.close(DONE)
    assert subject.kinds() == ["decision"]
    subject.log.reject(Rejection(request=admission().request, reason=Reason.NO_ROUTE))
    first, outcome, refusal = subject.records()
    assert (outcome["kind"], outcome["decision_id"]) == ("outcome", first["id"])
    assert refusal["reason"] == "no-route"
    subject.log.close()
    assert verify(subject.folder).is_intact


@pytest.mark.parametrize("how", ["flush", "tick", "close"])
def test_an_outcome_that_was_left_is_written_when_nothing_follows(how, subject):
    for receipt in subject.log.record_all([admission(), admission()]):
        receipt.close(DONE)
    {
        "flush": subject.log.flush,
        "tick": lambda: subject.log.tick(subject.log._clock.now()),
        "close": subject.log.close,
    }[how]()
    assert subject.kinds() == ["decision", "decision", "outcome", "outcome"]
    if how != "close":
        subject.log.close()
    assert verify(subject.folder).is_intact


def test_somebody_is_told_once_that_something_was_left(subject):
    for receipt in subject.log.record_all([admission(), admission(), admission()]):
        receipt.close(DONE)
    assert subject.told == 1
    subject.log.flush()
    [receipt] = subject.log.record_all([admission()])
    receipt.close(DONE)
    assert subject.told == 2


def test_a_receipt_is_closed_once(subject):
    [receipt] = subject.log.record_all([admission()])
    receipt.close(DONE)
    receipt.close(DONE)
    subject.log.flush()
    assert subject.kinds() == ["decision", "outcome"]


def test_of_allows_that_cannot_all_be_recorded_none_is_and_what_was_left_is_not_lost(subject, monkeypatch):
    [receipt] = subject.log.record_all([admission()])
    receipt.close(DONE)
    write = os.write

    def full(descriptor, line):
        return write(descriptor, line[: len(line) // 2])  # as a disk that has just become full

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(Unavailable):
            subject.log.record_all([admission(), admission()])
    assert subject.kinds() == ["decision"]
    subject.log.record_all([admission()])
    assert subject.kinds() == ["decision", "outcome", "decision"]
    subject.log.close()
    assert verify(subject.folder).is_intact


@pytest.mark.parametrize("how", ["flush", "tick", "close"])
def test_outcomes_that_cannot_be_written_stay_in_their_order(how, subject, monkeypatch):
    receipts = subject.log.record_all([admission(), admission()])
    for receipt in receipts:
        receipt.close(DONE)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[: len(line) // 2]))
        with pytest.raises(Unavailable):
            subject.log.flush()
        with pytest.raises(Unavailable):
            subject.log.record_all([admission()])  # nothing is recorded, so nothing may be served
    assert subject.kinds() == ["decision", "decision"]
    later = subject.log.record_all([admission()])
    later[0].close(DONE)
    {
        "flush": subject.log.flush,
        "tick": lambda: subject.log.tick(subject.log._clock.now()),
        "close": subject.log.close,
    }[how]()
    records = subject.records()
    outcomes = [record["decision_id"] for record in records if record["kind"] == "outcome"]
    assert outcomes == [one.record_id for one in [*receipts, *later]]
    assert [record["id"] for record in records if record["kind"] == "outcome"] == sorted(
        record["id"] for record in records if record["kind"] == "outcome"
    )


def test_what_was_left_outlives_a_segment_that_is_taken_away(subject):
    [receipt] = subject.log.record_all([admission()])
    receipt.close(DONE)
    subject.segment.unlink()
    with pytest.raises(Unavailable):
        subject.log.flush()
    subject.log._clock.time += 60
    subject.log.flush()
    [outcome] = subject.records()
    assert (outcome["kind"], outcome["decision_id"]) == ("outcome", receipt.record_id)


def refusal(reason=Reason.NOT_PERMITTED, principal=None):
    return Rejection(request=admission().request, reason=reason, principal=principal)


def test_allows_and_refusals_are_recorded_together_in_their_order(subject):
    whose = admission().allowed.access.principal
    decided = [
        refusal(principal=whose),
        admission("192.0.2.1"),
        refusal(Reason.NO_ROUTE),
        admission("192.0.2.2"),
    ]
    recorded = subject.log.record_all(decided)
    records = subject.records()
    assert [record["decision"] for record in records] == ["deny", "allow", "deny", "allow"]
    assert [record["id"] for record in records] == [getattr(one, "record_id", one) for one in recorded]
    assert [isinstance(one, str) for one in recorded] == [True, False, True, False]
    assert [one.admission for one in recorded if not isinstance(one, str)] == [decided[1], decided[3]]
    subject.log.close()
    assert verify(subject.folder).is_intact


def test_refusals_of_anonymous_callers_beyond_their_limit_are_counted_and_not_recorded_each(subject):
    limit = Limits().anonymous_per_source
    subject.log._clock.step = 0.0  # all of it within one second
    recorded = subject.log.record_all([refusal() for _ in range(limit + 3)] + [admission()])
    *refused, _ = recorded
    assert len(subject.records()) == limit + 1
    assert len(set(refused[:limit])) == limit
    assert len(set(refused[limit:])) == 1  # the id of the summary that stands for them
    assert refused[limit] not in refused[:limit]
    subject.log.close()
    [summary] = [
        one for one in map(json.loads, subject.segment.read_bytes().splitlines()) if one["kind"] == "summary"
    ]
    assert (summary["id"], summary["count"]) == (refused[limit], 3)


def test_refusals_of_known_callers_are_recorded_each(subject):
    whose = admission().allowed.access.principal
    count = Limits().anonymous_per_source + 3
    subject.log.record_all([refusal(principal=whose) for _ in range(count)])
    assert len(subject.records()) == count


def test_of_decisions_that_cannot_all_be_recorded_none_is(subject, monkeypatch):
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[: len(line) // 2]))
        with pytest.raises(Unavailable):
            subject.log.record_all([admission(), refusal()])
    assert subject.kinds() == []
    subject.log.close()
    assert verify(subject.folder).is_intact


def test_nothing_to_record_writes_nothing(subject):
    assert subject.log.record_all([]) == []
    assert subject.kinds() == []


def test_what_is_recorded_together_is_one_write(subject, monkeypatch):
    """So that either all of it is recorded, or nothing."""
    subject.log.record_all([admission()])
    written, write = [], os.write

    def counted(descriptor, line):
        written.append(line)
        return write(descriptor, line)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", counted)
        subject.log.record_all([admission(), refusal(), admission()])
    assert len(written) == 1
    assert written[0].count(b'"kind":"decision"') == 3
