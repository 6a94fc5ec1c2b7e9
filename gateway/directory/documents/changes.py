"""The data types of a document plan: the facts it starts from, its changes, and their order.

Values only: `differences.py` finds the changes and `plan.py` assembles the plan.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.model.facts import Alias, Grants, ModelRule, PolicySet, Tenant
    from gateway.model.names import TenantId
    from gateway.model.rule_changes import RuleSetChanges


class CurrentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts in force that documents can define, of every source."""

    tenants: tuple[Tenant, ...] = ()
    rules: tuple[ModelRule, ...] = ()
    aliases: tuple[Alias, ...] = ()
    grants: tuple[Grants, ...] = ()
    policy: PolicySet | None = None
    tenants_with_keys: frozenset[TenantId] = frozenset()


class Removed(msgspec.Struct, frozen=True):
    """A fact that is removed: its kind and name."""

    kind: type[Tenant | ModelRule | Alias]
    name: str


class Order(IntEnum):
    """The order of changes: those that restrict access first, those that allow it last."""

    POLICY = 0
    SUSPEND = 1
    LOSE_GRANTS = 2
    DROP_ALIAS = 3
    CLOSE_MODELS = 4
    ADMIT_TENANT = 5
    PUT_MODELS = 6
    FORGET_MODELS = 7
    PUT_ALIAS = 8
    GAIN_GRANTS = 9
    DROP_TENANT = 10


class PlannedChange(msgspec.Struct, frozen=True, kw_only=True):
    """One record that changes: its new value or its removal, and a description in lines."""

    order: Order
    fact: Tenant | ModelRule | Alias | Grants | PolicySet | Removed
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
