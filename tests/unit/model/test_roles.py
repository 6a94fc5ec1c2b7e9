"""What each role hands out, pair by pair: worked out by hand here, and by the table there."""

from __future__ import annotations

from itertools import product

import pytest

from gateway.model.facts import Role, Scope
from gateway.model.roles import DAY_SECONDS, HANDS_OUT, ROLE_SCOPES, Giver, Handed, may_end, why_not_handed

YEAR = 366 * DAY_SECONDS
ACME, GLOBEX, NOBODY = "acme", "globex", None
ADMINISTERS = {"audit:read", "keys:manage", "tokens:introspect", "decisions:ask"}

MAY_GIVE = {
    "owner": {None, "owner", "operator", "auditor", "tenant-admin"},
    "operator": {None, "auditor", "tenant-admin"},
    "auditor": set(),
    "tenant-admin": {None},
    None: set(),
}
MAY_SCOPE = {
    "owner": {"discover", "read", "infer", *ADMINISTERS},
    "operator": {"discover", "read", "infer", "audit:read", "keys:manage"},
    "auditor": set(),
    "tenant-admin": {"discover", "read", "infer", "audit:read"},
    None: set(),
}


def expected(giver, handed):
    """The same question, answered without the code."""
    role = giver.role and giver.role.value
    given_role = handed.role and handed.role.value
    if role in {None, "auditor"}:
        return False
    if role == "tenant-admin" and handed.tenant != giver.tenant:
        return False
    if given_role not in MAY_GIVE[role] or (given_role is not None and giver.is_token):
        return False
    held = {scope.value for scope in giver.scopes}
    for scope in handed.scopes:
        if scope.value not in MAY_SCOPE[role] or (scope.value in ADMINISTERS and scope.value not in held):
            return False
    return role == "owner" or (handed.seconds is not None and handed.seconds <= YEAR)


GIVERS = [
    Giver(
        tenant=ACME if role in {Role.TENANT_ADMIN, None} else None,
        role=role,
        scopes=scopes,
        is_token=is_token,
    )
    for role, is_token in product((*Role, None), (False, True))
    for scopes in (
        ROLE_SCOPES.get(role, frozenset({Scope.READ})),
        frozenset({Scope.AUDIT_READ}),
        frozenset({Scope.KEYS_MANAGE}),
        frozenset(),
    )
]
HANDED = [
    Handed(tenant=tenant, role=role, scopes=scopes, seconds=seconds)
    for tenant, role, scopes, seconds in product(
        (ACME, GLOBEX, NOBODY),
        (*Role, None),
        (*(frozenset({one}) for one in Scope), frozenset(Scope), frozenset({Scope.READ, Scope.AUDIT_READ})),
        (None, 1.0, YEAR, YEAR + 1),
    )
]


@pytest.mark.parametrize("giver", GIVERS, ids=lambda one: f"{one.role}-{sorted(one.scopes)}-{one.is_token}")
def test_every_pair_is_handed_out_exactly_where_the_table_says(giver):
    for handed in HANDED:
        assert (why_not_handed(giver, handed) is None) is expected(giver, handed), handed


def test_nobody_hands_out_more_than_it_may_itself_but_content():
    for role, limits in HANDS_OUT.items():
        for given in limits.roles:
            assert ROLE_SCOPES[given] <= ROLE_SCOPES[role] | ({Scope.TOKENS_INTROSPECT} & ROLE_SCOPES[role])


def test_a_life_that_is_no_number_is_too_long():
    giver = Giver(tenant=None, role=Role.OPERATOR, scopes=ROLE_SCOPES[Role.OPERATOR], is_token=False)
    handed = Handed(tenant=ACME, role=None, scopes=frozenset({Scope.READ}), seconds=float("nan"))
    assert why_not_handed(giver, handed) is not None


@pytest.mark.parametrize(
    ("role", "tenant", "of", "ends"),
    [
        *(
            (Role.OWNER, tenant, of, True)
            for tenant, of in ((ACME, None), (None, Role.OWNER), (None, Role.AUDITOR))
        ),
        *((Role.OPERATOR, ACME, of, True) for of in (None, Role.TENANT_ADMIN)),
        (Role.OPERATOR, None, Role.AUDITOR, True),
        (Role.OPERATOR, None, Role.OPERATOR, False),
        (Role.OPERATOR, None, Role.OWNER, False),
        (Role.AUDITOR, ACME, None, False),
        (Role.AUDITOR, None, Role.AUDITOR, False),
        *((Role.TENANT_ADMIN, ACME, of, True) for of in (None, Role.TENANT_ADMIN)),
        (Role.TENANT_ADMIN, GLOBEX, None, False),
        (Role.TENANT_ADMIN, None, Role.OWNER, False),
        (None, ACME, None, False),
    ],
)
def test_who_ends_whose_keys(role, tenant, of, ends):
    giver = Giver(
        tenant=ACME if role in {Role.TENANT_ADMIN, None} else None,
        role=role,
        scopes=frozenset(),
        is_token=False,
    )
    assert may_end(giver, tenant, of) is ends


def test_every_role_has_limits():
    assert HANDS_OUT.keys() == ROLE_SCOPES.keys() == set(Role)
