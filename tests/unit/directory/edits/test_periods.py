from __future__ import annotations

import math

import pytest

from gateway.directory.edits.periods import verify_period
from gateway.model.errors import Conflict


@pytest.mark.parametrize(
    ("not_before", "expires_at", "now"),
    [
        (None, 10.0, 10.0),  # over at once
        (None, 9.0, 10.0),
        (20.0, 20.0, 10.0),  # never in force
        (20.0, 15.0, None),
        (math.nan, None, 1.0),
        (None, math.inf, 1.0),
        (None, math.nan, 1.0),
    ],
)
def test_a_period_in_which_nothing_would_be_is_refused(not_before, expires_at, now):
    with pytest.raises(Conflict):
        verify_period(not_before, expires_at, now)


@pytest.mark.parametrize(
    ("not_before", "expires_at"), [(None, None), (None, 11.0), (5.0, 11.0), (5.0, None), (4e12, None)]
)
def test_any_other_is_one(not_before, expires_at):
    verify_period(not_before, expires_at, 10.0)
