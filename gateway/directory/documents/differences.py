"""Compares tenant documents with the facts in force, one kind of fact after another.

A fact of another source is never changed: an equal value is left as it is, a different one is a conflict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from gateway.directory.documents.changes import Order, PlannedChange, Removed
from gateway.model.facts import FOLDER_SOURCE, Alias, Grants, ModelRule, Tenant, Visibility

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.directory.documents.changes import CurrentFacts
    from gateway.directory.documents.parse import TenantDocument
    from gateway.model.facts import Grant

Fact = TypeVar("Fact", Tenant, ModelRule, Alias)


def tenant_changes(
    documents: tuple[TenantDocument, ...], current: CurrentFacts, now: float, conflicts: list[str]
) -> Iterator[PlannedChange]:
    """Yield new and changed tenants, and those whose document was removed."""
    known = {tenant.tenant_id: tenant for tenant in current.tenants}
    for document in documents:
        old = known.pop(document.tenant_id, None)
        new = Tenant(
            tenant_id=document.tenant_id,
            name=document.name,
            is_suspended=document.is_suspended,
            created_at=old.created_at if old else now,
            degraded_seconds=document.degraded_seconds,
            source=document.source,
        )
        if _is_wanted(new, old, f"tenant {new.tenant_id}", document.where, conflicts):
            yield _put_tenant(new, old)
    holding = {
        record.tenant_id for record in current.grants if any(not _is_ours(grant) for grant in record.grants)
    }
    for old in known.values():
        if not _is_ours(old):
            continue
        # Keys and grants of other sources refer to the tenant, so its record stays and is suspended.
        if old.tenant_id not in current.tenants_with_keys | holding:
            line = f"- tenant {old.tenant_id}"
            yield PlannedChange(order=Order.DROP_TENANT, fact=Removed(Tenant, old.tenant_id), lines=(line,))
        elif not old.is_suspended:
            yield _put_tenant(replace(old, is_suspended=True), old)


def _put_tenant(new: Tenant, old: Tenant | None) -> PlannedChange:
    order = Order.SUSPEND if new.is_suspended else Order.ADMIT_TENANT
    was = f" (was {_tenant_text(old)})" if old else ""
    line = f"{'~' if old else '+'} tenant {new.tenant_id}: {_tenant_text(new)}{was}"
    return PlannedChange(order=order, fact=new, lines=(line,))


def rule_changes(
    documents: tuple[TenantDocument, ...], current: CurrentFacts, conflicts: list[str]
) -> Iterator[PlannedChange]:
    """Yield changes of the rules for patterns."""
    known = {rule.pattern: rule for rule in current.rules}
    for document in documents:
        for new in document.rules(document.tenant_id, document.source):
            old = known.pop(new.pattern, None)
            if _is_wanted(new, old, f"models {new.pattern}", document.where, conflicts):
                was = f" (was {_rule_text(old)})" if old else ""
                line = f"{'~' if old else '+'} models {new.pattern}: {_rule_text(new)}{was}"
                is_closing = new.visibility is Visibility.PRIVATE
                order = Order.CLOSE_MODELS if is_closing else Order.PUT_MODELS
                yield PlannedChange(order=order, fact=new, lines=(line,))
    for old in known.values():
        if _is_ours(old):
            is_closing = old.visibility is Visibility.PUBLIC
            order = Order.CLOSE_MODELS if is_closing else Order.FORGET_MODELS
            line = f"- models {old.pattern}: {_rule_text(old)}"
            yield PlannedChange(order=order, fact=Removed(ModelRule, old.pattern), lines=(line,))


def alias_changes(
    documents: tuple[TenantDocument, ...], current: CurrentFacts, conflicts: list[str]
) -> Iterator[PlannedChange]:
    """Yield new, changed and removed aliases. No alias may point to an alias of another source."""
    known = {alias.alias: alias for alias in current.aliases}
    foreign = {name: alias.canonical for name, alias in known.items() if not _is_ours(alias)}
    targets = set(foreign.values())
    for document in documents:
        for name, canonical in document.aliases.items():
            new = Alias(alias=name, canonical=canonical, source=document.source)
            old = known.pop(name, None)
            if canonical in foreign or name in targets:
                other = canonical if canonical in foreign else name
                conflicts.append(f"alias {name}: {document.where} makes a chain through {other}")
            elif _is_wanted(new, old, f"alias {name}", document.where, conflicts):
                was = f" (was {old.canonical})" if old else ""
                line = f"{'~' if old else '+'} alias {name}: {canonical}{was}"
                yield PlannedChange(order=Order.PUT_ALIAS, fact=new, lines=(line,))
    for old in known.values():
        if _is_ours(old):
            line = f"- alias {old.alias}: {old.canonical}"
            yield PlannedChange(order=Order.DROP_ALIAS, fact=Removed(Alias, old.alias), lines=(line,))


def grant_changes(documents: tuple[TenantDocument, ...], current: CurrentFacts) -> Iterator[PlannedChange]:
    """Yield changes of grants, by tenant. A record holds all sources' grants; only the folder's change.

    A record that both loses and gains grants is written twice, so that the loss is made as early as other
    losses.
    """
    wanted = {document.tenant_id: document.grants for document in documents}
    known = {record.tenant_id: record.grants for record in current.grants}
    for tenant_id in dict.fromkeys((*wanted, *known)):
        old, new = known.get(tenant_id, ()), wanted.get(tenant_id, ())
        lost = [grant for grant in old if _is_ours(grant) and grant not in new]
        gained = [grant for grant in new if grant not in old]
        kept = tuple(grant for grant in old if grant not in lost)
        if lost:
            yield PlannedChange(
                order=Order.LOSE_GRANTS,
                fact=Grants(tenant_id=tenant_id, grants=kept),
                lines=tuple(f"- grant {tenant_id}: {_grant_text(grant)}" for grant in lost),
            )
        if gained:
            yield PlannedChange(
                order=Order.GAIN_GRANTS,
                fact=Grants(tenant_id=tenant_id, grants=(*kept, *gained)),
                lines=tuple(f"+ grant {tenant_id}: {_grant_text(grant)}" for grant in gained),
            )


def _is_wanted(new: Fact, old: Fact | None, what: str, where: str, conflicts: list[str]) -> bool:
    """Whether to write `new`: not if it is already there, nor over another source's fact (a conflict)."""
    if old is None:
        return True
    if _is_ours(old):
        return replace(old, generation=0) != new
    if replace(old, generation=0, source=new.source) != new:
        conflicts.append(f"{what}: {where} differs from what {old.source!r} wrote")
    return False


def _is_ours(fact: Tenant | ModelRule | Alias | Grant) -> bool:
    """Whether the policy folder wrote it."""
    return fact.source.startswith(FOLDER_SOURCE)


def _tenant_text(tenant: Tenant) -> str:
    said = [tenant.name, "suspended" if tenant.is_suspended else ""]
    if tenant.degraded_seconds:
        said.append(f"last-known-good for {tenant.degraded_seconds:g} s")
    return ", ".join(filter(None, said))


def _rule_text(rule: ModelRule) -> str:
    said = [
        f"owner {rule.owner}" if rule.owner else "",
        rule.visibility or "",
        f"groups {' '.join(rule.groups)}" if rule.groups else "",
    ]
    return ", ".join(filter(None, said))


def _grant_text(grant: Grant) -> str:
    named = [*grant.models, *(f"group {group}" for group in grant.groups)]
    packages = f" packages {' '.join(grant.packages)}" if grant.packages else ""
    return f"{' '.join(sorted(grant.actions))} {' '.join(named)}{packages}"
