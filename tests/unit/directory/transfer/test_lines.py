from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from gateway.directory.records.codec import UnreadableRecordError
from gateway.directory.transfer.lines import StoredKey, fact_line, parse_fact, unnumbered
from gateway.model.facts import Alias, Grant, Grants, KeyLife, ModelRule, Visibility
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
        StoredKey(digest=DIGEST, key=make_key(tenant=None, life=KeyLife(disabled_at=3.0, revoked_for="x"))),
    ]


LINES = [
    (
        '{"fact":"policy","digest":"d1","source":"cli","schema":"entity Tenant;","policies":[["a.ce'
        'dar","permit (principal, action, resource);"]]}'
    ),
    (
        '{"fact":"tenant","layout":1,"source":"cli","tenant":"acme","name":"Acme","is_suspended":tr'
        'ue,"created_at":1.0,"degraded_seconds":2.5}'
    ),
    (
        '{"fact":"rule","layout":1,"source":"cli","pattern":"acme/*","owner":"acme","visibility":"p'
        'ublic","groups":[]}'
    ),
    (
        '{"fact":"rule","layout":1,"source":"cli","pattern":"acme/x","owner":null,"visibility":null'
        ',"groups":["vision"]}'
    ),
    '{"fact":"alias","layout":1,"source":"cli","alias":"best","canonical":"acme/x"}',
    (
        '{"fact":"grants","layout":1,"tenant":"acme","grants":[{"grant_id":"grant_1","actions":["di'
        'scover","read"],"models":["globex/*"],"groups":["vision"],"packages":["pkg1"],"source":"po'
        'licies:acme"}]}'
    ),
    (
        '{"fact":"key","layout":1,"source":"cli","key_id":"key_000000000001","tenant":"acme","name"'
        ':"Ünïcode, \\"quoted\\"\\n","scopes":7,"networks":["10.0.0.0/8"],"created_at":1.0,"not_before'
        '":2.5,"expires_at":9000000000.0,"revoked_at":3.0,"pepper_id":"p1","digest":"00010203040506'
        '0708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}'
    ),
    (
        '{"fact":"key","layout":1,"source":"cli","key_id":"key_000000000001","tenant":null,"name":"'
        'ci","scopes":7,"networks":[],"created_at":1.0,"not_before":null,"expires_at":null,"revoked'
        '_at":null,"pepper_id":"p1","digest":"000102030405060708090a0b0c0d0e0f101112131415161718191'
        'a1b1c1d1e1f"}'
    ),
    (
        '{"fact":"key","layout":2,"source":"cli","key_id":"key_000000000001","tenant":null,"name":"'
        'ci","scopes":7,"networks":[],"created_at":1.0,"not_before":null,"expires_at":null,"revoked'
        '_at":null,"pepper_id":"p1","life":{"disabled_at":3.0,"revoked_for":"x","replaces":null,"re'
        'placed_by":null,"is_decoy":false},"digest":"000102030405060708090a0b0c0d0e0f10111213141516'
        '1718191a1b1c1d1e1f"}'
    ),
]
"""Each of `facts` as every version so far has exported it."""


def test_a_line_is_written_as_it_always_was(facts):
    assert [fact_line(fact) for fact in facts] == [line.encode() + b"\n" for line in LINES]


def test_why_a_line_is_no_fact_is_said(facts):
    lines = [json.loads(line) for line in LINES]
    _, tenant, rule, _, alias, grants, key, _, changed = lines
    [grant] = grants["grants"]
    for document, why in [
        (
            {**tenant, "tenant": "no tenant"},
            "'no tenant' is not a tenant id: expected [A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        ),
        ({**tenant, "tenant": 7}, "tenant is missing or no text"),
        ({**tenant, "degraded_seconds": 3601}, "a degraded time out of bounds"),
        ({**tenant, "layout": 5}, "not a record of this kind and layout"),
        ({**tenant, "layout": 4}, "missing or unknown: allows, image_hosts, record_id, removal"),
        ({**tenant, "layout": 3}, "missing or unknown: allows, image_hosts"),
        ({**tenant, "layout": 2}, "missing or unknown: image_hosts"),
        ({**tenant, "image_hosts": []}, "missing or unknown: image_hosts"),
        (
            {**tenant, "layout": 2, "image_hosts": []},
            "a tenant's record has a layout for what it does not have",
        ),
        (
            {**tenant, "layout": 2, "image_hosts": ["*"]},
            "a tenant's record has a host of images that does not parse",
        ),
        (
            {**tenant, "layout": 3, "image_hosts": [], "allows": []},
            "a tenant's record has a layout for what it does not have",
        ),
        (
            {**tenant, "layout": 3, "image_hosts": [], "allows": ["read"]},
            "a tenant's record allows what is no action of a workflow, or out of order",
        ),
        ({**tenant, "name": 7}, "not a record of this kind and layout"),
        ({**tenant, "a": 7, "b": 8}, "missing or unknown: a, b"),
        ({**rule, "owner": "no tenant"}, "a model rule holds a name that does not parse"),
        ({**rule, "groups": ["no group"]}, "a model rule holds a name that does not parse"),
        ({**alias, "canonical": "../b"}, "an alias points to what is no model id"),
        ({**grants, "grants": 7}, "grants is missing or no list"),
        (
            {**grants, "grants": [{**grant, "until": 1}]},
            "a grant has the fields grant_id, actions, models, groups, packages, source",
        ),
        (
            {**grants, "grants": [{}]},
            "a grant has the fields grant_id, actions, models, groups, packages, source",
        ),
        (
            {**grants, "grants": [{**grant, "actions": ["manage"]}]},
            "a grant names no action, or one that nothing can be granted for",
        ),
        (
            {**grants, "grants": [{**grant, "actions": []}]},
            "a grant names no action, or one that nothing can be granted for",
        ),
        ({**grants, "grants": [{**grant, "models": ["*"]}]}, "a grant holds a name that does not parse"),
        ({**grants, "grants": [{**grant, "models": "a"}]}, "not a record of this kind and layout"),
        ({**key, "networks": ["everywhere"]}, "a key record holds a name or network that does not parse"),
        ({**key, "tenant": "no tenant"}, "a key record holds a name or network that does not parse"),
        ({**key, "scopes": 1024}, "not a record of this kind and layout"),
        ({**key, "scopes": 384}, "a key has one role"),
        ({**key, "digest": "00"}, "a digest is 64 hex digits"),
        (
            {**changed, "life": {"disabled_at": 3.0}},
            "a key's life has the fields disabled_at, revoked_for, replaces, replaced_by, is_decoy",
        ),
        ({**key, "digest_check": "00"}, "digest_check follows from the digest"),
        (
            {**key, "key_id": "x"},
            "not a key id: expected key_ and 12 letters or digits (`cachegate keys list` shows them)",
        ),
        ({"fact": "secret"}, "no such kind of fact"),
    ]:
        with pytest.raises(UnreadableRecordError) as error:
            parse_fact(json.dumps(document).encode())
        assert str(error.value) == why


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


def test_a_line_has_hosts_of_images_in_the_second_layout_only(acme):
    hosted = replace(acme, image_hosts=("images.example.com", "http://cdn.example.com"))
    line = fact_line(hosted)
    assert json.loads(line)["layout"] == 2
    assert json.loads(line)["image_hosts"] == ["images.example.com", "http://cdn.example.com"]
    assert parse_fact(line) == unnumbered(hosted)
    assert b"image_hosts" not in fact_line(acme)


def test_a_line_has_what_workflows_may_do_in_the_third_layout_only(acme):
    allowed = replace(acme, allows=("cache-read", "external-request"))
    line = fact_line(allowed)
    assert json.loads(line)["layout"] == 3
    assert json.loads(line)["allows"] == ["cache-read", "external-request"]
    assert parse_fact(line) == unnumbered(allowed)
    assert b"allows" not in fact_line(acme)
