"""The law of exported lines: what is written is read back, and nothing else is read as a fact."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.directory.records.codec import UnreadableRecordError
from gateway.directory.transfer.lines import StoredKey, fact_line, parse_fact
from gateway.model.facts import (
    MAX_DEGRADED_SECONDS,
    Alias,
    Grant,
    Grants,
    Key,
    ModelRule,
    PolicySet,
    Scope,
    Tenant,
    Visibility,
)
from tests.structs import made

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
some_text = texts.filter(bool)
moments = st.floats(allow_nan=False, allow_infinity=False)
tenant_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
model_ids = st.from_regex(r"[a-zé0-9]{1,8}(/[a-z0-9-]{1,8}){0,3}", fullmatch=True)
patterns = st.one_of(model_ids, model_ids.map("{}/*".format))
groups = st.lists(tenant_ids, max_size=3).map(tuple)

keys = st.builds(
    made(Key),
    tenant=st.none() | tenant_ids,
    key_id=st.from_regex(r"key_[0-9A-Za-z]{12}", fullmatch=True),
    name=texts,
    scopes=st.frozensets(st.sampled_from(Scope)),
    networks=st.lists(st.ip_addresses().map(str), max_size=3).map(tuple),
    created_at=moments,
    not_before=st.none() | moments,
    expires_at=st.none() | moments,
    revoked_at=st.none() | moments,
    pepper_id=some_text,
    source=some_text,
)
grants = st.builds(
    made(Grant),
    grant_id=some_text,
    actions=st.frozensets(st.sampled_from(["discover", "read", "infer"]), min_size=1),
    models=st.lists(patterns, max_size=3).map(tuple),
    groups=groups,
    packages=st.lists(st.from_regex(r"pkg[A-Za-z0-9]{1,8}", fullmatch=True), max_size=3).map(tuple),
    source=some_text,
)
facts = st.one_of(
    st.builds(made(StoredKey), digest=st.binary(min_size=32, max_size=32), key=keys),
    st.builds(
        made(Tenant),
        tenant_id=tenant_ids,
        name=texts,
        is_suspended=st.booleans(),
        created_at=moments,
        degraded_seconds=st.floats(0, MAX_DEGRADED_SECONDS),
        image_hosts=st.lists(
            st.sampled_from(["a", "images.example.com:8443", "http://a.b"]), unique=True
        ).map(tuple),
        source=some_text,
    ),
    st.builds(
        made(ModelRule),
        pattern=patterns,
        owner=st.none() | tenant_ids,
        visibility=st.none() | st.sampled_from(Visibility),
        groups=groups,
        source=some_text,
    ),
    st.builds(made(Alias), alias=model_ids, canonical=model_ids, source=some_text),
    st.builds(made(Grants), tenant_id=tenant_ids, grants=st.lists(grants, max_size=3).map(tuple)),
    st.builds(
        made(PolicySet),
        schema=texts,
        policies=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
        digest=texts,
        source=texts,
    ),
)


@given(facts)
def test_a_line_is_read_back_as_the_fact_that_it_was_written_for(fact):
    line = fact_line(fact)
    assert line.count(b"\n") == 1
    assert parse_fact(line) == fact


@given(facts, facts)
def test_two_facts_never_share_a_line(one, other):
    assert (fact_line(one) == fact_line(other)) == (one == other)


@given(st.binary() | st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["fact", "tenant", "grants", "digest", "policies", "layout"]), inner),
).map(json.dumps).map(str.encode))  # fmt: skip
def test_bytes_are_a_fact_or_refused_and_nothing_else_happens(raw):
    try:
        parse_fact(raw)
    except UnreadableRecordError:
        return
    raise AssertionError(f"{raw!r} was read as a fact")


@given(facts, st.data())
def test_a_line_with_one_byte_changed_is_refused_or_some_fact(fact, data):
    line = bytearray(fact_line(fact))
    position = data.draw(st.integers(0, len(line) - 1))
    line[position] = data.draw(st.integers(0, 255))
    try:
        read = parse_fact(bytes(line))
    except UnreadableRecordError:
        return
    assert parse_fact(fact_line(read)) == read
