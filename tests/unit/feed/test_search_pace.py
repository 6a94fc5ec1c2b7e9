"""A tenant that searched waits before it searches again; nobody else does."""

from __future__ import annotations

import asyncio

import pytest

from gateway.feed import search_pace as module
from gateway.feed.search_pace import SearchPace

pytestmark = pytest.mark.anyio


async def slept(monkeypatch, pace, tenant):
    """How long this tenant is made to wait."""
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", sleep)
        async with pace.paced(tenant):
            pass
    return waited


async def test_who_searched_long_waits_for_a_bounded_time_and_the_others_do_not(monkeypatch):
    pace = SearchPace()
    async with pace.paced("acme"):
        pass
    pace._due["acme"] += 3600
    assert await slept(monkeypatch, pace, "acme") == [module.LONGEST_PACE_SECONDS]
    assert await slept(monkeypatch, pace, "globex") == []
    assert await slept(monkeypatch, pace, None) == []


async def test_what_is_remembered_of_tenants_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_PACED", 3)
    pace = SearchPace()
    for number in range(20):
        async with pace.paced(f"tenant-{number}"):
            pass
        pace._due = dict.fromkeys(pace.slowed, 0.0)
    assert len(pace.slowed) <= 4
