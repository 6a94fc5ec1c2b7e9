from __future__ import annotations

import asyncio

import pytest

from gateway.model.errors import Misconfigured, Unavailable
from gateway.operations.doctor.findings import Level, ok, run_check, run_check_async
from gateway.resource.unservable import unservable


@pytest.mark.parametrize("failure", [Misconfigured("x", "why"), Unavailable("x", "why"), OSError(5, "why")])
def test_what_stops_a_check_is_its_finding(failure):
    def check():
        raise failure

    async def check_later():
        raise failure

    for found in (run_check("name", check), asyncio.run(run_check_async("name", check_later))):
        assert (found.name, found.health) == ("name", Level.FAIL)
        assert "why" in found.found


def test_what_was_found_on_disk_is_said_and_not_only_that_it_is_refused():
    def check():
        raise unservable("a link where a directory belongs")

    assert run_check("name", check).found == "a link where a directory belongs"


def test_a_defect_of_ours_is_not_taken_for_a_finding():
    def check():
        raise KeyError("defect")

    with pytest.raises(KeyError):
        run_check("name", check)


def test_a_check_that_ends_well_speaks_for_itself():
    assert run_check("name", lambda: ok("name", "fine")) == ok("name", "fine")
