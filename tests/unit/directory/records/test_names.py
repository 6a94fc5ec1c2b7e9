from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.redis_marks import GENERATION
from gateway.directory.records import names
from gateway.model.names import KeyId, ModelId, Pattern, TenantId

KEY = KeyId("key_abCDEF012345")


def all_facts() -> list[bytes]:
    return [
        names.POLICY,
        names.policy_text(b"x" * 32),
        names.key_fact(b"x" * 32),
        names.key_fact(b"\x00" * 32),
        names.tenant_fact(TenantId("a")),
        names.tenant_fact(TenantId("k")),
        names.grants_fact(TenantId("a")),
        names.rule_fact(Pattern("a")),
        names.rule_fact(Pattern("a/*")),
        names.rule_fact(Pattern("p:a")),
        names.rule_fact(Pattern("a/b")),
        names.alias_fact(ModelId("a")),
        names.alias_fact(ModelId("policy")),
    ]


def all_others() -> list[bytes]:
    return [
        names.TENANTS,
        names.PATTERNS,
        names.ALIASES,
        names.ADMIN_KEYS,
        names.DEGRADED,
        names.PEPPERS,
        names.tenant_keys(TenantId("a")),
        names.tenant_keys(TenantId("admin-keys")),
        names.key_digest(KEY)[0],
        names.last_use(KEY)[0],
        GENERATION,
    ]


def test_no_two_things_share_a_name():
    everything = all_facts() + all_others()
    assert len(set(everything)) == len(everything)


def test_every_fact_is_below_the_tracked_prefix_and_nothing_else_is():
    assert all(name.startswith(names.FACTS) for name in all_facts())
    assert not any(name.startswith(names.FACTS) for name in all_others())


def test_all_names_lie_in_one_cluster_slot():
    for name in all_facts() + all_others():
        assert name.startswith(b"{cachegate}:")


def test_a_million_key_ids_stay_in_hashes_that_redis_keeps_compact():
    base62 = 62
    assert base62**names._BUCKET_CHARACTERS * 512 > 1_000_000
    bucket, field = names.key_digest(KEY)
    assert (bucket, field) == (b"{cachegate}:i:id:ab", b"abCDEF012345")


def test_a_short_key_id_gives_the_key_id_back():
    assert names.long_key_id(names.short_key_id(KEY)) == KEY


@pytest.mark.parametrize("digest", [b"", b"x" * 31, b"x" * 33])
def test_a_name_is_made_of_a_whole_digest_only(digest):
    with pytest.raises(ValueError, match="32 bytes"):
        names.key_fact(digest)


@given(st.binary(min_size=32, max_size=32))
def test_the_name_of_a_key_gives_its_digest_back(digest):
    assert names.digest_of(names.key_fact(digest)) == digest
    assert names.is_key_fact(names.key_fact(digest))


def test_no_other_fact_is_taken_for_a_key():
    assert [name for name in all_facts() if names.is_key_fact(name)] == [
        names.key_fact(b"x" * 32),
        names.key_fact(b"\x00" * 32),
    ]
