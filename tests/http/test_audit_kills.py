"""`kill -9` at random moments under load: what a client got is in the log. `tests/faults` has more rounds."""

from __future__ import annotations

import pytest

from tests.audit_kills import run_rounds
from tests.faults.conftest import SMALL, SMALL_PATH, furnish

ROUNDS = 3


@pytest.mark.parametrize("durability", ["process", "power"])
def test_each_answer_has_its_record_however_workers_are_killed(installation, eventually, durability):
    site = furnish(installation, {"small.bin": SMALL})
    run_rounds(installation, SMALL_PATH, site.token, eventually, rounds=ROUNDS, durability=durability)
