from __future__ import annotations

from hashlib import sha256

from gateway.identity.pepper import Pepper, Peppers
from gateway.identity.platform_keys import platform_key, platform_key_id, sha256_of
from gateway.model.access import Credential
from gateway.model.facts import DEFAULT_SCOPES, KeyKind
from gateway.model.names import parse_key_id, parse_tenant_id

OLD, NEW = (Pepper(id=name, secret=bytes([n]) * 32) for n, name in enumerate(("p1", "p2")))
KEY = Credential("a-platform-key")


def test_all_nodes_call_a_key_the_same():
    first, again = (platform_key(KEY, Peppers(current=NEW), now) for now in (1.0, 2.0))
    assert first[1] == again[1] == NEW.digest(sha256(b"a-platform-key").digest())
    assert (first[0].key_id, first[0].tenant) == (again[0].key_id, again[0].tenant)
    assert first[0].key_id == platform_key_id(first[1])


def test_its_names_are_names():
    key, _ = platform_key(KEY, Peppers(current=NEW), 1.0)
    assert parse_key_id(key.key_id) == key.key_id
    assert parse_tenant_id(key.tenant) == f"platform-{key.key_id.removeprefix('key_')}"


def test_what_it_is_called_depends_on_the_pepper_and_on_the_whole_key():
    ids = {
        platform_key(Credential(f"key-{n}"), Peppers(current=pepper), 1.0)[0].key_id
        for n in range(500)
        for pepper in (OLD, NEW)
    }
    assert len(ids) == 1000


def test_it_may_do_what_a_tenants_key_may_and_nothing_else():
    key, _ = platform_key(KEY, Peppers(current=NEW, previous=(OLD,)), 1.0)
    assert (key.kind, key.scopes, key.source, key.pepper_id) == (
        KeyKind.TENANT,
        DEFAULT_SCOPES,
        "platform",
        "p2",
    )


def test_a_key_is_named_outside_by_its_sha256():
    assert sha256_of(KEY) == sha256(b"a-platform-key").digest()
