"""The tenants, models, aliases and grants of a case file, without any directory.

The vocabulary is that of tenant documents, so that a case reads like the policy it tests. A model's owner,
visibility and groups are computed from the case's own rules, by `standing_of` as in the running system.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- msgspec reads annotations
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.model.access import Access, Action, Principal, Resource, ResourceKind
from gateway.model.errors import BadNameError
from gateway.model.facts import Facts, Grant, KeyKind, ModelRule, PolicySet, Role, Scope
from gateway.model.names import (
    KeyId,
    TenantId,
    ancestors,
    parse_file_handle,
    parse_model_id,
    parse_package_id,
    parse_tenant_id,
)
from gateway.model.periods import NEVER, PeriodState
from gateway.model.stamps import Stamp
from gateway.model.standing import TenantModels, standing_of

if TYPE_CHECKING:
    from gateway.model.facts import Standing
    from gateway.model.names import ModelId, Pattern

Member = TypeVar("Member", bound=StrEnum)

NO_POLICY = PolicySet(schema="", policies=(), digest="")


class WorldTenant(TenantModels, frozen=True, kw_only=True):
    """A tenant: what is said of its models, and the grants it received."""

    grants: tuple[Grant, ...] = ()
    allows: tuple[str, ...] = ()  # what its workflows may do


class CaseQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The access of one case. Without a tenant the key is an admin key; without a model, `what` is asked."""

    action: str
    tenant: str | None = None
    scopes: tuple[str, ...] = ("discover", "read", "infer")
    key: str = "key_cases0000000"
    model: str | None = None
    package: str | None = None
    file: str | None = None
    what: str | None = None  # self, catalogue, tenant or administration
    role: str | None = None  # of an administering key; an admin key without one is an owner's
    at: datetime | None = None  # needed where a grant or a publication of the file begins or ends


class CaseWorld(msgspec.Struct, frozen=True, kw_only=True):
    """All tenants of one case file."""

    tenants: dict[TenantId, WorldTenant] = {}

    def put(self, question: CaseQuestion, policy_set: PolicySet = NO_POLICY) -> tuple[Access, Facts]:
        """The access and the facts of a question. Raises `BadNameError` for text that is not a name."""
        resource = _resource(question)
        requested = resource.model
        aliases = {alias: name for tenant in self.tenants.values() for alias, name in tenant.aliases.items()}
        model = None if requested is None else aliases.get(requested, requested)
        rules = self.rules()
        now = NEVER if question.at is None else question.at.timestamp()
        principal = _principal(question)
        asking = None if principal.tenant is None else self.tenants.get(principal.tenant)
        if asking is not None:
            principal = replace(principal, allows=asking.allows)
        facts = Facts(
            grants=_in_state(asking, PeriodState.IN_FORCE, now),
            ended=_in_state(asking, PeriodState.ENDED, now),
            ahead=_in_state(asking, PeriodState.NOT_YET, now),
            requested=requested,
            model=model,
            requested_standing=None if requested is None else standing_by(rules, requested, now),
            model_standing=None if model is None else standing_by(rules, model, now),
            policy=policy_set,
            stamp=Stamp(0, ()),
        )
        access = Access(principal=principal, action=_member(Action, question.action), resource=resource)
        return access, facts

    @property
    def has_times(self) -> bool:
        """Whether a grant or a publication begins or ends."""
        return any(
            one.has_times or any(grant.has_times for grant in one.grants) for one in self.tenants.values()
        )

    def rules(self) -> dict[Pattern, ModelRule]:
        """The model rules by pattern, combined from all tenants' tables."""
        rules: dict[Pattern, ModelRule] = {}
        for name, tenant in self.tenants.items():
            for rule in tenant.rules(name):
                before = rules.get(rule.pattern, ModelRule(pattern=rule.pattern))
                rules[rule.pattern] = ModelRule(
                    pattern=rule.pattern,
                    owner=rule.owner or before.owner,
                    visibility=rule.visibility or before.visibility,
                    groups=(*before.groups, *rule.groups),
                    not_before=rule.not_before or before.not_before,
                    expires_at=rule.expires_at or before.expires_at,
                )
        return rules


def standing_by(rules: dict[Pattern, ModelRule], model: ModelId, now: float = NEVER) -> Standing:
    """A model's owner, visibility and groups by these rules at a time."""
    return standing_of([rules[pattern] for pattern in ancestors(model) if pattern in rules], now)


def _in_state(tenant: WorldTenant | None, state: PeriodState, now: float) -> tuple[Grant, ...]:
    grants = () if tenant is None else tenant.grants
    return tuple(grant for grant in grants if grant.state_at(now) is state)


def _role(question: CaseQuestion) -> Role | None:
    if question.role is not None:
        return _member(Role, question.role)
    return Role.OWNER if question.tenant is None else None


def _principal(question: CaseQuestion) -> Principal:
    tenant = None if question.tenant is None else parse_tenant_id(question.tenant)
    return Principal(
        kind=KeyKind.ADMIN if tenant is None else KeyKind.TENANT,
        key_id=KeyId(question.key),
        key_name="",
        tenant=tenant,
        scopes=frozenset(_member(Scope, scope) for scope in question.scopes),
        role=_role(question),
        expires_at=None,
    )


def _resource(question: CaseQuestion) -> Resource:
    if question.model is None:
        kind = _member(ResourceKind, question.what or "")
        without = ResourceKind.SELF, ResourceKind.CATALOGUE, ResourceKind.TENANT, ResourceKind.ADMINISTRATION
        if kind not in without:
            expected = ", ".join(f'"{one}"' for one in without)
            raise BadNameError(f"{question.what!r} is asked about by its model; expected one of {expected}")
        return Resource(kind=kind)
    kind = ResourceKind.MODEL
    if question.package is not None:
        kind = ResourceKind.PACKAGE if question.file is None else ResourceKind.FILE
    return Resource(
        kind=kind,
        model=parse_model_id(question.model),
        package=None if question.package is None else parse_package_id(question.package),
        file=None if question.file is None else parse_file_handle(question.file),
    )


def _member(kind: type[Member], text: str) -> Member:
    try:
        return kind(text)
    except ValueError as error:
        raise BadNameError(f"{text!r} is none of {', '.join(kind)}") from error
