"""An access and its facts in Cedar's terms: who, what, and the few entities they stand on.

Entities are built per question and hold only what bears on it: the caller, the model or package,
and for an alias both names. Ids are passed as dictionaries, never as Cedar text, because they hold
arbitrary characters; none is joined from parts (`grant_index.py`), so no name can pose as another's.

Not here: what Cedar makes of them, and any judgement. Names were checked where they entered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.decision.grant_index import GrantSlice, group_id, pair_id, pattern_id
from gateway.model.access import Action, Principal, ResourceKind
from gateway.model.facts import KeyKind, Scope, Standing, Visibility
from gateway.model.names import GroupName, KeyId, ModelId, PackageId, TenantId, ancestors

if TYPE_CHECKING:
    from gateway.model.access import Access
    from gateway.model.facts import Facts

Uid = tuple[str, str]
"""An entity's type and id."""

Entity = dict[str, Any]
"""An entity in Cedar's JSON form."""

CATALOGUE: Uid = ("Catalogue", "models")
_CATALOGUE_ENTITY: Entity = {"uid": {"type": "Catalogue", "id": "models"}, "attrs": {}, "parents": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What Cedar is asked about one access: every action on every resource, all must be permitted.

    The first action is the one asked for. `discover` is always asked along with it, whatever comes
    out: a refusal needs it for its reason, and both kinds of refusal must take the same work (I3).
    `covers` are the ModelGroups of the canonical model, most specific first, then of the alias.
    """

    principal: Uid
    actions: tuple[str, ...]
    resources: tuple[Uid, ...]
    entities: dict[Uid, Entity]
    covers: tuple[str, ...] = ()
    package: PackageId | None = None


def principal_uid(principal: Principal) -> Uid:
    """A caller by the id of its key; what kind of key it is makes its type."""
    return ("Admin" if principal.kind is KeyKind.ADMIN else "ApiKey", principal.key_id)


def principal_entity(principal: Principal, grants: GrantSlice) -> Entity:
    """A caller with its scopes and, for a tenant's key, the grants that bear on the question."""
    kind, key_id = principal_uid(principal)
    attributes: dict[str, Any] = {"scopes": sorted(principal.scopes)}
    parents: list[dict[str, str]] = []
    if principal.kind is KeyKind.TENANT:
        if principal.tenant is None:
            raise TypeError("a tenant key without a tenant cannot be authenticated, nor asked about")
        parents = [_uid("Tenant", principal.tenant)]
        attributes |= {
            "discovers": _references("ModelGroup", grants.discovers),
            "reads": _references("ModelGroup", grants.reads),
            "infers": _references("ModelGroup", grants.infers),
            "discoversPackages": _references("PackageGroup", grants.discovers_packages),
            "readsPackages": _references("PackageGroup", grants.reads_packages),
            "infersPackages": _references("PackageGroup", grants.infers_packages),
            "glimpses": _references("ModelGroup", grants.glimpses),
        }
    return {"uid": _uid(kind, key_id), "attrs": attributes, "parents": parents}


def question_about_itself(access: Access) -> Question:
    """Whether the caller may do this with itself."""
    caller = principal_uid(access.principal)
    return Question(principal=caller, actions=(access.action,), resources=(caller,), entities={})


def question_about_catalogue(access: Access) -> Question:
    """Whether the caller may see the list of models at all; what stands in it is asked model by model."""
    return Question(
        principal=principal_uid(access.principal),
        actions=("list",),
        resources=(CATALOGUE,),
        entities={CATALOGUE: _CATALOGUE_ENTITY},
    )


def question_about_content(access: Access, facts: Facts, canonical: ModelId, standing: Standing) -> Question:
    """Whether the caller may do this with a model or package, by this name and by the model's own.

    An alias has the canonical model among its ancestors, so that whatever permits the model permits
    the alias, while a rule that forbids the alias by name is honoured. Where no rule says who owns
    the alias, it stands as the model does.
    """
    package = None if access.resource.kind is ResourceKind.MODEL else access.resource.package
    covers = _covers(canonical, standing)
    resource, entities = _content(canonical, standing, covers, package, stands_for=None)
    resources = [resource]
    alias, of_alias = facts.requested, facts.requested_standing
    if alias is not None and alias != canonical and of_alias is not None:
        if of_alias.owner is None:
            of_alias = Standing(owner=standing.owner, visibility=standing.visibility, groups=of_alias.groups)
        covers_alias = _covers(alias, of_alias)
        resource, more = _content(alias, of_alias, covers_alias, package, stands_for=canonical)
        resources.append(resource)
        entities |= more
        covers = (*covers, *covers_alias)
    actions = (access.action,) if access.action is Action.DISCOVER else (access.action, Action.DISCOVER)
    return Question(
        principal=principal_uid(access.principal),
        actions=tuple(actions),
        resources=tuple(resources),
        entities=entities,
        covers=covers,
        package=package,
    )


def model_covers(facts: Facts) -> tuple[str, ...]:
    """The ModelGroups that the canonical model lies in, most specific pattern first, then its groups."""
    if facts.model is None or facts.model_standing is None:
        return ()
    return _covers(facts.model, facts.model_standing)


def request_of(question: Question, action: str, resource: Uid) -> dict[str, Any]:
    """One request in Cedar's form."""
    return {
        "principal": _uid(*question.principal),
        "action": _uid("Action", action),
        "resource": _uid(*resource),
    }


def _content(
    model: ModelId,
    standing: Standing,
    covers: tuple[str, ...],
    package: PackageId | None,
    *,
    stands_for: ModelId | None,
) -> tuple[Uid, dict[Uid, Entity]]:
    """A model, or the package in it that is asked about, as an entity."""
    attributes: dict[str, Any] = {"isPublic": standing.visibility is Visibility.PUBLIC}
    if standing.owner is not None:
        attributes["owner"] = {"__entity": _uid("Tenant", standing.owner)}
    parents = [_uid("ModelGroup", cover) for cover in covers]
    uid: Uid = ("Model", model)
    if package is not None:
        # The model itself is named and not described: nothing in the schema leads from a package to
        # its model's attributes, and every entity costs about 10 µs.
        uid = ("Package", pair_id(model, package))
        parents.append(_uid("Model", model))
        parents += [_uid("PackageGroup", pair_id(cover, package)) for cover in covers]
    if stands_for is not None:
        kind, name = uid[0], stands_for if package is None else pair_id(stands_for, package)
        parents.append(_uid(kind, name))
    return uid, {uid: {"uid": _uid(*uid), "attrs": attributes, "parents": parents}}


def _covers(model: ModelId, standing: Standing) -> tuple[str, ...]:
    """The ModelGroups that a model lies in."""
    return (*map(pattern_id, ancestors(model)), *map(group_id, sorted(standing.groups)))


def _uid(kind: str, entity_id: str) -> dict[str, str]:
    return {"type": kind, "id": entity_id}


def _references(kind: str, ids: frozenset[str]) -> list[dict[str, dict[str, str]]]:
    """A set of entities as an attribute's value; sorted, so that the same facts make the same bytes."""
    return [{"__entity": _uid(kind, entity_id)} for entity_id in sorted(ids)]


def sample_entities() -> list[Entity]:
    """One of every entity that a request can bring, with every attribute, for the schema's check."""
    given = frozenset({"pattern:a/*"})
    pairs = frozenset({pair_id("pattern:a/*", PackageId("p"))})
    grants = GrantSlice(
        discovers=given,
        reads=given,
        infers=given,
        discovers_packages=pairs,
        reads_packages=pairs,
        infers_packages=pairs,
        glimpses=given,
    )
    key, admin = (
        Principal(
            kind=kind,
            key_id=KeyId(f"key_{kind}"),
            key_name="",
            tenant=TenantId("a") if kind is KeyKind.TENANT else None,
            scopes=frozenset(Scope),
            expires_at=None,
        )
        for kind in (KeyKind.TENANT, KeyKind.ADMIN)
    )
    standing = Standing(owner=TenantId("a"), visibility=Visibility.PUBLIC, groups=frozenset({GroupName("g")}))
    entities = [principal_entity(key, grants), principal_entity(admin, grants), _CATALOGUE_ENTITY]
    for package in (None, PackageId("p")):
        for name, stands_for in ((ModelId("a/b"), None), (ModelId("a/alias"), ModelId("a/b"))):
            _, content = _content(name, standing, _covers(name, standing), package, stands_for=stands_for)
            entities += content.values()
    return entities
