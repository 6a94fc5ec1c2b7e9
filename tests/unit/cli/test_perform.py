from __future__ import annotations

import pytest
import typer

from gateway.barrier import BarrierReport
from gateway.cli.perform import barrier_document, barrier_notes, is_sure, show_change
from gateway.directory.edits.effect import Effect
from gateway.model.stores import Moment
from gateway.registrar import Done

SURE = BarrierReport(generation=7, workers=4, acknowledged=3, milliseconds=12.5, is_sure=True)
UNSURE = BarrierReport(
    generation=7,
    workers=4,
    acknowledged=3,
    milliseconds=3000.0,
    is_sure=False,
    sure_in_seconds=59.98765,
    why="leases have not ended",
)
NOT_ASKED = BarrierReport(
    generation=7,
    workers=0,
    acknowledged=0,
    milliseconds=1.0,
    is_sure=False,
    sure_in_seconds=3601.0,
    why="the workers could not be asked",
)
NOT_HELD = BarrierReport(
    generation=7,
    workers=4,
    acknowledged=4,
    milliseconds=3000.0,
    is_sure=False,
    sure_in_seconds=None,
    held=2,
    servers=3,
    why="held by 2 of 3 servers",
)
ALONE = BarrierReport(generation=7, workers=0, acknowledged=0, milliseconds=0.5, is_sure=True)


def said(report, capsys):
    for note in barrier_notes(report):
        note.print()
    printed = capsys.readouterr()
    assert printed.out == ""  # for people: standard output stays free for the pipe
    return printed.err


def test_scripts_get_workers_milliseconds_and_whether_it_is_sure():
    assert barrier_document(UNSURE) == {
        "workers": 4,
        "acknowledged": 3,
        "milliseconds": 3000.0,
        "sure": False,
        "sure_in_seconds": 59.988,
        "held_by": 1,
        "servers": 1,
        "why": "leases have not ended",
    }


def test_what_was_not_waited_for_claims_nothing(capsys):
    assert barrier_document(None) == {}
    assert "Not waited for" in said(None, capsys)


def test_people_read_who_acknowledged_who_was_waited_out_and_how_long_it_took(capsys):
    line = said(SURE, capsys)
    assert all(part in line for part in ("3 acknowledged", "1 waited out", "12.5 ms", "generation 7"))


def test_what_is_not_sure_says_until_when(capsys):
    line = said(UNSURE, capsys)
    assert all(part in line for part in ("1 of 4", "60.0 s"))
    assert "could not be asked" in said(NOT_ASKED, capsys)


def test_what_not_all_servers_hold_says_so_and_promises_no_time(capsys):
    line = said(NOT_HELD, capsys)
    assert "held by 2 of 3 servers" in line
    assert "at the latest" not in line
    document = barrier_document(NOT_HELD)
    assert (document["held_by"], document["servers"], document["sure_in_seconds"]) == (2, 3, None)


def test_where_nobody_serves_there_is_nothing_to_say(capsys):
    assert said(ALONE, capsys) == ""


@pytest.mark.parametrize(
    ("report", "status"),
    [(SURE, None), (ALONE, None), (None, None), (UNSURE, 1), (NOT_ASKED, 1), (NOT_HELD, 1)],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_a_script_never_takes_an_unsure_change_for_done(report, status, as_json):
    assert is_sure(report) is (status is None)
    done = Done(Effect(is_changed=True, sentences=("done",)), Moment(generation=7), report)
    if status is None:
        show_change(done, {}, as_json=as_json)
        return
    with pytest.raises(typer.Exit) as ending:
        show_change(done, {}, as_json=as_json)
    assert ending.value.exit_code == status
