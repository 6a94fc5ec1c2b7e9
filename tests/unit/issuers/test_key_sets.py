from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.adapters.clock import SystemClock
from gateway.directory.edits.changes import change
from gateway.directory.records import names
from gateway.identity.json_web_tokens import parse_key_set
from gateway.model.errors import Reason, Unavailable
from gateway.model.issuers import issuer_digest

pytestmark = pytest.mark.anyio


async def undecided(worker, issuer, known_at=None):
    with pytest.raises(Unavailable) as caught:
        await worker.refresh(issuer, known_at)
    assert caught.value.reason is Reason.ISSUER_UNDECIDED


async def test_keys_become_a_fact_with_their_time(build_worker, in_force, listing):
    before = SystemClock().now()
    await build_worker().refresh(in_force, None)
    found = await listing.find_key_set(in_force.url)
    assert before <= found.fetched_at <= SystemClock().now()
    assert found.key_set_url == in_force.key_set_url
    assert len(parse_key_set(found.document)) >= 3


async def test_other_keys_are_a_recorded_change_and_a_later_time_is_none(
    build_worker, in_force, listing, recorded, outside
):
    worker = build_worker()
    await worker.refresh(in_force, None)
    first = await listing.find_key_set(in_force.url)
    await worker.refresh(in_force, first.fetched_at)
    second = await listing.find_key_set(in_force.url)
    assert second.fetched_at > first.fetched_at
    assert len(recorded.kept) == 1
    outside.rotate(keep=False)
    await worker.refresh(in_force, second.fetched_at)
    assert [(one.action, one.subject[0]) for one in recorded.kept] == [("issuers.keys", "ci")] * 2
    assert recorded.kept[1].subject[1] == "3 keys"


async def test_however_many_ask_in_however_many_workers_one_fetches(build_worker, in_force, outside):
    workers = [build_worker(f"w{number}") for number in range(4)]
    before = outside.fetches
    await asyncio.gather(*(worker.refresh(in_force, None) for worker in workers for _ in range(10)))
    assert outside.fetches == before + 1
    assert sum(worker.outcomes["fetched"] for worker in workers) == 1


async def test_a_failure_is_every_workers_and_is_not_repeated(build_worker, in_force, outside):
    one, other = build_worker("one"), build_worker("other")
    outside.behave("failing")
    before = outside.fetches
    await undecided(one, in_force)
    outside.behave("well")
    for worker in (one, other, one):
        await undecided(worker, in_force)
    assert outside.fetches == before + 1


async def test_a_failure_says_nothing_of_keys_at_another_place(build_worker, in_force, outside, store):
    worker = build_worker()
    outside.behave("failing")
    await undecided(worker, in_force)
    outside.behave("well")
    moved = replace(in_force, key_set_url=f"{outside.url}/moved")
    await change(store, lambda changes: changes.put_issuer(moved))
    await worker.refresh(moved, None)


async def test_what_is_no_key_set_leaves_the_one_before(build_worker, in_force, outside, listing, store):
    worker = build_worker()
    await worker.refresh(in_force, None)
    before = await listing.find_key_set(in_force.url)
    for how in ("empty", "not-json", "nested", "private", "weak", "twice"):
        outside.behave(how)
        await undecided(worker, in_force, before.fetched_at)
        await store.put_for({await _mark(store): b"1"}, 0.001)
        await asyncio.sleep(0.01)  # until the mark of the failure has expired
    assert await listing.find_key_set(in_force.url) == before


async def _mark(store):
    found = await store._ask_one("KEYS", "{cachegate}:jwks-failed:*")
    return found[0]


async def test_keys_of_an_issuer_whose_document_is_gone_are_not_written(
    build_worker, in_force, listing, store
):
    await change(store, lambda changes: changes.delete_issuer(in_force.url))
    await build_worker().refresh(in_force, None)
    assert await listing.find_key_set(in_force.url) is None


async def test_keys_that_do_not_parse_are_fetched_again(build_worker, in_force, listing, store):
    async def spoil(_snapshot, batch):
        batch.facts[names.key_set_fact(issuer_digest(in_force.url))] = b"\xc1"

    await store.transact(spoil)
    await build_worker().refresh(in_force, None)
    assert await listing.find_key_set(in_force.url) is not None


async def test_a_refresh_behind_a_request_fails_for_nobody(build_worker, in_force, outside):
    worker = build_worker()
    outside.behave("failing")
    worker.refresh_soon(in_force, 1.0)
    worker.refresh_soon(in_force, 1.0)
    async with asyncio.timeout(10):
        while not worker.failures:  # noqa: ASYNC110 -- a list is no event
            await asyncio.sleep(0.01)
    assert worker.failures[0].reason is Reason.ISSUER_UNDECIDED
