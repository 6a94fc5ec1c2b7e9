"""Exports: of the own log, which records them, and of a copy, which has no records of its reader."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.known_log import write_known_log


@pytest.fixture
def known_log(tmp_path):
    write_known_log(tmp_path / "known_log")
    return tmp_path / "known_log"


def records_of(installed, kind="export"):
    lines = [
        line
        for path in sorted(installed.settings.audit_folder.glob("*-0*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [one for one in map(json.loads, lines) if one["kind"] == kind]


def test_an_export_of_the_own_log_is_recorded_and_not_in_itself(command, installed, tmp_path):
    before = len(records_of(installed))
    file = tmp_path / "out.jsonl"
    assert command("audit", "export", "--output", str(file))[0] == 0
    exported = [json.loads(line) for line in file.read_text().splitlines()]
    started, ended = records_of(installed)[before:]
    assert (started["state"], started["target"]) == ("started", "jsonl file out.jsonl")
    assert (ended["state"], ended["records"], ended["reason"]) == ("ended", len(exported), "complete")
    assert started["id"] not in {one["id"] for one in exported}


def test_an_export_that_cannot_be_written_is_recorded_as_one_that_failed(command, installed, tmp_path):
    before = len(records_of(installed))
    assert command("audit", "export", "--output", str(tmp_path / "none/out"))[0] == 2
    assert [
        (one["state"], one.get("records"), one.get("reason")) for one in records_of(installed)[before:]
    ] == [
        ("started", None, None),
        ("ended", 0, "misconfigured"),
    ]


def test_an_export_of_a_copy_changes_neither_the_copy_nor_the_own_log(command, installed, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(installed.settings.audit_folder, copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    count = len(records_of(installed))
    assert command("audit", "export", str(copy), "--output", str(tmp_path / "out"))[0] == 0
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert len(records_of(installed)) == count


def test_what_is_asked_for_is_exported_alone(command, known_log):
    done = command(
        "audit",
        "export",
        str(known_log),
        "--tenant",
        "globex",
        "--since",
        "2026-11-06T19:06:00Z",
        "--format",
        "ocsf",
    )
    events = [json.loads(line) for line in done[1].splitlines()]
    assert {one["metadata"]["tenant_uid"] for one in events} == {"globex"}
    assert [one["class_uid"] for one in events] == [6003, 3005, 3004, 6003, 6003]
