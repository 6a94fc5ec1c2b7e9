from __future__ import annotations

import asyncio

import pytest

from gateway.model.errors import Misconfigured, Unavailable
from gateway.operations.doctor.findings import Level, look, look_async, ok
from gateway.resource.unservable import unservable


@pytest.mark.parametrize("failure", [Misconfigured("x", "why"), Unavailable("x", "why"), OSError(5, "why")])
def test_what_stops_a_check_is_its_finding(failure):
    def check():
        raise failure

    async def check_later():
        raise failure

    for found in (look("name", check), asyncio.run(look_async("name", check_later))):
        assert (found.name, found.health) == ("name", Level.FAIL)
        assert "why" in found.found


def test_what_was_found_on_disk_is_said_and_not_only_that_it_is_refused():
    def check():
        raise unservable("a link where a directory belongs")

    assert look("name", check).found == "a link where a directory belongs"


def test_a_defect_of_ours_is_not_taken_for_a_finding():
    def check():
        raise KeyError("defect")

    with pytest.raises(KeyError):
        look("name", check)


def test_a_check_that_ends_well_speaks_for_itself():
    assert look("name", lambda: ok("name", "fine")) == ok("name", "fine")
