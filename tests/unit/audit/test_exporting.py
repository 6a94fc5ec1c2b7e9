"""An export is recorded before its first record, and how it ended, whatever ended it."""

from __future__ import annotations

import json

import pytest

from gateway.audit.exporting import recorded_export
from gateway.audit.record import ExportRecord
from gateway.model.errors import Misconfigured, Reason, Unavailable


@pytest.fixture
def log(audit):
    log = audit.open()
    yield log
    log.close()


def exports(audit):
    """The records of exports, with what they say."""
    found = [json.loads(line) for line in audit.lines() if b'"kind":"export"' in line]
    return [(one["state"], one["target"], one.get("records"), one.get("reason")) for one in found]


def test_it_is_recorded_before_it_begins_and_with_its_number_when_it_is_complete(audit, log):
    with recorded_export(log, "ocsf file") as export:
        assert exports(audit) == [("started", "ocsf file", None, None)]
        export.records += 3
    assert exports(audit)[1:] == [("ended", "ocsf file", 3, "complete")]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (BrokenPipeError(), "interrupted"),
        (Misconfigured("/secret/place", "cannot be written"), "misconfigured"),
        (Unavailable("audit", "no disk", Reason.NO_AUDIT), "unavailable"),
    ],
)
def test_what_stops_it_is_recorded_by_its_kind_and_raised(audit, log, failure, reason):
    def stopped():
        with recorded_export(log, "jsonl file") as export:
            export.records = 2
            raise failure

    with pytest.raises(type(failure)) as caught:
        stopped()
    assert caught.value is failure
    assert exports(audit)[-1] == ("ended", "jsonl file", 2, reason)
    assert b"/secret/place" not in b"".join(audit.lines())


class FullLog:
    """A log that takes so many records."""

    def __init__(self, takes):
        self.takes, self.noted = takes, []

    def note(self, kind, **fields):
        if len(self.noted) == self.takes:
            raise Unavailable("audit", "no disk", Reason.NO_AUDIT)
        self.noted.append((kind, fields["state"]))


def test_what_cannot_be_recorded_is_not_exported():
    passed_on = []
    with pytest.raises(Unavailable), recorded_export(FullLog(0), "file"):
        passed_on.append(1)
    assert passed_on == []


def test_an_end_that_cannot_be_recorded_is_a_failure():
    log = FullLog(1)
    with pytest.raises(Unavailable), recorded_export(log, "file") as export:
        export.records = 5
    assert log.noted == [(ExportRecord, "started")]
