"""Turn an access and its facts into the Cedar query to ask, or into a denial where facts are missing.

Facts that are missing or did not parse deny here, before any rule is evaluated (I1). Facts about something
else than the access are a defect of the caller, and raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.decision.entities import (
    ADMINISTRATION,
    ADMINISTRATION_ENTITY,
    CATALOGUE,
    CATALOGUE_ENTITY,
    cedar_uid,
    content_entity,
    covers_of,
    principal_uid,
    tenant_entity,
)
from gateway.model.access import ADMINISTRATIVE, ALLOWABLE, Action, ResourceKind
from gateway.model.errors import Reason
from gateway.model.facts import Standing
from gateway.model.verdicts import Denied

if TYPE_CHECKING:
    from gateway.decision.entities import Entity, Uid
    from gateway.model.access import Access
    from gateway.model.facts import Facts
    from gateway.model.names import ModelId, PackageId


ABOUT_ITSELF = frozenset({Action.IDENTIFY, Action.EXCHANGE, Action.INTROSPECT, Action.ASK, Action.AUDIT_READ})
"""What a caller does with its own credential, and with no model. What it asks about is decided apart."""

ABOUT_TENANT = ADMINISTRATIVE.union(ALLOWABLE)
ABOUT_CONTENT = frozenset({Action.DISCOVER, Action.READ, Action.INFER})

CONTENT_KINDS = frozenset({ResourceKind.MODEL, ResourceKind.PACKAGE, ResourceKind.FILE})


class CedarQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The Cedar query for one access: every action on every resource; all must be permitted.

    The first action is the requested one. `discover` is always asked along with it, whatever the answer:
    a refusal needs it for its reason, and both kinds of refusal must take the same work (I3).
    `covers` are the ModelGroups of the canonical model, most specific first, then those of the alias.
    """

    principal: Uid
    actions: tuple[str, ...]
    resources: tuple[Uid, ...]
    entities: dict[Uid, Entity]
    covers: tuple[str, ...] = ()
    package: PackageId | None = None
    names_role: bool = False  # whether the caller's role is part of it


def question_of(access: Access, facts: Facts) -> CedarQuery | Denied:
    """The query for an access; a denial where facts are missing or the action does not apply."""
    if access.resource.kind is ResourceKind.BLOB:
        raise TypeError("a blob is no resource of its own: ask about a file that links it")
    if facts.unreadable:
        return denied(access, facts, Reason.UNREADABLE_FACT)
    return _question(access, facts)


def _question(access: Access, facts: Facts) -> CedarQuery | Denied:
    if access.resource.kind not in CONTENT_KINDS:
        return _question_without_model(access) or denied(
            access, facts, Reason.MISSING_ACTION, may_discover=True
        )
    if access.action not in ABOUT_CONTENT:
        return denied(access, facts, Reason.NOT_PERMITTED)
    return _content_question(access, facts)


def _question_without_model(access: Access) -> CedarQuery | None:
    """The query about something else than content; None where the action is not one on such a thing."""
    kind, action = access.resource.kind, access.action
    match kind:
        case ResourceKind.SELF if action in ABOUT_ITSELF:
            return _about_itself(access)
        case ResourceKind.CATALOGUE if action is Action.DISCOVER:
            return _about_catalogue(access)
        case ResourceKind.TENANT if action in ABOUT_TENANT and access.principal.tenant is not None:
            return _about_tenant(access)
        case ResourceKind.ADMINISTRATION if action in ADMINISTRATIVE:
            return _about_administration(access)
        case _:
            return None


def _content_question(access: Access, facts: Facts) -> CedarQuery | Denied:
    """As `question_of`, for models, packages and files. Raises for facts about something else."""
    resource = access.resource
    if resource.model is None or resource.model not in {facts.model, facts.requested}:
        raise ValueError("the facts are about another model than the access")
    if (resource.kind is not ResourceKind.MODEL) != (resource.package is not None):
        raise ValueError("a package is named exactly where a package or file is asked about")
    is_alias = facts.requested not in {None, facts.model}
    if facts.model is None or facts.model_standing is None or (is_alias and facts.requested_standing is None):
        return denied(access, facts, Reason.UNREADABLE_FACT)
    return _about_content(access, facts, facts.model, facts.model_standing)


def _about_itself(access: Access) -> CedarQuery:
    """Whether the caller may identify itself. Rules know no other action that a caller applies to itself.

    Whoever may identify itself may have a token that stands for it. To ask about tokens, or about access,
    takes a scope too.
    """
    caller = principal_uid(access.principal)
    return CedarQuery(principal=caller, actions=(Action.IDENTIFY,), resources=(caller,), entities={})


def _about_catalogue(access: Access) -> CedarQuery:
    """Whether the caller may list models at all; each model in the list is decided by itself."""
    return CedarQuery(
        principal=principal_uid(access.principal),
        actions=("list",),
        resources=(CATALOGUE,),
        entities={CATALOGUE: CATALOGUE_ENTITY},
    )


def _about_administration(access: Access) -> CedarQuery:
    """Whether the caller may administer the gateway in this way, whatever it is about."""
    return CedarQuery(
        principal=principal_uid(access.principal),
        actions=(access.action,),
        resources=(ADMINISTRATION,),
        entities={ADMINISTRATION: ADMINISTRATION_ENTITY},
        names_role=True,
    )


def _about_tenant(access: Access) -> CedarQuery:
    """Whether the caller's workflows may do this, or the caller may administer its tenant in this way."""
    tenant, entity = tenant_entity(access.principal)
    return CedarQuery(
        principal=principal_uid(access.principal),
        actions=(access.action,),
        resources=(tenant,),
        entities={tenant: entity},
        names_role=access.action in ADMINISTRATIVE,
    )


def _about_content(access: Access, facts: Facts, canonical: ModelId, standing: Standing) -> CedarQuery:
    """Whether the caller may do this with a model or package, by the requested name and the canonical one.

    An alias has the canonical model among its ancestors, so that whatever permits the model permits
    the alias, while a rule that forbids the alias by name is honoured. An alias whose owner no rule names
    has the owner and visibility of the model.
    """
    package = None if access.resource.kind is ResourceKind.MODEL else access.resource.package
    covers = covers_of(canonical, standing)
    resource, entities = content_entity(canonical, standing, covers, package, stands_for=None)
    resources = [resource]
    alias, of_alias = facts.requested, facts.requested_standing
    if alias is not None and alias != canonical and of_alias is not None:
        if of_alias.owner is None:
            of_alias = Standing(owner=standing.owner, visibility=standing.visibility, groups=of_alias.groups)
        covers_alias = covers_of(alias, of_alias)
        resource, more = content_entity(alias, of_alias, covers_alias, package, stands_for=canonical)
        resources.append(resource)
        entities |= more
        covers = (*covers, *covers_alias)
    actions = (access.action,) if access.action is Action.DISCOVER else (access.action, Action.DISCOVER)
    return CedarQuery(
        principal=principal_uid(access.principal),
        actions=tuple(actions),
        resources=tuple(resources),
        entities=entities,
        covers=covers,
        package=package,
    )


def request_of(question: CedarQuery, action: str, resource: Uid) -> dict[str, Any]:
    """One request of the query in Cedar's form."""
    return {
        "principal": cedar_uid(*question.principal),
        "action": cedar_uid("Action", action),
        "resource": cedar_uid(*resource),
    }


def denied(
    access: Access,
    facts: Facts,
    reason: Reason,
    *,
    policies: tuple[str, ...] = (),
    may_discover: bool = False,
    grant: str | None = None,
) -> Denied:
    """A denial of this access, computed from these facts."""
    return Denied(
        access=access,
        reason=reason,
        model=facts.model,
        policies=policies,
        may_discover=may_discover,
        stamp=facts.stamp,
        grant=grant,
    )
