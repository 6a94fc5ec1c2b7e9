"""The investigator's commands over a copy: the answers for people, and the JSON of them."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from gateway.audit.packed import pack
from tests.known_log import LAPTOP, STOLEN, WAITING, write_known_log


@pytest.fixture(scope="module")
def known_log(tmp_path_factory):
    """The log, with its segments packed: an archive."""
    folder = tmp_path_factory.mktemp("archive")
    write_known_log(folder)
    for path in list(folder.glob("*.jsonl")):
        with path.open("rb") as source, path.with_name(f"{path.name}.zst").open("wb") as target:
            pack(source, path.stat().st_size, target, len)
        path.unlink()
    return str(folder)


def test_who_read_a_model_is_told_with_times_bytes_and_addresses(command, command_json, known_log):
    status, told = command_json("audit", "who-read", "--log", known_log, "--model", "acme/cars/1")
    assert status == 0
    assert [one["key_id"] for one in told["readers"]] == [LAPTOP, STOLEN, WAITING]
    shown = command("audit", "who-read", "--log", known_log, "--model", "acme/cars/1")[1].splitlines()
    assert shown[1].split()[:6] == ["acme", LAPTOP, "read", "(tenant)", "40", "40.0"]
    assert "10.1.2.1, 10.1.2.2, 10.1.2.3 and 5 more" in shown[1]


def test_who_read_needs_to_be_told_what(command, known_log):
    assert command("audit", "who-read", "--log", known_log)[0] == 2


def test_a_key_is_told_with_all_that_it_did(command, command_json, known_log):
    status, told = command_json("audit", "key", STOLEN, "--log", known_log, "--since", "2026-11-06T18:00:00Z")
    assert (status, told["allowed"]["times"], len(told["models"])) == (0, 60, 20)
    shown = command("audit", "key", STOLEN, "--log", known_log)[1]
    assert f"{STOLEN} of acme: 100 requests" in shown
    assert "203.0.113.0/24" in shown


def test_a_key_that_no_record_names_is_said_to_be_one(command, known_log):
    done = command("audit", "key", "key_nobody000000", "--log", known_log)
    assert done[:2] == (0, "")


def test_the_timeline_of_a_tenant_is_in_order(command, command_json, known_log):
    status, told = command_json("audit", "timeline", "--tenant", "globex", "--log", known_log)
    times = [one["time"] for one in told["lines"]]
    assert status == 0
    assert times == sorted(times)
    assert len(command("audit", "timeline", "--tenant", "globex", "--log", known_log)[1].splitlines()) == 8


def test_a_report_has_a_bar_a_day_its_json_and_its_drawing(command, command_json, known_log, tmp_path):
    asked = ("audit", "report", "--tenant", "acme", "--log", known_log, "--since", "2026-11-01T00:00:00Z")
    status, told = command_json(*asked, "--svg", str(tmp_path / "report.svg"))
    assert status == 0
    assert [day["reads"] for day in told["days"]] == [0, 16, 16, 16, 16, 76]
    assert ET.parse(tmp_path / "report.svg").getroot().tag.endswith("svg")
    shown = command(*asked)[1].splitlines()
    assert [line.count("█") for line in shown if line.startswith("2026-11-0")] == [0, 5, 5, 5, 5, 24]


@pytest.mark.parametrize(
    "asked",
    [
        ("who-read", "--model", "a\x1b[31m"),
        ("report", "--tenant", "nobody"),
        ("timeline", "--tenant", "nobody"),
    ],
)
def test_nothing_found_is_no_failure(command, known_log, asked):
    name, *more = asked
    done = command("audit", name, "--log", known_log, *more)
    assert done[:2] == (0, "")
    assert "\x1b" not in done[2]


def test_a_log_that_is_not_there_is_named(command, tmp_path):
    assert command("audit", "report", "--log", str(tmp_path / "none"))[0] == 2


def test_json_is_one_document(command, known_log):
    json.loads(command("audit", "report", "--log", known_log, "--json")[1])
