"""Convert an access and its facts to Cedar entities: the caller, and the model or package asked about.

Entities are built per query and contain only what is relevant to it: the caller, the model or package,
and for an alias both names. Ids are passed as dictionaries, never as Cedar text, because they contain
arbitrary characters. Compound ids are JSON (`grant_index.py`), so no name can imitate another.

Not here: evaluation, and checking names, which happens where they enter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.decision.grant_index import GrantSlice, group_id, pair_id, pattern_id
from gateway.model.access import Action, Principal
from gateway.model.facts import KeyKind, Role, Scope, Standing, Visibility
from gateway.model.names import GroupName, KeyId, ModelId, PackageId, TenantId, ancestors

if TYPE_CHECKING:
    from gateway.model.facts import Facts

Uid = tuple[str, str]
"""An entity's type and id."""

Entity = dict[str, Any]
"""An entity in Cedar's JSON form."""

CATALOGUE: Uid = ("Catalogue", "models")
ADMINISTRATION: Uid = ("Administration", "gateway")
ADMINISTRATION_ENTITY: Entity = {
    "uid": {"type": "Administration", "id": "gateway"},
    "attrs": {},
    "parents": [],
}
CATALOGUE_ENTITY: Entity = {"uid": {"type": "Catalogue", "id": "models"}, "attrs": {}, "parents": []}


def principal_uid(principal: Principal) -> Uid:
    """The entity id of a caller: its key id; the kind of key determines the type."""
    return ("Admin" if principal.kind is KeyKind.ADMIN else "ApiKey", principal.key_id)


def principal_entity(principal: Principal, grants: GrantSlice, *, with_role: bool = False) -> Entity:
    """A caller with its scopes and, for a tenant's key, the grants relevant to the query.

    Only queries about administration have the role: a schema from before there were roles knows none.
    """
    kind, key_id = principal_uid(principal)
    attributes: dict[str, Any] = {"scopes": sorted(principal.scopes)}
    if with_role and principal.role is not None:
        attributes["role"] = principal.role.value
    parents: list[dict[str, str]] = []
    if principal.kind is KeyKind.TENANT:
        if principal.tenant is None:
            raise TypeError("a tenant key without a tenant cannot be authenticated, nor asked about")
        parents = [cedar_uid("Tenant", principal.tenant)]
        attributes |= {
            "discovers": _references("ModelGroup", grants.discovers),
            "reads": _references("ModelGroup", grants.reads),
            "infers": _references("ModelGroup", grants.infers),
            "discoversPackages": _references("PackageGroup", grants.discovers_packages),
            "readsPackages": _references("PackageGroup", grants.reads_packages),
            "infersPackages": _references("PackageGroup", grants.infers_packages),
            "glimpses": _references("ModelGroup", grants.glimpses),
        }
    return {"uid": cedar_uid(kind, key_id), "attrs": attributes, "parents": parents}


def tenant_entity(principal: Principal) -> tuple[Uid, Entity]:
    """The caller's own tenant, with what its workflows may do. Only queries about the tenant have it."""
    if principal.tenant is None:
        raise TypeError("an admin key has no tenant to ask about")
    uid: Uid = ("Tenant", principal.tenant)
    return uid, {"uid": cedar_uid(*uid), "attrs": {"allows": sorted(principal.allows)}, "parents": []}


def model_covers(facts: Facts) -> tuple[str, ...]:
    """The ModelGroups that contain the canonical model, most specific pattern first, then its groups."""
    if facts.model is None or facts.model_standing is None:
        return ()
    return covers_of(facts.model, facts.model_standing)


def content_entity(
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
        attributes["owner"] = {"__entity": cedar_uid("Tenant", standing.owner)}
    parents = [cedar_uid("ModelGroup", cover) for cover in covers]
    uid: Uid = ("Model", model)
    if package is not None:
        # The model's id is given as a parent, but the model is not an entity of the query: nothing in the
        # schema refers to its attributes from a package, and every entity costs about 10 µs.
        uid = ("Package", pair_id(model, package))
        parents.append(cedar_uid("Model", model))
        parents += [cedar_uid("PackageGroup", pair_id(cover, package)) for cover in covers]
    if stands_for is not None:
        kind, name = uid[0], stands_for if package is None else pair_id(stands_for, package)
        parents.append(cedar_uid(kind, name))
    return uid, {uid: {"uid": cedar_uid(*uid), "attrs": attributes, "parents": parents}}


def covers_of(model: ModelId, standing: Standing) -> tuple[str, ...]:
    """The ModelGroups that contain a model."""
    return (*map(pattern_id, ancestors(model)), *map(group_id, sorted(standing.groups)))


def cedar_uid(kind: str, entity_id: str) -> dict[str, str]:
    """An entity id in Cedar's JSON form."""
    return {"type": kind, "id": entity_id}


def _references(kind: str, ids: frozenset[str]) -> list[dict[str, dict[str, str]]]:
    """A set of entities as an attribute's value; sorted, so that the same facts give the same bytes."""
    return [{"__entity": cedar_uid(kind, entity_id)} for entity_id in sorted(ids)]


def sample_entities() -> list[Entity]:
    """One of every entity that a query can contain, with every attribute, to check a schema against."""
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
            role=role,
            allows=(Action.CUSTOM_PYTHON,),
        )
        for kind, role in ((KeyKind.TENANT, Role.TENANT_ADMIN), (KeyKind.ADMIN, Role.OWNER))
    )
    standing = Standing(owner=TenantId("a"), visibility=Visibility.PUBLIC, groups=frozenset({GroupName("g")}))
    entities = [principal_entity(one, grants, with_role=True) for one in (key, admin)]
    entities += [CATALOGUE_ENTITY, ADMINISTRATION_ENTITY]
    entities.append(tenant_entity(key)[1])
    for package in (None, PackageId("p")):
        for name, stands_for in ((ModelId("a/b"), None), (ModelId("a/alias"), ModelId("a/b"))):
            _, content = content_entity(
                name, standing, covers_of(name, standing), package, stands_for=stands_for
            )
            entities += content.values()
    return entities
