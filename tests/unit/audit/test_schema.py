"""The published schema is what is written: every kind, and nothing that is not of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from gateway.audit import verify
from gateway.audit.record import (
    SCHEMA_VERSION,
    AnchorRecord,
    ExportRecord,
    ModeRecord,
    QuarantineRecord,
    RefusedChangeRecord,
    WorkerRecord,
    seal,
)
from gateway.audit.schema import kinds, record_schema
from gateway.audit.verify import VerifyReport
from gateway.model.errors import UnknownName
from gateway.model.verdicts import Change
from tests.record_schema import findings_in

WRITTEN_VERSION_1 = Path(__file__).parent / "written_version_1"
DIGEST = "ab" * 32
TIME = "2026-09-21T14:13:20.250000Z"
EVENTS = [
    (RefusedChangeRecord, {"actor": "key_a", "action": "keys.revoke", "reason": "missing-scope"}),
    (WorkerRecord, {"worker": "w1", "state": "started", "version": "1.0"}),
    (ModeRecord, {"worker": "w1", "mode": "no-lease", "generation": 7}),
    (QuarantineRecord, {"md5": "ab" * 16, "found": DIGEST, "source": "worker:w1"}),
    (
        AnchorRecord,
        {"listed_bytes": 9, "listed_hash": DIGEST, "authority": "https://tsa", "stamped_at": TIME},
    ),
    (ExportRecord, {"target": "siem", "state": "ended", "records": 12, "reason": "stopped"}),
]


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(record_schema())
    assert record_schema()["$id"].endswith(f":{SCHEMA_VERSION}")


@pytest.mark.parametrize("kind", kinds())
def test_the_schema_of_one_kind_stands_alone(kind):
    schema = record_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    text = json.dumps(schema)
    assert all(f'"{name}"' in text for name in ("seq", "prev", "hash"))
    assert set(_references(schema)) <= {f"#/$defs/{name}" for name in schema["$defs"]}


def _references(value):
    for name, one in value.items() if isinstance(value, dict) else ():
        if name == "$ref":
            yield one
        yield from _references(one)
    for one in value if isinstance(value, list) else ():
        yield from _references(one)


def test_a_kind_that_is_none_is_named():
    with pytest.raises(UnknownName, match="decision"):
        record_schema("decisions")


@pytest.mark.parametrize(("kind", "fields"), EVENTS)
def test_each_kind_of_event_is_written_and_of_the_schema(audit, kind, fields):
    log = audit.open()
    record_id = log.note(kind, **fields)
    log.close()
    [record] = [one for one in map(json.loads, audit.lines()) if one["id"] == record_id]
    assert {name: record[name] for name in fields} == fields
    assert list(findings_in(audit.folder)) == []
    assert audit.verify().is_intact


def test_text_of_an_event_is_without_secrets(audit):
    log = audit.open()
    key = "cg_live_0123456789abcdefghijABCD012345"
    log.note(RefusedChangeRecord, actor=key, action="a", reason="b", subject=("x", f"api_key={key}"))
    log.close()
    assert key[8:].encode() not in b"".join(audit.lines())


def test_every_record_of_a_log_is_of_the_schema(audit):
    log = audit.open(head_records=10)
    audit.write(log, 20)
    log.record_all([audit.held_admission()])[0].close(audit.outcome())
    for _ in range(40):
        log.reject(audit.nobody())
    log.change(Change(actor="cli:x", action="y", received_at=1.0)).close(generation=3, result="done")
    audit.clock.time += 2
    log.close()
    assert {json.loads(line)["kind"] for line in audit.lines()} >= {
        "decision", "outcome", "change", "change-outcome", "summary", "open", "head",
    }  # fmt: skip
    assert list(findings_in(audit.folder)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"more": 1},
        {"seq": 1 << 53},
        {"seq": -1},
        {"time": "2026-09-21T14:13:20Z"},
        {"tenant": None},
        {"kind": "x"},
        {"schema": 1},
    ],
)
def test_what_is_not_of_the_schema_is_found(audit, wrong):
    log = audit.open()
    audit.write(log, 1)
    log.close()
    [path] = audit.segments
    lines = path.read_bytes().splitlines(keepends=True)
    changed = {**json.loads(lines[2]), **wrong}
    del changed["hash"]
    lines[2] = seal(json.dumps(changed).encode())[0]
    path.write_bytes(b"".join(lines))
    [finding] = findings_in(audit.folder)
    assert f"{path.name}:3" in finding


def test_a_log_of_version_1_still_verifies_to_the_last_record():
    report = verify(WRITTEN_VERSION_1)
    assert isinstance(report, VerifyReport)
    assert report.is_intact
    assert (report.records, len(report.chains)) == (50, 5)
    assert {str(one.ending) for one in report.chains} == {"closed", "recovered", "abandoned", "open"}
    kinds_there = {
        json.loads(line)["kind"]
        for path in WRITTEN_VERSION_1.glob("*-0*.jsonl")
        for line in path.read_bytes().splitlines()
        if line.endswith(b"}")
    }
    assert kinds_there == {"decision", "outcome", "change", "change-outcome", "summary", "open", "head"}


def test_the_reference_page_has_every_kind_and_each_of_its_members():
    page = (Path(__file__).parents[3] / "docs/reference/audit-records.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*) \| .* \|$", page.partition("## Kinds")[2], re.MULTILINE)
    documented = {
        kind: set(re.findall("`([a-z_0-9]+)`", re.sub(r"\(.*?\)", "", text))) for kind, text in rows
    }
    of_all = {"kind", "schema", "id", "chain", "seq", "prev", "time", "node", "hash"}
    written = {
        kind: set(schema["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]) - of_all
        for kind in kinds()
        for schema in [record_schema(kind)]
    }
    assert documented == written
