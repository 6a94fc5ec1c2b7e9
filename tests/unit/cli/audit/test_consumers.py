"""`cachegate audit consumers`: what is added is listed and recorded, and no secret is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.audit import read_events
from gateway.audit.consumers.registry import ConsumerProgress, ConsumerRegistry
from gateway.audit.keeping.needs import read_needs

SECRET = "0123456789abcdef0123456789abcdef"
URL = "https://siem.example/in"


@pytest.fixture
def here(installation_here):
    return installation_here


def add(here, name="siem", *more, text=SECRET, status=0):
    return here.run("audit", "consumers", "add", name, "--url", URL, "--secret-file", "-", *more,
                    text=text, status=status)  # fmt: skip


def exports(here):
    records = [event.record for event in read_events(here.audit)]
    return [(one.target, one.state) for one in records if type(one).__name__ == "ExportRecord"]


def test_what_is_added_is_listed_recorded_kept_for_and_removed(here):
    add(here)
    [listed] = here.json("audit", "consumers", "list")["consumers"]
    assert (listed["name"], listed["kind"], listed["options"]["url"]) == ("siem", "push", URL)
    assert listed["state"] == "new"
    assert listed["cursor"]
    assert read_needs(here.audit)["siem"].has_before
    here.json("audit", "consumers", "remove", "siem")
    assert here.json("audit", "consumers", "list") == {"consumers": [], "damaged": []}
    assert read_needs(here.audit) == {}
    assert exports(here) == [("siem", "added"), ("siem", "removed")]


def test_a_secret_of_standard_input_is_in_a_file_of_ours_and_nowhere_else(here):
    done = add(here)
    shown = done.stdout + done.stderr + here.run("audit", "consumers", "list", "--json").stdout
    assert SECRET not in shown
    [listed] = here.json("audit", "consumers", "list")["consumers"]
    stored = Path(listed["options"]["secret_file"])
    assert stored.read_text() == SECRET
    assert all(
        SECRET not in path.read_text(errors="replace") for path in here.audit.rglob("*") if path.is_file()
    )
    here.run("audit", "consumers", "remove", "siem")
    assert not stored.exists()


def test_one_that_does_not_get_its_records_is_said_with_the_cause_and_exit_status_1(here):
    add(here)
    registry = ConsumerRegistry(here.audit)
    registry.save(registry.find("siem").registration, ConsumerProgress(state="failing", error="it is down"))
    assert "siem: it is down" in here.run("audit", "consumers", "list", status=1).stderr
    checks = json.loads(here.run("doctor", "--json", status=None).stdout)["checks"]
    [row] = [one for one in checks if one["name"] == "audit consumers"]
    assert (row["status"], "it is down" in row["found"]) == ("warning", True)


def test_syslog_is_added_by_its_address(here):
    here.run("audit", "consumers", "add", "logs", "--address", "[::1]:6514", "--from-start")
    [listed] = here.json("audit", "consumers", "list")["consumers"]
    assert (listed["options"]["host"], listed["options"]["port"]) == ("::1", "6514")
    assert listed["cursor"] is None


REFUSED = [
    ("siem",),
    ("siem", "--url", URL),
    ("siem", "--url", "http://siem.example/", "--secret-file", "-"),
    ("siem", "--url", "https://u:p@siem.example/", "--secret-file", "-"),
    ("siem", "--url", f"{URL}?token=sesame", "--secret-file", "-"),
    ("siem", "--url", URL, "--secret-file", "/none"),
    ("siem", "--url", URL, "--address", "h:1"),
    ("stream", "--url", URL, "--secret-file", "-"),
    ("Siem", "--url", URL, "--secret-file", "-"),
    ("logs", "--address", "nohost"),
    ("logs", "--address", "h:0"),
    ("logs", "--address", "h:6514", "--facility", "24"),
    ("logs", "--address", "h:6514", "--max-bytes", "1"),
    ("logs", "--address", "h:6514", "--ca-file", "/none"),
]


def test_what_cannot_be_meant_is_refused_and_leaves_nothing(here):
    for arguments in REFUSED:
        done = here.run("audit", "consumers", "add", *arguments, text=SECRET, status=None)
        assert done.returncode in {1, 2}, arguments
    assert here.json("audit", "consumers", "list")["consumers"] == []
    assert exports(here) == []
