"""Pages and polls: what they return, when, and what bounds them."""

from __future__ import annotations

import asyncio
import re

import pytest
from msgspec import json

from gateway.feed import events as module
from gateway.feed.selection import EVENTS_PATH
from gateway.model.errors import Reason, Refusal
from tests import samples

pytestmark = pytest.mark.anyio


@pytest.fixture
def feed(live):
    made = live.feed(heartbeat_seconds=0.05)
    yield made
    made.close()


async def ask(live, feed, asked, received_at=None):
    cursor = await feed.begin(asked)
    at = live.audit.clock.time if received_at is None else received_at
    request = samples.wire_request(route=EVENTS_PATH, received_at=at)
    return await feed.answer(asked, cursor, request)


async def until_it_waits(feed):
    while not feed.gauges()["cachegate_feed_waiting"]:  # noqa: ASYNC110 -- a gauge is no event
        await asyncio.sleep(0)


def ids(answer):
    return [one["record"]["id"] for one in json.decode(answer.body)["events"]]


async def test_a_page_goes_on_where_the_one_before_it_ended(live, feed):
    written = [live.record() for _ in range(5)]
    read, query = [], "kind=decision&limit=2"
    while True:
        page = await ask(live, feed, live.asked(query))
        read += ids(page)
        link = next(value for name, value in page.headers.pairs if name == b"link").decode()
        query = re.fullmatch(r'</audit/v1/events\?(.+)>; rel="next"', link)[1]
        if json.decode(page.body)["at_end"]:
            break
    assert read == written


async def test_a_poll_waits_for_news_that_its_filters_let_through(live, feed):
    waiting = asyncio.create_task(ask(live, feed, live.asked("after=end&wait=60&tenant=globex")))
    await until_it_waits(feed)
    live.record("acme")
    wanted = live.record("globex")
    assert ids(await waiting) == [wanted]
    assert feed.gauges() == {"cachegate_feed_waiting": 0.0, "cachegate_feed_streams": 0.0}


async def test_a_poll_whose_time_is_over_returns_what_is_there(live, feed):
    page = await ask(live, feed, live.asked("after=end&wait=60"), live.audit.clock.time - 61)
    assert ids(page) == []


async def test_a_poll_is_answered_when_the_worker_stops(live, feed):
    waiting = asyncio.create_task(ask(live, feed, live.asked("after=end&wait=60")))
    await until_it_waits(feed)
    feed.close()
    assert ids(await waiting) == []


async def test_a_filter_that_matches_nothing_reads_a_bounded_part_and_goes_on(live, feed, monkeypatch):
    monkeypatch.setattr(module, "SEARCHED_PAGES", 1)
    for _ in range(6):
        live.record()
    asked = live.asked("limit=1&model=nothing", tenant="acme")
    rounds = 0
    while not json.decode((page := await ask(live, feed, asked)).body)["at_end"]:
        rounds += 1
        asked = live.asked(f"limit=1&model=nothing&after={json.decode(page.body)['next']}", tenant="acme")
    assert rounds >= 5


async def test_a_tenant_waits_after_a_search_and_the_operator_does_not(live, feed):
    live.record()
    await ask(live, feed, live.asked(tenant="acme"))
    await ask(live, feed, live.asked())
    assert feed._pace.slowed == {"acme"}


async def test_a_stream_tells_how_far_it_is_where_nothing_comes(live, feed):
    answer = await ask(live, feed, live.asked("after=end", accept="text/event-stream"))
    pieces = answer.body.pieces
    assert await anext(pieces) == b"retry: 1000\n\n"
    beat = await anext(pieces)
    cursor = re.fullmatch(rb": \nid: (\S+)\n\n", beat)[1].decode()
    written = live.record()
    while written not in (piece := (await anext(pieces)).decode()):
        pass
    await pieces.aclose()
    await answer.body.close()
    assert re.findall("^data: ", piece, re.MULTILINE)
    assert written in ids(await ask(live, feed, live.asked(f"after={cursor}")))
    assert feed.gauges()["cachegate_feed_streams"] == 0


async def test_a_tenants_stream_has_its_views_alone(live, feed):
    live.record("globex")
    own = live.record("acme")
    answer = await ask(live, feed, live.asked(tenant="acme", accept="text/event-stream"))
    pieces = answer.body.pieces
    await anext(pieces)
    events = re.findall("^data: (.+)$", (await anext(pieces)).decode(), re.MULTILINE)
    await pieces.aclose()
    await answer.body.close()
    assert [json.decode(one)["id"] for one in events] == [own]


async def test_what_is_no_cursor_here_is_refused(live, feed):
    with pytest.raises(Refusal) as caught:
        await feed.begin(live.asked("after=AAAA"))
    assert caught.value.reason is Reason.UNKNOWN_CURSOR


async def test_one_record_answers_every_poll_that_waits_for_it_though_few_may_read_at_once(live, feed):
    most = feed._polls._most_of_tenant
    assert most > feed._reading._most_of_tenant
    asked = live.asked("after=end&wait=60&kind=decision", tenant="acme")
    waiting = []
    for number in range(1, most + 1):
        waiting.append(asyncio.create_task(ask(live, feed, asked)))
        while feed.gauges()["cachegate_feed_waiting"] < number:  # noqa: ASYNC110 -- a gauge is no event
            await asyncio.sleep(0)
    written = live.record("acme")
    assert [ids(one) for one in await asyncio.gather(*waiting)] == [[written]] * most
    assert len(feed._reading) == 0


async def test_a_stream_makes_its_next_piece_when_the_one_before_it_was_taken(live, feed, monkeypatch):
    """Also from what is held for all: a reader that takes nothing holds no more than a piece."""
    monkeypatch.setattr(module, "PIECE_BYTES", 1)
    monkeypatch.setattr(module, "STREAM_RECORDS", 2)
    answer = await ask(live, feed, live.asked("after=end&kind=decision", accept="text/event-stream"))
    pieces = answer.body.pieces
    await anext(pieces)
    waiting = asyncio.create_task(anext(pieces))
    while not feed._following._waiting:  # noqa: ASYNC110 -- until it follows
        await asyncio.sleep(0)
    written = [live.record(is_indexed=False) for _ in range(5)]
    live.index()
    read, piece = [], await waiting
    while True:
        read += re.findall('"id":"([^"]+)"', piece.decode())
        assert piece.count(b"data: ") <= 1
        if len(read) == len(written):
            break
        piece = await anext(pieces)
    await pieces.aclose()
    await answer.body.close()
    assert read == written


async def test_a_tenants_stream_says_nothing_of_how_much_others_do(live, feed, monkeypatch):
    """What is held is gone through in parts; those without a record of its own are passed in silence."""
    monkeypatch.setattr(module, "STREAM_RECORDS", 2)
    answer = await ask(live, feed, live.asked("after=end", tenant="acme", accept="text/event-stream"))
    pieces = answer.body.pieces
    await anext(pieces)
    feed._heartbeat_seconds = 3600.0
    waiting = asyncio.create_task(anext(pieces))
    while not feed._following._waiting:  # noqa: ASYNC110 -- until it follows
        await asyncio.sleep(0)
    for _ in range(9):
        live.record("globex", is_indexed=False)
    own = live.record("acme", is_indexed=False)
    live.index()
    first = await waiting
    await pieces.aclose()
    await answer.body.close()
    assert own.encode() in first
    assert first.startswith(b"id: ")


async def test_a_poll_is_answered_in_its_time_though_the_log_cannot_be_followed(live, feed, monkeypatch):
    def fail():
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(feed._following._reader, "end", fail)
    written = live.record()
    cursor = json.decode((await ask(live, feed, live.asked())).body)["next"]
    page = await ask(live, feed, live.asked(f"after={cursor}&wait=60"), live.audit.clock.time - 59.95)
    assert written not in ids(page)
    assert feed.gauges()["cachegate_feed_waiting"] == 0
