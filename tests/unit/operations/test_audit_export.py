"""An export is whole or not there, in both forms."""

from __future__ import annotations

import json

import pytest

from gateway.audit.events import read_events
from gateway.audit.exporting import ExportCount
from gateway.model.errors import Misconfigured
from gateway.operations.audit_export import ExportFormat, export_records, whole_file
from tests.known_log import write_known_log
from tests.ocsf_schema import finding_of


def test_json_lines_are_the_log_byte_for_byte_and_ocsf_has_an_event_each(tmp_path):
    write_known_log(tmp_path)
    events = list(read_events(tmp_path))
    lines, told, count = [], [], ExportCount()
    export_records(events, ExportFormat.JSONL, lines.append, count)
    assert lines == [event.line + b"\n" for event in events]
    export_records(events, ExportFormat.OCSF, told.append, count)
    assert [json.loads(line)["metadata"]["uid"] for line in told] == [event.record.id for event in events]
    assert count.records == 2 * len(events)
    assert [finding for finding in map(finding_of, map(json.loads, told)) if finding] == []


def interrupted(file):
    with whole_file(file) as write:
        write(b"half")
        raise KeyboardInterrupt


def test_a_file_that_is_not_finished_is_not_there_and_the_one_before_stays(tmp_path):
    file = tmp_path / "export.jsonl"
    file.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        interrupted(file)
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]
    with whole_file(file) as write:
        write(b"whole")
        assert file.read_bytes() == b"before"
    assert file.read_bytes() == b"whole"
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Misconfigured, match="none/export"), whole_file(tmp_path / "none/export"):
        pass
