"""`decide` agrees with a reference implementation without Cedar, over generated tenants, models, grants."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.decision import Rulebook
from gateway.decision.left_out import rules_relied_on
from gateway.decision.policyset import digest_of, load_policy_folder
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind
from gateway.model.errors import Reason
from gateway.model.facts import Facts, Grant, KeyKind, Scope, Standing, Visibility
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Allowed, Denied
from tests.examples import examples
from tests.structs import made

SHIPPED = load_policy_folder(Path(__file__).parents[2] / "policies")
RULEBOOK = Rulebook()

# Few names, so that worlds collide; some look like the tags of synthetic entities or like Cedar text.
SEGMENTS = st.sampled_from(["a", "b", "pattern:a", "group:g", '"]', "::", "ä", "a b"])
MODELS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)
PATTERNS = st.one_of(MODELS, MODELS.map(lambda model: f"{model}/*"))
TENANTS = st.sampled_from(["t1", "t2"])
GROUPS = st.sampled_from(["g", "h", "a"])
PACKAGES = st.sampled_from(["p", "q"])
ACTIONS = st.sampled_from([Action.DISCOVER, Action.READ, Action.INFER])
STANDINGS = st.builds(
    made(Standing),
    owner=st.none() | TENANTS,
    visibility=st.sampled_from(Visibility),
    groups=st.frozensets(GROUPS, max_size=2),
)
GRANTS = st.lists(
    st.builds(
        made(Grant),
        grant_id=st.just("g"),
        actions=st.frozensets(ACTIONS, min_size=1, max_size=2),
        models=st.lists(PATTERNS, max_size=2).map(tuple),
        groups=st.lists(GROUPS, max_size=1).map(tuple),
        packages=st.lists(PACKAGES, max_size=1).map(tuple),
    ),
    max_size=3,
).map(tuple)


@st.composite
def questions(draw: st.DrawFn) -> tuple[Access, Facts]:
    model = draw(MODELS)
    requested = draw(st.one_of(st.just(model), MODELS))
    standing = draw(STANDINGS)
    package = draw(st.none() | PACKAGES)
    is_admin = draw(st.booleans()) and draw(st.booleans())
    access = Access(
        principal=Principal(
            kind=KeyKind.ADMIN if is_admin else KeyKind.TENANT,
            key_id="key_0123456789ab",
            key_name="",
            tenant=None if is_admin else draw(TENANTS),
            scopes=draw(st.frozensets(st.sampled_from(Scope))),
            expires_at=None,
        ),
        action=draw(ACTIONS),
        resource=Resource(
            kind=ResourceKind.MODEL if package is None else ResourceKind.PACKAGE,
            model=requested,
            package=package,
        ),
    )
    facts = Facts(
        grants=draw(GRANTS),
        requested=requested,
        model=model,
        requested_standing=standing if requested == model else draw(STANDINGS),
        model_standing=standing,
        policy=SHIPPED,
        stamp=Stamp(0, ()),
    )
    return access, facts


def matches(pattern: str, model: str) -> bool:
    return model.startswith(pattern[:-1]) if pattern.endswith("/*") else model == pattern


def permitted(access: Access, facts: Facts, action: Action) -> bool:
    """The rules of the shipped set, said once more in the plainest way."""
    principal, package = access.principal, access.resource.package
    enough = {Scope.DISCOVER, Scope.READ} if action is Action.DISCOVER else {Scope(action)}
    if principal.kind is KeyKind.ADMIN or not enough & principal.scopes:
        return False
    gives = {Action.DISCOVER, Action.READ} if action is Action.DISCOVER else {action}

    def granted(names: list[tuple[str, Standing]]) -> bool:
        for grant in facts.grants:
            is_for_it = not grant.packages or package in grant.packages
            is_for_it = is_for_it or (package is None and action is Action.DISCOVER)
            if not grant.actions & gives or not is_for_it:
                continue
            for name, standing in names:
                if any(matches(pattern, name) for pattern in grant.models):
                    return True
                if standing.groups & set(grant.groups):
                    return True
        return False

    def stands(standing: Standing) -> bool:
        return standing.owner == principal.tenant or standing.visibility is Visibility.PUBLIC

    model = (facts.model, facts.model_standing)
    if not (stands(facts.model_standing) or granted([model])):
        return False
    if facts.requested == facts.model:
        return True
    own = facts.requested_standing
    counted = facts.model_standing if own.owner is None else own
    return stands(counted) or granted([model, (facts.requested, own)])


@settings(max_examples=examples(400), deadline=None)
@given(questions())
def test_decide_agrees_with_the_reference(question):
    access, facts = question
    verdict = RULEBOOK.decide(access, facts)
    assert isinstance(verdict, Allowed) == permitted(access, facts, access.action)
    if isinstance(verdict, Denied):
        may_discover = access.action is not Action.DISCOVER and permitted(access, facts, Action.DISCOVER)
        assert verdict.may_discover == may_discover
        lacks_scope = Scope(access.action) not in access.principal.scopes
        expected = Reason.MISSING_SCOPE if lacks_scope else Reason.MISSING_ACTION
        assert verdict.reason is (expected if may_discover else Reason.NOT_PERMITTED)


@settings(max_examples=examples(100), deadline=None)
@given(questions(), GRANTS)
def test_another_grant_never_takes_anything_away(question, more):
    access, facts = question
    if isinstance(RULEBOOK.decide(access, facts), Allowed):
        richer = replace(facts, grants=(*facts.grants, *more))
        assert isinstance(RULEBOOK.decide(access, richer), Allowed)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(questions(), max_size=6))
def test_deciding_many_at_once_changes_nothing(asked):
    accesses, facts = [access for access, _ in asked], [about for _, about in asked]
    alone = [RULEBOOK.decide(access, about) for access, about in asked]
    assert RULEBOOK.decide_many(accesses, facts) == alone


BODIES = [
    "permit (principal, action, resource);",
    'permit (principal is ApiKey, action == Action::"discover", resource);',
    "permit (principal is ApiKey, action, resource) when { resource.isPublic };",
    'permit (principal is ApiKey, action == Action::"read", resource in ModelGroup::"pattern:a/*");',
    'forbid (principal, action == Action::"discover", resource);',
    "forbid (principal is Admin, action, resource);",
    'forbid (principal, action, resource in ModelGroup::"group:g");',
    "forbid (principal, action, resource) unless { resource has owner };",
    'permit (principal, action == Action::"infer", resource) when { 9223372036854775807 + 1 > 0 };',
    'forbid (principal, action == Action::"infer", resource) when { 9223372036854775807 + 1 > 0 };',
]
SETS = st.lists(st.sampled_from(BODIES), max_size=6)


def outcome(verdict):
    return verdict.reason if isinstance(verdict, Denied) else None


def set_of(texts):
    """Each rule in a file of its own, by a name that stays when others go."""
    policies = tuple(
        (f"{name}.cedar", f'@id("{name}") // a comment;\n{text}') for name, text in texts.items()
    )
    return replace(SHIPPED, policies=policies, digest=digest_of(SHIPPED.schema, policies))


@given(question=questions(), bodies=SETS)
def test_a_rule_is_relied_on_exactly_if_the_outcome_is_another_without_it(question, bodies):
    access, facts = question
    rulebook = Rulebook()
    texts = {f"r{number}": body for number, body in enumerate(bodies)}
    facts = replace(facts, policy=set_of(texts))
    weighed = rulebook.weigh(access, facts)
    verdict = rulebook.decide(access, facts)
    assert weighed is None or weighed.verdict == verdict
    if weighed is None or outcome(verdict) is Reason.POLICY_ERROR:
        assert weighed is None or not rules_relied_on(weighed, rulebook)
        return
    changing = set()
    for name in texts:
        without = replace(
            facts, policy=set_of({other: text for other, text in texts.items() if other != name})
        )
        if outcome(rulebook.decide(access, without)) != outcome(verdict):
            changing.add(name)
    assert {rule.name for rule in rules_relied_on(weighed, rulebook)} == changing
