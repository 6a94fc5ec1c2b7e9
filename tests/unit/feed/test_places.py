"""Readers are bounded, and no tenant, nor all of them together, keep out the others."""

from __future__ import annotations

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
