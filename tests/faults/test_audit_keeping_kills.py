"""Packing and retention are killed (`kill -9`) at each of their system calls: nothing is lost or damaged.

What is then on disk is verified as it is, and again after the next round, which ends what was begun.
"""

from __future__ import annotations

import json
import os
import shutil

import pytest

from gateway.audit import read_events
from gateway.audit.head import Signer
from gateway.audit.keeping.keeper import Bounds, Keeper
from gateway.audit.limits import Durability
from tests.faults.test_audit_kills import (
    KEY,
    NODE,
    REFUSED,
    START,
    assert_undamaged,
    live_and_be_killed,
    open_log,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

DAY = 86_400.0
NOW = START + 10 * DAY
PACKING = Bounds(pack_seconds=60.0)
RETENTION = Bounds(pack_seconds=None, keep_seconds=5 * DAY)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with an old chain that has ended, and one whose newest segments are young."""
    folder = tmp_path_factory.mktemp("kept") / "audit"
    old = open_log(folder)
    for _ in range(16):
        old.reject(REFUSED)
    old.close()
    log = open_log(folder, time=START + 1)
    for _ in range(16):
        log.reject(REFUSED)
    log._clock.time = NOW - DAY
    for _ in range(8):
        log.reject(REFUSED)
    log.close()
    for path in folder.glob("*-0*.jsonl"):
        lines = path.read_bytes().splitlines()
        moment = NOW - DAY if json.loads(lines[-1])["time"] > "2026-09-25" else START
        os.utime(path, (moment, moment))
    return folder


def keeper(folder, bounds):
    return Keeper(folder, NODE, Signer(KEY), bounds, lambda: open_log(folder, time=NOW))


def lines_of(folder, since=""):
    """The records of decisions from this time on, as readers get them."""
    return [
        event.line
        for event in read_events(folder)
        if event.record.time >= since and b'"decision"' in event.line
    ]


@pytest.mark.parametrize(
    ("bounds", "is_torn"),
    [
        pytest.param(PACKING, True, id="packing"),
        pytest.param(RETENTION, False, id="retention, in front of a write"),
        pytest.param(RETENTION, True, id="retention"),
    ],
)
def test_a_kill_at_any_call_loses_nothing(template, tmp_path, bounds, is_torn):
    since = "" if bounds is PACKING else "2026-09-25"  # what is older may go
    wanted = lines_of(template, since)
    assert len(wanted) >= 8
    ended = tmp_path / "ended"
    shutil.copytree(template, ended)
    keeper(ended, bounds).run(NOW)
    for at in range(1, 2000):
        folder = tmp_path / str(at)
        shutil.copytree(template, folder)

        def live(folder, _tell, _durability):
            keeper(folder, bounds).run(NOW)

        ids = live_and_be_killed(live, folder, at, is_torn=is_torn, durability=Durability.PROCESS)
        if ids is None:
            break
        assert_undamaged(folder, (at, "as it was left"))
        assert lines_of(folder, since) == wanted
        kept = keeper(folder, bounds).run(NOW)
        assert kept.problems == ()
        report = assert_undamaged(folder, (at, "after the next round"))
        assert lines_of(folder, since) == wanted
        assert lines_of(folder) == lines_of(ended)
        assert len(report.removed_chains) == (bounds is RETENTION)
        open_log(folder, time=NOW + 30).close()
        assert list((folder / "live").iterdir()) == []
        shutil.rmtree(folder)
    assert at > (20 if is_torn else 4)
