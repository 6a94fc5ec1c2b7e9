"""Plans and applies the changes that make the facts in force match a folder of tenant documents.

Planning is pure, so `policy diff` shows exactly what `policy apply` does. A plan changes only facts that the
policy folder wrote. A fact of the same name with a different value from another source is a conflict, and a
plan with conflicts is not applied.

Changes that restrict access come before changes that allow it, so that a plan that is interrupted has allowed
nothing that its rest would have restricted. Planning again after applying finds no changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.directory.documents.changes import CurrentFacts, DocumentPlan, Order, PlannedChange, Removed
from gateway.directory.documents.differences import alias_changes, grant_changes, rule_changes, tenant_changes
from gateway.model.errors import Conflict
from gateway.model.facts import Alias, Grants, ModelRule, PolicySet, Tenant
from gateway.model.names import ModelId, Pattern, TenantId

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.directory.documents.parse import TenantDocument
    from gateway.directory.edits.changes import Changes
    from gateway.model.rule_changes import RuleSetChanges

__all__ = [
    "CurrentFacts",
    "DocumentPlan",
    "PlannedChange",
    "Removed",
    "apply_plan",
    "plan_changes",
]


def plan_changes(
    documents: Iterable[TenantDocument],
    current: CurrentFacts,
    *,
    now: float,
    policy: PolicySet | None = None,
    rules: RuleSetChanges | None = None,
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
    return DocumentPlan(
        changes=tuple(sorted(changes, key=lambda each: each.order)), conflicts=tuple(conflicts), rules=rules
    )


async def apply_plan(changes: Changes, plan: DocumentPlan) -> None:
    """Make a plan's changes in its order. Raises `Conflict` before the first one if there are conflicts."""
    if plan.conflicts:
        raise Conflict("\n".join(plan.conflicts))
    for change in plan.changes:
        match change.fact:
            case PolicySet() as policy:
                await changes.put_policy(policy)
            case Tenant() as tenant:
                await changes.put_tenant(tenant)
            case ModelRule() as rule:
                await changes.put_rule(rule)
            case Alias() as alias:
                await changes.put_alias(alias)
            case Grants() as grants:
                await changes.put_grants(grants)
            case Removed(kind, name):
                await _remove(changes, kind, name)


async def _remove(changes: Changes, kind: type[Tenant | ModelRule | Alias], name: str) -> None:
    if kind is Tenant:
        await changes.delete_tenant(TenantId(name))
    elif kind is ModelRule:
        await changes.delete_rule(Pattern(name))
    else:
        await changes.delete_alias(ModelId(name))
