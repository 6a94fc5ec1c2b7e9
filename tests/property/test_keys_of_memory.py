"""Collision search: names in Redis, cache keys and singleflight keys are injective.

The strings are chosen to collide where components are joined: separators inside them, empty ones, ones
that start like another kind's prefix, the same characters split at another place.
"""

from __future__ import annotations

from itertools import combinations

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.decisions import question_of
from gateway.directory.records import names
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind
from gateway.model.errors import BadNameError
from gateway.model.facts import KeyKind, Scope
from gateway.model.names import (
    KeyId,
    ModelId,
    PackageId,
    Pattern,
    TenantId,
    parse_model_id,
    parse_pattern,
    parse_tenant_id,
)
from tests import samples
from tests.structs import made

PIECES = [
    "a",
    "b",
    "ab",
    "k",
    "t",
    "g",
    "m",
    "p",
    "x",
    "f",
    ":",
    "/",
    "/-/",
    "policy",
    "step",
    "*",
    "é",
    "e\u0301",
    ".",
]


def parsed(parse):
    def is_name(text):
        try:
            parse(text)
        except BadNameError:
            return False
        return True

    return st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join).filter(is_name)


tenants, models, patterns = parsed(parse_tenant_id), parsed(parse_model_id), parsed(parse_pattern)
digests = st.binary(min_size=32, max_size=32) | st.sampled_from([b"\x00" * 32, b"\xff" * 32, b"k:" * 16])

facts = st.one_of(
    tenants.map(lambda one: (("tenant", one), names.tenant_fact(TenantId(one)))),
    tenants.map(lambda one: (("grants", one), names.grants_fact(TenantId(one)))),
    patterns.map(lambda one: (("rule", one), names.rule_fact(Pattern(one)))),
    models.map(lambda one: (("alias", one), names.alias_fact(ModelId(one)))),
    digests.map(lambda one: (("key", one), names.key_fact(one))),
    digests.map(lambda one: (("text", one), names.policy_text(one))),
    st.just((("policy",), names.POLICY)),
)


@given(st.lists(facts, min_size=2, max_size=30))
def test_two_facts_share_no_name_in_redis(named):
    things = dict(named)
    assert len(set(things.values())) == len(things)


texts = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
principals = st.builds(
    made(Principal),
    kind=st.sampled_from(KeyKind),
    key_id=texts.map(KeyId),
    key_name=texts,
    tenant=st.none() | texts.map(TenantId),
    scopes=st.frozensets(st.sampled_from(Scope), max_size=3),
    expires_at=st.none() | st.sampled_from([1.0, 2.0]),
    degraded_seconds=st.sampled_from([0.0, 60.0]),
)
resources = st.builds(
    made(Resource),
    kind=st.sampled_from(ResourceKind),
    model=st.none() | texts.map(ModelId),
    package=st.none() | texts.map(PackageId),
    file=st.none() | texts,
    md5=st.none() | texts,
)
accesses = st.builds(made(Access), principal=principals, action=st.sampled_from(Action), resource=resources)


def meaning(access):
    """All that a decision may depend on. A file is decided as its package, by any of its names."""
    resource = access.resource
    kind = "package" if resource.kind is ResourceKind.FILE else resource.kind.value
    who = tuple(getattr(access.principal, name) for name in Principal.__struct_fields__)
    return who, access.action, kind, resource.model, resource.package, resource.md5


@given(st.lists(accesses, min_size=2, max_size=8))
def test_two_questions_that_differ_share_no_memory_and_no_flight(asked):
    for one, other in combinations(asked, 2):
        assert (question_of(one) == question_of(other)) is (meaning(one) == meaning(other))


@given(accesses, st.data())
def test_whatever_is_changed_of_the_caller_is_another_question(access, data):
    field = data.draw(st.sampled_from(Principal.__struct_fields__))
    other = replace(access.principal, **{field: getattr(data.draw(principals), field)})
    assume(other != access.principal)
    assert question_of(access) != question_of(replace(access, principal=other))


@given(texts, texts, texts, texts)
def test_the_same_characters_cut_at_another_place_are_another_question(one, two, three, four):
    def asked(model, package):
        resource = Resource(kind=ResourceKind.PACKAGE, model=ModelId(model), package=PackageId(package))
        principal = samples.principal(key_id=KeyId("k"), tenant=TenantId("t"))
        return question_of(Access(principal=principal, action=Action.READ, resource=resource))

    assert (asked(one, two) == asked(three, four)) is ((one, two) == (three, four))
    assert (asked(one + two, three) == asked(one, two + three)) is (two == "")
