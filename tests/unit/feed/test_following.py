"""Waiting readers hear of what concerns them, soon, and never of their own reading."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.faces.audit_events import NODES_PATH
from gateway.feed import following as module
from gateway.feed.following import NewestRecords
from gateway.feed.selection import EVENTS_PATH, FeedReader
from tests.unit.feed.conftest import READER

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def items(live, count):
    return live.reader().read(live.reader().start(), 1000).records[-count:]


async def test_a_record_reaches_who_waits_for_it(live, threads):
    following = NewestRecords(live.reader(), threads)
    await following.begin()
    number = following.find_number(live.reader().end())
    waiting = asyncio.create_task(following.wait_behind(number, 30.0))
    written = live.record()
    await waiting
    assert [one.item.record.id for one in following.records_from(number)][:1] != []
    assert written in {one.item.record.id for one in following.records_from(number)}
    following.leave()


async def test_who_is_further_behind_than_memory_reaches_reads_from_the_disk(live, threads, monkeypatch):
    monkeypatch.setattr(module, "HELD_RECORDS", 3)
    following = NewestRecords(live.reader(), threads)
    await following.begin()
    number = following.find_number(live.reader().end())
    for _ in range(5):
        live.record()
    while following.find_number(live.reader().end()) is None:
        await following.wait_behind(following.end, 1.0)
    assert following.records_from(number) is None
    assert len(following.records_from(following.end - 3)) == 3
    following.leave()


async def test_nobody_looks_while_nobody_waits(live, threads):
    following = NewestRecords(live.reader(), threads)
    await following.begin()
    await following.begin()
    following.leave()
    assert following.find_number(live.reader().end()) is not None
    following.leave()
    assert following.find_number(live.reader().end()) is None


async def test_the_records_of_ones_own_reading_are_no_news_and_all_others_are(live, threads):
    following = NewestRecords(live.reader(), threads)
    reader = FeedReader(key_id=READER, tenant=None)
    live.record(None, READER, EVENTS_PATH, is_closed=True)
    live.log.flush()
    live.index()
    decision, outcome = items(live, 2)
    assert (decision.record.decision, outcome.record.decision_id) == ("allow", decision.record.id)
    # The outcome alone: that its decision was about reading is looked for in the index.
    assert not await following.is_news([outcome], reader)
    assert not await following.is_news([decision, outcome], reader)
    other = FeedReader(key_id="key_otherotherot", tenant=None)
    assert await following.is_news([decision], other)
    assert await following.is_news([outcome], other)


async def test_another_request_with_the_readers_key_is_news(live, threads):
    following = NewestRecords(live.reader(), threads)
    reader = FeedReader(key_id=READER, tenant="acme")
    live.record("acme", READER, "/v1/models", is_closed=True)
    live.log.flush()
    live.index()
    decision, outcome = items(live, 2)
    assert await following.is_news([decision], reader)
    assert await following.is_news([outcome], reader)


async def test_closing_wakes_who_waits(live, threads):
    following = NewestRecords(live.reader(), threads)
    await following.begin()
    waiting = asyncio.create_task(following.wait_behind(following.end, 300.0))
    await asyncio.sleep(0)
    following.close()
    await waiting
    following.leave()


async def test_looking_at_figures_or_nodes_is_reading_as_well(live, threads):
    following = NewestRecords(live.reader(), threads)
    live.record(None, READER, NODES_PATH, is_closed=True)
    live.log.flush()
    live.index()
    assert not await following.is_news(items(live, 2), FeedReader(key_id=READER, tenant=None))
