from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from gateway.directory.records.layout import UnreadableRecordError
from gateway.directory.transfer.lines import StoredKey, fact_line, parse_fact, unnumbered
from gateway.model.facts import Alias, Grant, Grants, ModelRule, Visibility
from gateway.model.names import GroupName, ModelId, PackageId, Pattern, TenantId

DIGEST = bytes(range(32))


@pytest.fixture
def facts(acme, policy, make_key):
    grant = Grant(
        grant_id="grant_1",
        actions=frozenset({"read", "discover"}),
        models=(Pattern("globex/*"),),
        groups=(GroupName("vision"),),
        packages=(PackageId("pkg1"),),
        source="policies:acme",
    )
    key = make_key(
        networks=("10.0.0.0/8",), not_before=2.5, expires_at=9e9, revoked_at=3.0, name='Ünïcode, "quoted"\n'
    )
    return [
        policy,
        replace(acme, is_suspended=True, degraded_seconds=2.5),
        ModelRule(pattern=Pattern("acme/*"), owner=TenantId("acme"), visibility=Visibility.PUBLIC),
        ModelRule(pattern=Pattern("acme/x"), groups=(GroupName("vision"),)),
        Alias(alias=ModelId("best"), canonical=ModelId("acme/x")),
        Grants(tenant_id=TenantId("acme"), grants=(grant,)),
        StoredKey(digest=DIGEST, key=key),
        StoredKey(digest=DIGEST, key=make_key(tenant=None)),
    ]


def test_a_fact_is_read_back_from_its_line_as_it_was(facts):
    for fact in facts:
        assert parse_fact(fact_line(fact)) == fact


def test_a_line_is_one_line_with_named_fields(facts):
    for fact in facts:
        line = fact_line(fact)
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        assert "fact" in json.loads(line)


def test_the_generation_that_a_server_gave_stays_there(facts):
    for fact in facts:
        if isinstance(fact, StoredKey):
            numbered = replace(fact, key=replace(fact.key, generation=7))
        else:
            numbered = replace(fact, generation=7)
        assert parse_fact(fact_line(numbered)) == fact
        assert unnumbered(numbered) == fact


def test_a_line_with_a_field_missing_or_too_many_is_no_fact(facts):
    for fact in facts:
        document = json.loads(fact_line(fact))
        for name in document:
            poorer = {key: value for key, value in document.items() if key != name}
            with pytest.raises(UnreadableRecordError):
                parse_fact(json.dumps(poorer).encode())
        for name in ("generation", "digest_check", "token", "surplus"):
            with pytest.raises(UnreadableRecordError):
                parse_fact(json.dumps({**document, name: 1}).encode())


def test_a_field_of_the_wrong_kind_is_no_fact(facts):
    for fact in facts:
        document = json.loads(fact_line(fact))
        for name in document:
            for value in ({}, [{}], "\x00", -1, 1 << 70):
                if document[name] == value or (name == "name" and isinstance(value, str)):
                    continue
                if name in {"source", "pepper_id", "digest", "schema", "grant_id"} and value == "\x00":
                    continue  # any text is valid where a text is expected
                if name in {"created_at", "not_before", "expires_at", "revoked_at"} and value == -1:
                    continue  # a valid time, long ago
                with pytest.raises(UnreadableRecordError):
                    parse_fact(json.dumps({**document, name: value}).encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"fact": "key"}',
        b'{"fact": ["key"]}',
        b'{"fact": "secret"}',
        b"{" * 10_000,
        b"[" * 100_000,
        b'{"fact": "tenant", "tenant": "\\ud800"}',
        b"\xff",
        b'{"fact": "tenant", "created_at": NaN}',
        b'{"fact": "tenant", "created_at": 1e999}',
    ],
)
def test_bytes_that_are_no_fact_are_refused_and_nothing_else_is_raised(raw):
    with pytest.raises(UnreadableRecordError):
        parse_fact(raw)


def test_a_key_is_refused_under_a_digest_that_is_none(make_key):
    document = json.loads(fact_line(StoredKey(digest=DIGEST, key=make_key())))
    for digest in ("", "00", "zz" * 32, "00" * 33, None, 7):
        with pytest.raises(UnreadableRecordError):
            parse_fact(json.dumps({**document, "digest": digest}).encode())
