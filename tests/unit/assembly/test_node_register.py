"""Nodes that were heard of within a week are listed, this one always, whatever else stands in Redis."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest

from gateway.adapters.redis_fleet import Fleet, Registered
from gateway.assembly.node_register import KEPT_SECONDS, LISTED_SECONDS, NODES, NodeRegister

pytestmark = pytest.mark.anyio
NOW = 1_790_000_000.0


@dataclass
class Store:
    hashes: dict = field(default_factory=dict)
    workers: tuple = ()

    async def put_hash(self, name, values):
        fields = self.hashes.setdefault(name, {})
        fields.update(values)
        self.hashes[name] = {field: value for field, value in fields.items() if value}

    async def hash_entries(self, name):
        return self.hashes.get(name, {})

    async def look(self, about):
        return Fleet(workers=tuple(Registered(worker=one, applied=1) for one in self.workers))


class Clock:
    def now(self):
        return NOW


def entry(seen_at, url="https://b.example"):
    return msgspec.json.encode({"url": url, "seen_at": seen_at})


async def test_a_node_says_where_it_is_and_the_others_list_it():
    store = Store(workers=("a:1:x", "a:2:y", "b:eu:3:z"))
    await NodeRegister(store, Clock(), node="a", url="https://a.example").announce()
    listed = await NodeRegister(store, Clock(), node="b:eu", url=None).listed()
    assert [(one.node, one.url, one.is_this, one.workers) for one in listed] == [
        ("a", "https://a.example", False, 2),
        ("b:eu", None, True, 1),
    ]


async def test_what_is_old_or_does_not_parse_is_not_listed():
    fields = {
        b"old": entry(NOW - LISTED_SECONDS),
        b"new": entry(NOW - 10),
        b"far": entry(1e300),
        b"odd": b"{",
        b"odder": b'{"url":1}',
    }
    listed = await NodeRegister(Store({NODES: fields}), Clock(), node="a", url=None).listed()
    assert [one.node for one in listed] == ["a", "new"]


async def test_what_redis_says_of_this_node_does_not_count():
    fields = {b"a": entry(NOW, "https://somewhere.else")}
    [listed] = await NodeRegister(Store({NODES: fields}), Clock(), node="a", url="https://a.example").listed()
    assert listed.url == "https://a.example"


async def test_a_node_that_was_not_heard_of_for_weeks_is_removed_by_the_next_that_announces_itself():
    store = Store({NODES: {b"gone": entry(NOW - KEPT_SECONDS - 1), b"away": entry(NOW - LISTED_SECONDS - 1)}})
    await NodeRegister(store, Clock(), node="a", url=None).announce()
    assert set(store.hashes[NODES]) == {b"away", b"a"}
