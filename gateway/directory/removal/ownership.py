"""What belongs to a tenant among the rules, aliases and groups: by its rules, and by those that it covers.

A rule is a tenant's own if it names the tenant as owner, or names nobody and lies below a pattern whose most
specific owner is the tenant: what is said about `acme/x` alone is said about acme's model. A group is its own
if no rule of anybody else is in it. An alias is its own if its name or its model is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.directory.edits.models import covering
from gateway.model.names import Pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.model.facts import Alias, Grant, ModelRule
    from gateway.model.names import GroupName, ModelId, TenantId
    from gateway.model.tenant_records import TenantRecordId

    Owner = tuple[TenantId | None, TenantRecordId | None]

NOBODY: Owner = (None, None)


class Belongings(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's own rules, aliases and groups, among all rules and aliases that there are."""

    owner: Owner
    rules: dict[Pattern, ModelRule]  # all of them
    own_rules: tuple[ModelRule, ...]
    aliases: tuple[Alias, ...]
    groups: frozenset[GroupName]
    broader: frozenset[Pattern]  # patterns of others, or of nobody, that cover some of its models

    def is_own_model(self, model: ModelId) -> bool:
        """Whether a model is the tenant's."""
        return owner_of(Pattern(model), self.rules) == self.owner

    def split(self, grant: Grant) -> tuple[Grant | None, Grant | None]:
        """Part a grant of somebody else into what is on the tenant's models and groups, and the rest."""
        models = tuple(one for one in grant.models if owner_of(one, self.rules) == self.owner)
        groups = tuple(one for one in grant.groups if one in self.groups)
        if not models and not groups:
            return None, grant
        rest = replace(
            grant,
            models=tuple(one for one in grant.models if one not in models),
            groups=tuple(one for one in grant.groups if one not in groups),
        )
        return replace(grant, models=models, groups=groups), rest if rest.models or rest.groups else None

    def is_wider(self, grant: Grant) -> bool:
        """Whether what remains of a grant covers some of its models: it is on a broader pattern."""
        return not self.broader.isdisjoint(grant.models)


def belongings_of(owner: Owner, rules: Iterable[ModelRule], aliases: Iterable[Alias]) -> Belongings:
    """Return what belongs to a tenant."""
    by_pattern = {rule.pattern: rule for rule in rules}
    own = tuple(rule for rule in by_pattern.values() if owner_of(rule.pattern, by_pattern) == owner)
    patterns = {rule.pattern for rule in own}
    of_others = {
        group for rule in by_pattern.values() if rule.pattern not in patterns for group in rule.groups
    }
    return Belongings(
        owner=owner,
        rules=by_pattern,
        own_rules=own,
        aliases=tuple(
            one
            for one in aliases
            if owner in {owner_of(Pattern(name), by_pattern) for name in (one.alias, one.canonical)}
        ),
        groups=frozenset(group for rule in own for group in rule.groups if group not in of_others),
        broader=frozenset(one for pattern in patterns for one in covering(pattern)) - patterns,
    )


def owner_of(pattern: Pattern, rules: Mapping[Pattern, ModelRule]) -> Owner:
    """Return whose the models of a pattern are: by its own rule, or the most specific one that covers it."""
    for one in (pattern, *covering(pattern)):
        rule = rules.get(one)
        if rule is not None and rule.owner is not None:
            return rule.owner, rule.owner_record
    return NOBODY


def narrow_first(rules: Iterable[ModelRule]) -> list[ModelRule]:
    """Return rules in an order in which putting them opens nothing meanwhile."""
    return sorted(rules, key=lambda rule: (-len(rule.pattern.removesuffix("/*")), rule.pattern))


def broad_first(rules: Sequence[ModelRule]) -> list[ModelRule]:
    """Return rules in an order in which each one's broader ones come before it."""
    return list(reversed(narrow_first(rules)))
