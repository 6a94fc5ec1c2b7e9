"""Fixtures over a real store: a worker's memory that follows it, and builders of facts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.history_file import HistoryFile
from gateway.adapters.redis_feed import RedisFeed
from gateway.adapters.redis_url import RedisLimits, parse_redis_url
from gateway.directory.edits.changes import change
from gateway.directory.memory.follower import Follower
from gateway.directory.memory.lease import Lease
from gateway.directory.memory.near_cache import NearCache
from gateway.directory.memory.near_facts import NearFacts
from gateway.directory.records import names
from gateway.model.facts import DEFAULT_SCOPES, Key, PolicySet, Tenant
from gateway.model.names import KeyId, TenantId
from tests import samples

if TYPE_CHECKING:
    from gateway.adapters.redis_store import RedisStore


@dataclass
class Worker:
    """A worker's near cache and lease, following a real server."""

    facts: NearFacts
    lease: Lease
    store: RedisStore

    async def catches_up(self) -> None:
        """Wait until every change made so far is applied here."""
        generation = await self.store.generation()
        async with asyncio.timeout(5):
            while not (self.facts.is_leased() and self.lease.applied >= generation):  # noqa: ASYNC110 -- a lease is no event
                await asyncio.sleep(0.001)


@pytest.fixture
async def worker(store, valkey_url, tmp_path):
    """A worker's memory, with a real feed."""
    clock = SystemClock()
    lease = Lease(30.0)
    facts = NearFacts(store, NearCache(max_entries=1000, max_bytes=1 << 20), lease, clock)
    feed = RedisFeed(
        parse_redis_url(valkey_url),
        RedisLimits(),
        worker="w",
        prefix=names.FACTS,
        renew_seconds=0.05,
        lease_seconds=1.0,
        clock=clock,
    )
    follower = Follower(facts, lease, HistoryFile(tmp_path / "history.json"))
    running = asyncio.create_task(feed.run(follower))
    worker = Worker(facts, lease, store)
    await worker.catches_up()
    yield worker
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def corrupt(store):
    """Writes raw bytes under a name as a change of its own, bypassing all checks."""

    async def write(name: bytes, raw: bytes | None = b"\xc1garbage"):
        async def plan(snapshot, batch):
            batch.facts[name] = raw

        await store.transact(plan)

    return write


@pytest.fixture
def run(store):
    """Runs one edit in a transaction and returns its effect."""

    async def operate(operation, **arguments):
        effect, _ = await change(store, lambda changes: operation(changes, **arguments))
        return effect

    return operate


@pytest.fixture
def acme():
    return Tenant(tenant_id=TenantId("acme"), name="Acme", is_suspended=False, created_at=1.0)


@pytest.fixture
def policy():
    return PolicySet(
        schema="entity Tenant;", policies=(("a.cedar", "permit (principal, action, resource);"),), digest="d1"
    )


@pytest.fixture
def make_key():
    def make(number: int = 1, tenant: str | None = "acme", **fields):
        return Key(
            **{
                "key_id": KeyId(f"key_{number:012d}"),
                "tenant": tenant,
                "name": "ci",
                "scopes": DEFAULT_SCOPES,
                "networks": (),
                "created_at": 1.0,
                "pepper_id": "p1",
                **fields,
            }
        )

    return make


@pytest.fixture
def principal():
    return samples.principal(key_id=KeyId("key_000000000001"), key_name="ci", scopes=DEFAULT_SCOPES)
