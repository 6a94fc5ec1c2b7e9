"""Plans and applies the changes that make the facts in force match a folder of tenant documents.

Planning is pure, so `policy diff` shows exactly what `policy apply` does. A plan changes only facts that the
policy folder wrote. A fact of another source is never changed: an equal value is left as it is, a different
one is a conflict, and a plan with conflicts is not applied.

Changes that restrict access come before changes that allow it, so that a plan that is interrupted has allowed
nothing that its rest would have restricted. Planning again after applying finds no changes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.model.errors import Conflict
from gateway.model.facts import FOLDER_SOURCE, Alias, Grants, ModelRule, PolicySet, Tenant, Visibility
from gateway.model.issuers import Issuer
from gateway.model.names import ModelId, Pattern, TenantId
from gateway.model.periods import period_text
from gateway.model.tenant_records import TenantRecordId, new_record_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gateway.directory.documents.issuers import IssuerDocument
    from gateway.directory.documents.parse import TenantDocument
    from gateway.directory.edits.changes import Changes
    from gateway.model.facts import Grant
    from gateway.model.issuers import MappingRule
    from gateway.model.rule_changes import RuleSetChanges

Fact = TypeVar("Fact", Tenant, ModelRule, Alias)
PlannedFact = Tenant | ModelRule | Alias | Grants | PolicySet | Issuer

PENDING = TenantRecordId("")
"""In a plan, the id of the record of a tenant that does not exist yet."""


class CurrentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts in force that documents can define, of every source."""

    tenants: tuple[Tenant, ...] = ()
    rules: tuple[ModelRule, ...] = ()
    aliases: tuple[Alias, ...] = ()
    grants: tuple[Grants, ...] = ()
    policy: PolicySet | None = None
    tenants_with_keys: frozenset[TenantId] = frozenset()
    issuers: tuple[Issuer, ...] = ()


class Removed(msgspec.Struct, frozen=True):
    """A fact that is removed: its kind and name."""

    kind: type[Tenant | ModelRule | Alias | Issuer]
    name: str


class Order(IntEnum):
    """The order of changes: those that restrict access first, those that allow it last."""

    POLICY = 0
    SUSPEND = 1
    DROP_ISSUER = 2
    LOSE_GRANTS = 3
    DROP_ALIAS = 4
    CLOSE_MODELS = 5
    ADMIT_TENANT = 6
    PUT_MODELS = 7
    FORGET_MODELS = 8
    PUT_ALIAS = 9
    GAIN_GRANTS = 10
    PUT_ISSUER = 11
    DROP_TENANT = 12


class PlannedChange(msgspec.Struct, frozen=True, kw_only=True):
    """One record that changes: its new value or its removal, and a description in lines."""

    order: Order
    fact: PlannedFact | Removed
    lines: tuple[str, ...]


class DocumentPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Changes in the order in which they are made, and the conflicts that prevent them."""

    changes: tuple[PlannedChange, ...]
    conflicts: tuple[str, ...] = ()
    rules: RuleSetChanges | None = None  # how the rule set differs, where it is compared

    @property
    def is_empty(self) -> bool:
        """Whether there are neither changes nor conflicts."""
        return not self.changes and not self.conflicts

    @property
    def lines(self) -> tuple[str, ...]:
        """The plan for people: `+` adds, `~` changes, `-` removes."""
        return tuple(line for change in self.changes for line in change.lines)


def plan_changes(
    documents: Iterable[TenantDocument],
    current: CurrentFacts,
    *,
    now: float,
    policy: PolicySet | None = None,
    rules: RuleSetChanges | None = None,
    issuers: Iterable[IssuerDocument] = (),
) -> DocumentPlan:
    """Return the changes that make the facts match the documents. `now` is the creation time of new tenants.

    `policy` is the folder's rule set, already validated; None leaves the one in force unchanged. `rules`
    describes how it differs from that one.
    """
    read = tuple(documents)
    changes: list[PlannedChange] = []
    conflicts: list[str] = []
    if policy is not None and (current.policy is None or current.policy.digest != policy.digest):
        was = f" (was {current.policy.digest[:12]})" if current.policy else ""
        sign = "~" if current.policy else "+"
        line = f"{sign} policy: {policy.digest[:12]}, {len(policy.policies)} files{was}"
        lines = (line,) if rules is None else (f"{line}: {rules.summary}", *rules.lines)
        changes.append(PlannedChange(order=Order.POLICY, fact=policy, lines=lines))
    else:
        rules = None
    changes += tenant_changes(read, current, now, conflicts)
    changes += rule_changes(read, current, conflicts)
    changes += alias_changes(read, current, conflicts)
    changes += grant_changes(read, current)
    changes += issuer_changes(tuple(issuers), current)
    return DocumentPlan(
        changes=tuple(sorted(changes, key=lambda each: each.order)), conflicts=tuple(conflicts), rules=rules
    )


async def apply_plan(changes: Changes, plan: DocumentPlan) -> None:
    """Make a plan's changes in its order. Raises `Conflict` before the first one if there are conflicts.

    The record of a new tenant gets its id here: a plan is compared with the one that was shown.
    """
    if plan.conflicts:
        raise Conflict("\n".join(plan.conflicts))
    made = {
        change.fact.tenant_id: new_record_id()
        for change in plan.changes
        if isinstance(change.fact, Tenant) and change.fact.record_id == PENDING
    }
    for change in plan.changes:
        match change.fact:
            case Removed(kind, name) if kind is Tenant:
                await changes.delete_tenant(TenantId(name))
            case Removed(kind, name) if kind is ModelRule:
                await changes.delete_rule(Pattern(name))
            case Removed(kind, name) if kind is Issuer:
                await changes.delete_issuer(name)
            case Removed(_, name):
                await changes.delete_alias(ModelId(name))
            case fact:
                await changes.put(_with_record_id(fact, made))


def _with_record_id(fact: PlannedFact, made: Mapping[TenantId, TenantRecordId]) -> PlannedFact:
    """Return the fact with the id of a tenant's record that was made in this transaction."""
    match fact:
        case Tenant(record_id=record_id) if record_id == PENDING:
            return replace(fact, record_id=made[fact.tenant_id])
        case Grants(tenant_record=record_id) if record_id == PENDING:
            return replace(fact, tenant_record=made[fact.tenant_id])
        case ModelRule(owner_record=record_id, owner=owner) if record_id == PENDING and owner is not None:
            return replace(fact, owner_record=made[owner])
    return fact


def _record_id(current: CurrentFacts, tenant_id: TenantId) -> TenantRecordId | None:
    """Return the id of a tenant's record; `PENDING` for a tenant that is new."""
    known = next((one for one in current.tenants if one.tenant_id == tenant_id), None)
    return PENDING if known is None else known.record_id


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
            image_hosts=document.image_hosts,
            allows=document.allows,
            record_id=_record_id(current, document.tenant_id),
            removal=old.removal if old else None,
            source=document.source,
        )
        if old is not None and old.removal is not None:
            conflicts.append(
                f"tenant {old.tenant_id}: {document.where} describes it, and it is being removed or "
                "restored; take the document out of the folder, or restore the tenant"
            )
            continue
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
        record_id = _record_id(current, document.tenant_id)
        for new in document.rules(document.tenant_id, document.source, record_id):
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
    known = {
        record.tenant_id: record.grants
        for record in current.grants
        if record.tenant_record == _record_id(current, record.tenant_id)  # else another tenant of this name's
    }
    for tenant_id in dict.fromkeys((*wanted, *known)):
        record_id = _record_id(current, tenant_id)
        old, new = known.get(tenant_id, ()), wanted.get(tenant_id, ())
        lost = [grant for grant in old if _is_ours(grant) and grant not in new]
        gained = [grant for grant in new if grant not in old]
        kept = tuple(grant for grant in old if grant not in lost)
        if lost:
            yield PlannedChange(
                order=Order.LOSE_GRANTS,
                fact=Grants(tenant_id=tenant_id, tenant_record=record_id, grants=kept),
                lines=tuple(f"- grant {tenant_id}: {_grant_text(grant)}" for grant in lost),
            )
        if gained:
            yield PlannedChange(
                order=Order.GAIN_GRANTS,
                fact=Grants(tenant_id=tenant_id, tenant_record=record_id, grants=(*kept, *gained)),
                lines=tuple(f"+ grant {tenant_id}: {_grant_text(grant)}" for grant in gained),
            )


def issuer_changes(documents: tuple[IssuerDocument, ...], current: CurrentFacts) -> Iterator[PlannedChange]:
    """Yield new, changed and removed issuers. Only documents make them, so there is no other source."""
    known = {issuer.url: issuer for issuer in current.issuers}
    for new in (document.issuer for document in documents):
        old = known.pop(new.url, None)
        if old is not None and replace(old, generation=0) == new:
            continue
        yield PlannedChange(order=Order.PUT_ISSUER, fact=new, lines=tuple(_issuer_lines(new, old)))
    for old in known.values():
        line = f"- issuer {old.name}: {old.url}"
        yield PlannedChange(order=Order.DROP_ISSUER, fact=Removed(Issuer, old.url), lines=(line,))


def _issuer_lines(new: Issuer, old: Issuer | None) -> Iterator[str]:
    """Yield what changes of an issuer: its tokens in one line, and each rule in one."""
    text, was = _issuer_text(new), "" if old is None else _issuer_text(old)
    if old is None or text != was:
        yield f"{'~' if old else '+'} issuer {new.name}: {text}{f' (was {was})' if old else ''}"
    rules = {} if old is None else {rule.name: rule for rule in old.rules}
    for rule in new.rules:
        former = rules.pop(rule.name, None)
        if former != rule:
            was_rule = f" (was {_mapping_text(former)})" if former else ""
            sign = "~" if former else "+"
            yield f"{sign} issuer {new.name}, rule {rule.name}: {_mapping_text(rule)}{was_rule}"
    for rule in rules.values():
        yield f"- issuer {new.name}, rule {rule.name}: {_mapping_text(rule)}"


def _issuer_text(issuer: Issuer) -> str:
    types = " ".join(one or '""' for one in issuer.types)
    return (
        f"{issuer.url} for {issuer.audience}, keys at {issuer.key_set_url}, {' '.join(issuer.algorithms)}, "
        f"typ {types}, leeway {issuer.leeway_seconds:g} s, at most {issuer.max_lifetime_seconds:g} s and "
        f"{issuer.max_bindings} bindings"
    )


def _mapping_text(rule: MappingRule) -> str:
    claims = ", ".join(f"{one.claim} {' or '.join(one.values)}" for one in rule.claims)
    networks = f" from {' '.join(rule.networks)}" if rule.networks else ""
    of_model = f" of {rule.only}" if rule.only else ""
    return f"{claims}: tenant {rule.tenant}, {' '.join(sorted(rule.scopes))}{of_model}{networks}"


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
    if tenant.image_hosts:
        said.append(f"images from {' '.join(tenant.image_hosts)}")
    if tenant.allows:
        said.append(f"workflows may {' '.join(tenant.allows)}")
    return ", ".join(filter(None, said))


def _rule_text(rule: ModelRule) -> str:
    said = [
        f"owner {rule.owner}" if rule.owner else "",
        rule.visibility or "",
        period_text(rule),
        f"groups {' '.join(rule.groups)}" if rule.groups else "",
    ]
    return ", ".join(filter(None, said))


def _grant_text(grant: Grant) -> str:
    named = [*grant.models, *(f"group {group}" for group in grant.groups)]
    packages = f" packages {' '.join(grant.packages)}" if grant.packages else ""
    period = f" {period_text(grant)}" if grant.has_times else ""
    return f"{' '.join(sorted(grant.actions))} {' '.join(named)}{packages}{period}"
