"""Stored networks of keys: what is new to a key that had others, bounded, and beside the facts."""

from __future__ import annotations

import pytest

from gateway.directory.reading.key_networks import MAX_NETWORKS, find_networks, note_networks
from gateway.directory.records import names
from gateway.identity.key_networks import NetworkUse
from gateway.model.errors import Unavailable
from gateway.model.names import KeyId

pytestmark = pytest.mark.anyio

ONE, OTHER = KeyId("key_ab0000000001"), KeyId("key_cd0000000001")


def use(key_id, network, at):
    return NetworkUse(key_id=key_id, tenant=None, network=network, at=at)


async def test_the_first_network_of_a_key_is_not_new_and_every_further_one_is(store):
    first = [use(ONE, "192.0.2.0/24", 1.0), use(OTHER, "192.0.2.0/24", 1.5)]
    assert (await note_networks(store, first))[0] == []
    second = [use(ONE, "192.0.2.0/24", 2.0), use(ONE, "2001:db8::/48", 3.0)]
    assert (await note_networks(store, second)) == (second[1:], [], None)
    assert (await note_networks(store, second))[0] == []
    assert await find_networks(store, [ONE, OTHER]) == {
        ONE: {"192.0.2.0/24": 1.0, "2001:db8::/48": 3.0},
        OTHER: {"192.0.2.0/24": 1.0},
    }


async def test_noting_networks_moves_no_generation(store):
    await note_networks(store, [use(ONE, "192.0.2.0/24", 1.0)])
    assert await store.generation() == 0


async def test_a_key_has_its_last_networks(store):
    for number in range(MAX_NETWORKS + 4):
        await note_networks(store, [use(ONE, f"10.0.{number}.0/24", 100.0 + number)])
    found = (await find_networks(store, [ONE]))[ONE]
    assert list(found) == [f"10.0.{number}.0/24" for number in range(4, MAX_NETWORKS + 4)]


@pytest.mark.parametrize("stored", [b"", b"x", b"10.0.0.0/24", b"10.0.0.0/24=now", b"\xff=1", b"=1 =2"])
async def test_what_does_not_parse_is_no_network(store, stored):
    bucket, field = names.networks_of(ONE)
    await store.put_hash(bucket, {field: stored})
    assert await find_networks(store, [ONE]) == {ONE: {}}


async def test_what_could_not_be_stored_is_said():
    class Gone:
        async def hash_fields(self, name, keys):
            raise Unavailable("redis", "gone")

    uses = [use(ONE, "192.0.2.0/24", 1.0), use(OTHER, "192.0.2.0/24", 1.0)]
    new, failed, failure = await note_networks(Gone(), uses)
    assert (new, failed) == ([], uses)
    assert failure is not None
