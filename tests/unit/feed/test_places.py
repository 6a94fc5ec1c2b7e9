"""Readers are bounded, and no tenant, nor all of them together, keep out the others."""

from __future__ import annotations

import asyncio

import pytest

from gateway.feed.places import Places
from gateway.model.errors import Reason, Refusal


def fill(places, tenant):
    count = 0
    while True:
        try:
            places.take(tenant)
        except Refusal:
            return count
        count += 1


def test_one_tenant_leaves_places_to_the_others_and_all_tenants_to_the_operator():
    places = Places(64)
    assert fill(places, "acme") == 6
    assert sum(fill(places, f"tenant-{number}") for number in range(20)) == 48 - 6
    assert fill(places, None) == 16
    assert len(places) == 64


def test_the_operators_readers_may_have_all_places():
    places = Places(8)
    assert fill(places, None) == 8
    with pytest.raises(Refusal) as caught:
        places.take("acme")
    assert caught.value.reason is Reason.BUSY


def test_a_place_is_given_back_whatever_happens():
    places = Places(1)
    with pytest.raises(RuntimeError), places.taken(None):
        raise RuntimeError
    assert len(places) == 0


@pytest.mark.anyio
async def test_who_may_wait_gets_the_place_of_the_next_that_goes_and_only_its_own_tenants():
    places = Places(64)
    fill(places, "acme")
    got = []

    async def wait(name, tenant):
        async with places.awaited(tenant):
            got.append(name)

    waiting = [asyncio.create_task(wait(name, "acme")) for name in ("first", "left", "second")]
    await asyncio.sleep(0)
    await wait("other", "globex")
    waiting[1].cancel()
    assert got == ["other"]
    places.give_back("acme")
    await asyncio.gather(*waiting, return_exceptions=True)
    assert got == ["other", "first", "second"]
    assert len(places) == 5


@pytest.mark.anyio
async def test_who_is_cancelled_with_its_place_in_hand_gives_it_back():
    places = Places(1)
    places.take(None)

    async def wait():
        async with places.awaited(None):
            raise AssertionError

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    places.give_back(None)  # gives it to who waits, whose task has not run yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(places) == 0
