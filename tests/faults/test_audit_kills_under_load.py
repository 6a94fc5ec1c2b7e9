"""`kill -9` at random moments under load, in many rounds: `CACHEGATE_KILL_ROUNDS`, or 20."""

from __future__ import annotations

import os

import pytest

from tests.audit_kills import run_rounds

ROUNDS = int(os.environ.get("CACHEGATE_KILL_ROUNDS", "20"))  # noqa: TID251 -- the test's own


@pytest.mark.timeout(120 + 30 * ROUNDS)
@pytest.mark.parametrize("durability", ["process", "power"])
def test_each_answer_has_its_record_however_often_workers_are_killed(site, paths, eventually, durability):
    run_rounds(site.installation, paths.small, site.token, eventually, rounds=ROUNDS, durability=durability)
