"""Laws of records: what is written is read back, and nothing else is ever read as a fact."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.directory.records.codec import (
    UnreadableRecordError,
    decode_alias,
    decode_grants,
    decode_key,
    decode_rule,
    decode_tenant,
    encode,
    encode_key,
)
from gateway.directory.records.policies import decode_policy, decode_policy_head, encode_policy
from gateway.model.access import GRANTABLE
from gateway.model.errors import BadNameError
from gateway.model.facts import (
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
from gateway.model.names import KeyId, Pattern, TenantId, parse_model_id
from tests.structs import made

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
times = st.floats(allow_nan=False, allow_infinity=False)
DIGEST = bytes(range(32))
generations = st.integers(0, 2**63 - 1)
sources = st.sampled_from(["cli", "policies:acme"])
record_ids = st.none() | st.from_regex(r"ten_[0-9A-Za-z]{12}", fullmatch=True)


def is_model_id(text: str) -> bool:
    try:
        parse_model_id(text)
    except BadNameError:
        return False
    return True


model_ids = st.lists(texts, min_size=1, max_size=4).map("/".join).filter(is_model_id)
patterns = st.builds(
    lambda stem, is_prefix: Pattern(f"{stem}/*" if is_prefix else stem), model_ids, st.booleans()
)


@st.composite
def keys(draw) -> Key:
    tenant = draw(st.none() | names)
    return Key(
        key_id=KeyId(draw(st.from_regex(r"key_[0-9A-Za-z]{12}", fullmatch=True))),
        tenant=tenant,
        tenant_record=None if tenant is None else draw(record_ids),
        name=draw(texts),
        scopes=frozenset(draw(st.sets(st.sampled_from(Scope)))),
        networks=tuple(draw(st.lists(st.sampled_from(["10.0.0.0/8", "::1/128"]), max_size=3))),
        created_at=draw(times),
        not_before=draw(st.none() | times),
        expires_at=draw(st.none() | times),
        revoked_at=draw(st.none() | times),
        pepper_id=draw(names),
        generation=draw(generations),
        source=draw(sources),
    )


tenants = st.builds(
    made(Tenant),
    tenant_id=names,
    name=texts,
    is_suspended=st.booleans(),
    created_at=times,
    record_id=record_ids,
    removal=st.none() | names,
    generation=generations,
    source=sources,
)
grants = st.builds(
    made(Grants),
    tenant_id=names,
    tenant_record=record_ids,
    grants=st.lists(
        st.builds(
            made(Grant),
            grant_id=names,
            actions=st.frozensets(st.sampled_from(sorted(GRANTABLE)), min_size=1),
            models=st.lists(patterns, max_size=3).map(tuple),
            groups=st.lists(names, max_size=3).map(tuple),
            packages=st.lists(st.from_regex(r"p[A-Za-z0-9]{1,20}", fullmatch=True), max_size=2).map(tuple),
            source=sources,
            not_before=st.none() | times,
            expires_at=st.none() | times,
        ),
        max_size=4,
    ).map(tuple),
    generation=generations,
)


@st.composite
def model_rules(draw) -> ModelRule:
    """Only an owner has a record, and only a publication has times."""
    owner = draw(st.none() | names)
    visibility = draw(st.none() | st.sampled_from(Visibility))
    moments = st.none() | times if visibility is Visibility.PUBLIC else st.none()
    return ModelRule(
        pattern=draw(patterns),
        owner=owner,
        owner_record=None if owner is None else draw(record_ids),
        visibility=visibility,
        groups=tuple(draw(st.lists(names, max_size=3))),
        not_before=draw(moments),
        expires_at=draw(moments),
        generation=draw(generations),
        source=draw(sources),
    )


rules = model_rules()
aliases = st.builds(made(Alias), alias=model_ids, canonical=model_ids, generation=generations, source=sources)
policies = st.builds(
    made(PolicySet),
    schema=texts,
    policies=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    digest=names,
    generation=generations,
    source=sources,
)


def encoded(fact) -> bytes:
    match fact:
        case Key():
            return encode_key(fact, DIGEST)
        case PolicySet():
            return encode_policy(fact)[0]
        case _:
            return encode(fact)


def decoders_for(fact) -> dict[type, object]:
    """Every decoder, each asked for the name it would find this fact under if that were its own."""
    claimed = (
        getattr(fact, "tenant_id", None) or getattr(fact, "pattern", None) or getattr(fact, "alias", "x")
    )
    return {
        Key: lambda raw: decode_key(raw, DIGEST),
        Tenant: lambda raw: decode_tenant(raw, claimed),
        Grants: lambda raw: decode_grants(raw, claimed),
        ModelRule: lambda raw: decode_rule(raw, claimed),
        Alias: lambda raw: decode_alias(raw, claimed),
        PolicySet: decode_policy_head,
    }


facts = st.one_of(keys(), tenants, grants, rules, aliases)
anything = st.one_of(facts, policies)


@given(facts)
def test_what_is_written_is_read_back(fact):
    assert decoders_for(fact)[type(fact)](encoded(fact)) == fact


@given(policies)
def test_a_policy_set_is_read_back_from_its_two_records(policy):
    head, text_digest, text = encode_policy(policy)
    read = decode_policy_head(head)
    assert read.text_digest == text_digest
    assert decode_policy(text, read) == policy


@given(anything)
def test_a_record_of_one_kind_is_no_fact_of_another(fact):
    raw = encoded(fact)
    for kind, decode in decoders_for(fact).items():
        if kind is not type(fact):
            with pytest.raises(UnreadableRecordError):
                decode(raw)


@given(anything, st.data())
def test_a_record_that_lost_or_gained_bytes_is_no_fact(fact, data):
    raw = encoded(fact)
    decode = decoders_for(fact)[type(fact)]
    cut = data.draw(st.integers(0, len(raw) - 1))
    for broken in (raw[:cut], raw + b"\x00", raw + raw):
        with pytest.raises(UnreadableRecordError):
            decode(broken)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=14) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.binary(max_size=200) | json_like.map(msgspec.msgpack.encode))
def test_arbitrary_bytes_are_a_fact_of_their_own_kind_or_unreadable(raw):
    for kind, decode in decoders_for(
        Tenant(tenant_id=TenantId("x"), name="", is_suspended=False, created_at=0)
    ).items():
        try:
            fact = decode(raw)
        except UnreadableRecordError:
            continue
        assert kind is PolicySet or isinstance(fact, kind)


@given(keys(), st.integers(0, 17), json_like)
def test_a_key_with_one_field_changed_is_a_key_of_sound_fields_or_unreadable(key, index, value):
    row = msgspec.msgpack.decode(encode_key(key, DIGEST))
    row[index % len(row)] = value
    try:
        read = decode_key(msgspec.msgpack.encode(row), DIGEST)
    except UnreadableRecordError:
        return
    moments = [read.created_at, read.not_before, read.expires_at, read.revoked_at]
    assert all(moment is None or abs(moment) < float("inf") for moment in moments)
    assert read == decode_key(encode_key(read, DIGEST), DIGEST)
