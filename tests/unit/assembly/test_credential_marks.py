"""Marks: a key is found for an entry of the engine's cache, and Redis does not help to test guesses."""

from __future__ import annotations

import hashlib
import json

import pytest

from gateway.assembly.credential_marks import find_keys, marker, note_mark
from gateway.engine.credential_hash import credential_hash
from gateway.identity.pepper import Pepper, Peppers
from gateway.model.errors import Unavailable
from gateway.model.names import KeyId

pytestmark = pytest.mark.anyio

KEY = KeyId("key_abcdefghijkl")
OLD, NEW = (Pepper(id=f"p{number}", secret=bytes([number]) * 32) for number in (1, 2))


class Store:
    """The hashes of a store, in memory."""

    def __init__(self):
        self.hashes = {}

    async def put_hash(self, name, values):
        self.hashes.setdefault(name, {}).update(values)

    async def hash_fields(self, name, keys):
        return [self.hashes.get(name, {}).get(key) for key in keys]


class Gone:
    async def put_hash(self, name, values):
        raise Unavailable("redis", "gone")


async def test_a_key_is_found_by_the_engines_hash_of_it():
    store, peppers = Store(), Peppers(current=NEW)
    await note_mark(store, peppers, KEY, "a-secret-key")
    wanted = [credential_hash("a-secret-key"), credential_hash("another")]
    assert await find_keys(store, peppers, wanted) == {wanted[0]: KEY}


async def test_a_mark_under_an_older_pepper_is_found():
    store = Store()
    await note_mark(store, Peppers(current=OLD), KEY, "a-secret-key")
    found = await find_keys(store, Peppers(current=NEW, previous=(OLD,)), [credential_hash("a-secret-key")])
    assert set(found.values()) == {KEY}
    assert await find_keys(store, Peppers(current=NEW), [credential_hash("a-secret-key")]) == {}


async def test_neither_the_key_nor_any_plain_hash_of_it_is_stored():
    store = Store()
    await note_mark(store, Peppers(current=NEW), KEY, "a-secret-key")
    stored = repr(store.hashes)
    plain = hashlib.sha256(json.dumps({"api_key": "a-secret-key"}).encode())
    for secret in ("a-secret-key", plain.hexdigest(), hashlib.sha256(b"a-secret-key").hexdigest()):
        assert secret not in stored
    assert repr(plain.digest())[2:-1] not in stored


def test_a_mark_is_no_digest_under_which_a_key_is_stored():
    peppers = Peppers(current=NEW)
    digests = [
        peppers.digest(hashlib.sha256(b"k").digest()),
        peppers.digest(bytes.fromhex(credential_hash("k"))),
    ]
    assert marker(peppers)("k") not in digests


async def test_a_key_that_is_not_at_hand_and_a_store_that_is_gone_stop_nothing():
    store = Store()
    await note_mark(store, Peppers(current=NEW), KEY, None)
    assert store.hashes == {}
    await note_mark(Gone(), Peppers(current=NEW), KEY, "a-secret-key")
