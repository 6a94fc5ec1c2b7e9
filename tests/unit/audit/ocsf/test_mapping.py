"""Each kind becomes an event of its class, and what was exported still proves what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.audit.head import fingerprint
from gateway.audit.merkle import path_of
from gateway.audit.ocsf import to_ocsf
from gateway.audit.ocsf.requests import OF_CREDENTIALS
from gateway.audit.proof import check_proof, proof_file
from gateway.audit.record import (
    HASH_TAIL,
    ChangeOutcomeRecord,
    ChangeRecord,
    DecisionRecord,
    ExportRecord,
    HeadRecord,
    ModeRecord,
    OutcomeRecord,
    QuarantineRecord,
    RequestPart,
    ResourcePart,
    SummaryRecord,
    WorkerRecord,
    find_digest,
    parse_line,
)
from gateway.model.access import Action
from gateway.problems import PROBLEMS
from tests.ocsf_schema import finding_of

WRITTEN_VERSION_1 = Path(__file__).parents[1] / "written_version_1"
PLACE = {
    "schema": 2,
    "id": "01a22d2c-49f4-7000-8000-000000000001",
    "chain": "node-1.01a22d2c49f4-837a8034",
    "seq": 7,
    "prev": "0" * 64,
    "time": "2026-11-30T17:40:00.250000Z",
    "node": "node-1",
}
REQUEST = RequestPart(method="GET", route="/v1/models/{id}", client="192.0.2.7", agent="curl/8")
MODEL = ResourcePart("file", "acme/cars", "acme/cars/1", "p1", "weights.onnx", "ab" * 16, "cd" * 32)
CLASSES = [
    (DecisionRecord, {"decision": "allow", "reason": "permitted", "action": "read"}, 600302),
    (DecisionRecord, {"decision": "deny", "reason": "absent", "action": "infer"}, 600399),
    (DecisionRecord, {"decision": "deny", "reason": "no-route"}, 600300),
    (DecisionRecord, {"decision": "deny", "reason": "revoked-key"}, 300201),
    (SummaryRecord, {"source": "::1", "second": PLACE["time"], "count": 3, "reasons": {}}, 300201),
    (OutcomeRecord, {"decision_id": "d", "ending": "complete", "status": 200, "bytes": 5}, 600302),
    (ChangeRecord, {"actor": "cli:me", "action": "keys.create", "key_id": "key_a"}, 300101),
    (ChangeRecord, {"actor": "cli:me", "action": "tenants.suspend", "tenant": "acme"}, 300105),
    (ChangeRecord, {"actor": "cli:me", "action": "grants.add", "tenant": "acme", "subject": ("g1",)}, 300501),
    (ChangeRecord, {"actor": "cli:me", "action": "grants.remove", "tenant": "acme"}, 300502),
    (ChangeRecord, {"actor": "cli:me", "action": "policy.apply"}, 300403),
    (ChangeOutcomeRecord, {"change_id": "c", "key_id": "key_a", "generation": 3, "result": "done"}, 300199),
    (WorkerRecord, {"worker": "w1", "state": "started", "version": "1.0"}, 600203),
    (ModeRecord, {"worker": "w1", "mode": "no-lease"}, 600207),
    (QuarantineRecord, {"md5": "ab" * 16, "found": "cd" * 32, "source": "worker:w1"}, 200401),
    (ExportRecord, {"target": "siem", "state": "started"}, 100803),
]


@pytest.mark.parametrize(("kind", "fields", "type_uid"), CLASSES)
def test_a_record_becomes_an_event_of_its_class(kind, fields, type_uid):
    more = {"request": REQUEST} if kind is DecisionRecord else {}
    event = to_ocsf(kind(**PLACE, **fields, **more))
    assert event["type_uid"] == type_uid
    assert finding_of(event) is None


def test_a_read_names_who_what_and_from_where():
    record = DecisionRecord(
        **PLACE,
        decision="allow",
        reason="permitted",
        tenant="acme",
        tenant_record="ten_a",
        key_id="key_a",
        action="read",
        policies=("p.1",),
        resource=MODEL,
        size=9,
        request=REQUEST,
    )
    event = to_ocsf(record)
    assert event["actor"]["user"] == {
        "uid": "key_a",
        "type_id": 0,
        "org": {"name": "acme", "uid": "ten_a"},
    }
    assert event["src_endpoint"] == {"ip": "192.0.2.7"}
    [resource] = event["resources"]
    assert (resource["name"], resource["uid"], resource["data"]["size"]) == ("acme/cars/1", "ab" * 16, 9)
    assert (event["action_id"], event["disposition_id"], event["status_id"]) == (1, 1, 1)
    assert event["metadata"]["tenant_uid"] == "acme"
    assert event["time"] == 1796060400250


def test_the_reasons_of_a_refused_credential_are_those_that_are_401():
    assert {reason for reason, problem in PROBLEMS.items() if problem.status == 401} == OF_CREDENTIALS


def test_each_action_has_an_activity_or_is_one_that_ocsf_does_not_have():
    others = {action.value for action in Action if to_ocsf(_asked(action.value))["activity_id"] == 99}
    assert others == {"infer", "external-request", "custom-python"}


def _asked(action: str) -> DecisionRecord:
    return DecisionRecord(**PLACE, decision="allow", reason="permitted", action=action, request=REQUEST)


def test_an_export_still_proves_what_was_written(audit):
    log = audit.open()
    audit.write(log, 6)
    log.close()
    written = [line for path in audit.segments for line in path.read_bytes().splitlines(keepends=True)]
    exported = [json.dumps(to_ocsf(parse_line(line))) for line in written]

    rebuilt = [_line_of(json.loads(text)) for text in exported]
    assert rebuilt == written
    assert all(find_digest(line) for line in rebuilt)
    head = max((parse_line(line) for line in rebuilt if b'"kind":"head"' in line), key=lambda one: one.seq)
    assert isinstance(head, HeadRecord)
    covered = [line for line in rebuilt if head.seq - head.tree_size <= parse_line(line).seq < head.seq]
    entries = [find_digest(line) for line in covered]
    for index, line in enumerate(covered):
        values = json.loads(rebuilt[head.seq - 1])
        proof = proof_file(json.loads(line), path_of(entries, index), values)
        keys = {fingerprint(audit.key.public_key()): audit.key.public_key()}
        assert check_proof(proof, keys).record.id == parse_line(line).id


def _line_of(event: dict) -> bytes:
    """What an auditor does with an event: its data without the last brace, and the hash."""
    covered, digest = event["raw_data"].encode(), event["raw_data_hash"]["value"].encode()
    return covered[:-1] + HASH_TAIL % digest


def test_a_record_of_version_1_is_exported_as_it_was_written():
    lines = [
        line
        for path in sorted(WRITTEN_VERSION_1.glob("*-0*.jsonl"))
        for line in path.read_bytes().splitlines(keepends=True)
        if find_digest(line)
    ]
    assert lines
    for line in lines:
        event = to_ocsf(parse_line(line), line)
        assert finding_of(event) is None
        assert _line_of(event) == line
        assert "raw_data" not in to_ocsf(parse_line(line))


def test_a_record_that_was_changed_has_no_hash_of_its_data():
    record = _asked("read")
    event = to_ocsf(record)
    assert "raw_data_hash" not in event
    assert json.loads(event["raw_data"])["action"] == "read"
