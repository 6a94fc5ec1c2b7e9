"""Roles: what an administering key is for, and what it may hand out.

What a role may do is said by the rules (`policies/roles.cedar`); the actions are in `access.py`. What it may
give to others is here, as a table: a rule decides about one request, while this is about the key that comes
of it, which lasts. Nobody hands out more than the table says, whatever the rules let it do.

    owner           everything, as the keys that administered before there were roles
    operator        tenants, their keys, grants and models; no owners, no operators, no rules
    auditor         reads everything and changes nothing
    tenant-admin    the keys and grants of its own tenant, on the tenants' own routes; never the admin API

A key of a tenant without a role administers nothing.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network

import msgspec

from gateway.model.facts import KeyKind, Role, Scope

Network = IPv4Network | IPv6Network
DAY_SECONDS = 86_400.0

CONTENT_SCOPES = frozenset({Scope.DISCOVER, Scope.READ, Scope.INFER})
ADMINISTRATIVE_SCOPES = frozenset(Scope) - CONTENT_SCOPES


class Whose(StrEnum):
    """Whose keys a role hands out."""

    NOBODY = "nobody"
    OWN_TENANT = "own-tenant"
    TENANTS = "tenants"
    EVERYBODY = "everybody"  # tenants and the operators of the gateway


class HandsOut(msgspec.Struct, frozen=True, kw_only=True):
    """What a role may hand out. `longest_seconds` None: keys without an end, too."""

    whose: Whose
    scopes: frozenset[Scope]
    roles: frozenset[Role]
    longest_seconds: float | None


HANDS_OUT: dict[Role, HandsOut] = {
    Role.OWNER: HandsOut(
        whose=Whose.EVERYBODY, scopes=frozenset(Scope), roles=frozenset(Role), longest_seconds=None
    ),
    Role.OPERATOR: HandsOut(
        whose=Whose.EVERYBODY,
        scopes=CONTENT_SCOPES | {Scope.AUDIT_READ, Scope.KEYS_MANAGE},
        roles=frozenset({Role.AUDITOR, Role.TENANT_ADMIN}),
        longest_seconds=366 * DAY_SECONDS,
    ),
    Role.AUDITOR: HandsOut(whose=Whose.NOBODY, scopes=frozenset(), roles=frozenset(), longest_seconds=0.0),
    Role.TENANT_ADMIN: HandsOut(
        whose=Whose.OWN_TENANT,
        scopes=CONTENT_SCOPES | {Scope.AUDIT_READ},
        roles=frozenset(),
        longest_seconds=366 * DAY_SECONDS,
    ),
}

ROLE_SCOPES: dict[Role, frozenset[Scope]] = {
    Role.OWNER: ADMINISTRATIVE_SCOPES,
    Role.OPERATOR: ADMINISTRATIVE_SCOPES,
    Role.AUDITOR: frozenset({Scope.AUDIT_READ}),
    Role.TENANT_ADMIN: frozenset({Scope.AUDIT_READ, Scope.KEYS_MANAGE}),
}
"""The scopes that a key of a role may have: whoever administers reads no content."""

DEFAULT_ROLE_SCOPES: dict[Role, frozenset[Scope]] = {
    **ROLE_SCOPES,
    Role.OWNER: frozenset({Scope.AUDIT_READ, Scope.KEYS_MANAGE}),
    Role.OPERATOR: frozenset({Scope.AUDIT_READ, Scope.KEYS_MANAGE}),
}

KIND_OF_ROLE: dict[Role, KeyKind] = {
    Role.OWNER: KeyKind.ADMIN,
    Role.OPERATOR: KeyKind.ADMIN,
    Role.AUDITOR: KeyKind.ADMIN,
    Role.TENANT_ADMIN: KeyKind.TENANT,
}


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """The rights of a key that is to be handed out. `seconds` is how long it lives; None: without an end."""

    tenant: str | None
    role: Role | None  # None: a tenant's key that administers nothing
    scopes: frozenset[Scope]
    seconds: float | None
    networks: tuple[str, ...] = ()  # none: from anywhere


class Giver(msgspec.Struct, frozen=True, kw_only=True):
    """Who hands it out: `scopes` are those of the key, or fewer where it came with a narrowed token."""

    tenant: str | None
    role: Role | None
    scopes: frozenset[Scope]
    is_token: bool
    networks: tuple[str, ...] = ()  # that its key is bound to; none: to none


def why_not_handed(giver: Giver, handed: Handed) -> tuple[str, str] | None:
    """Why this may not be handed out: the field that is too much, and a sentence; None where it may.

    A scope that administers is handed out only by who has it: a narrowed token gives no more than it has. A
    token gives no role at all: it ends within minutes, and what it made would not. A key that is bound to
    networks hands out none that may be used from elsewhere.
    """
    limits = None if giver.role is None else HANDS_OUT[giver.role]
    if limits is None or limits.whose is Whose.NOBODY:
        return "", "your role hands out nothing"
    if not may_be_of(giver, handed.tenant):
        return "tenant", "your role hands out no keys of these"
    if handed.role is not None and (giver.is_token or handed.role not in limits.roles):
        what = "an access token" if giver.is_token else "your role"
        return "role", f"{what} does not hand out the role {handed.role}"
    beyond = handed.scopes - limits.scopes | (handed.scopes & ADMINISTRATIVE_SCOPES) - giver.scopes
    if beyond:
        return "scopes", f"your key does not hand out {' '.join(sorted(beyond))}"
    return _why_too_wide(giver, handed, limits.longest_seconds)


def _why_too_wide(giver: Giver, handed: Handed, longest: float | None) -> tuple[str, str] | None:
    if longest is not None and (handed.seconds is None or not handed.seconds <= longest):
        return "expires_at", f"your role hands out keys that end within {longest / DAY_SECONDS:.0f} days"
    if not is_within(handed.networks, giver.networks):
        return "networks", "your key is bound to networks, and hands out keys that are bound to some of these"
    return None


def is_within(inner: tuple[str, ...], outer: tuple[str, ...]) -> bool:
    """Whether whoever is in one of the inner networks is in one of the outer ones. No network: anywhere.

    Who has stolen a key that is of use in one network only must not make itself one that is of use anywhere.
    """
    if not outer:
        return True
    if not inner:
        return False
    within = [ip_network(one) for one in outer]
    return all(any(_is_part(ip_network(one), wide) for wide in within) for one in inner)


def _is_part(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def may_be_of(giver: Giver, tenant: str | None) -> bool:
    """Whether this role hands out keys of this tenant (None: of the gateway's operators)."""
    limits = None if giver.role is None else HANDS_OUT[giver.role]
    match None if limits is None else limits.whose:
        case Whose.EVERYBODY:
            return True
        case Whose.TENANTS:
            return tenant is not None
        case Whose.OWN_TENANT:
            return tenant is not None and tenant == giver.tenant
        case _:
            return False


def may_end(giver: Giver, tenant: str | None, role: Role | None) -> bool:
    """Whether this role may take a key away: that of a tenant in its care, or a role that it hands out."""
    if giver.role is None or not may_be_of(giver, tenant):
        return False
    return tenant is not None or role in HANDS_OUT[giver.role].roles
