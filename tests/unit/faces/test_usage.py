"""Figures take the threads of a worker: no tenant has all of them, with however many keys."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gateway.audit.usage import UsageRollups
from gateway.faces.usage import UsageFace
from gateway.feed.selection import FeedReader
from gateway.model.errors import Reason, Refusal
from tests.unit.feed.conftest import NODE, LiveLog

pytestmark = pytest.mark.anyio


@pytest.fixture
def face(tmp_path):
    live = LiveLog(tmp_path / "audit")
    reader = live.reader()
    yield UsageFace(NODE, UsageRollups(live.folder, reader), reader, live.audit.clock)
    live.close()


async def test_one_tenant_has_few_places_whatever_number_of_keys_it_has(face):
    may_end = threading.Event()

    def compute():
        may_end.wait()
        return {}

    def ask(tenant, number):
        reader = FeedReader(key_id=f"key_{number:012}", tenant=tenant)
        return asyncio.create_task(face._in_thread(reader, compute))

    asked = [ask("acme", number) for number in range(9)]
    await asyncio.sleep(0)
    refused = [one for one in asked if one.done()]
    others = [ask("globex", 0), ask(None, 1)]
    await asyncio.sleep(0)
    assert len(refused) == 6
    assert not any(one.done() for one in others)
    may_end.set()
    results = await asyncio.gather(*asked, *others, return_exceptions=True)
    assert [one.reason for one in results if isinstance(one, Refusal)] == [Reason.BUSY] * 6
    assert results[-2:] == [{}, {}]
