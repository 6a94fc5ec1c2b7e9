"""Compute rules from what tenants say of models, and a model's standing from the rules that cover it.

Tenant documents and case files say it in the same words (`TenantModels`). A standing is owner, visibility and
groups. The most specific rule that names an owner determines the owner; the most specific one that
names a visibility determines that, unless it is broader than the owner's rule. Groups are collected from the
same rules, from the model's own up to the owner's: giving `acme/x` to another tenant neither publishes it nor
puts it into a group by what `acme/*` says. Where no rule names an owner, every rule counts. Where none names
a visibility, the model is private (I1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.model.facts import ModelRule, Standing, Visibility
from gateway.model.names import GroupName, ModelId, Pattern  # noqa: TC001 -- msgspec reads annotations
from gateway.model.periods import NEVER, PeriodState
from gateway.model.records import SOURCE_CLI

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.model.names import TenantId
    from gateway.model.tenant_records import TenantRecordId


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """Models that every tenant may read, from one time until another."""

    models: tuple[Pattern, ...]
    not_before: float | None = None
    expires_at: float | None = None


class TenantModels(msgspec.Struct, frozen=True, kw_only=True):
    """What is said for one tenant: the models it owns, which of them are public, their aliases and groups."""

    own: tuple[Pattern, ...] = ()
    public: tuple[Pattern, ...] = ()
    private: tuple[Pattern, ...] = ()
    aliases: dict[ModelId, ModelId] = {}
    groups: dict[GroupName, tuple[Pattern, ...]] = {}
    published: tuple[Publication, ...] = ()  # public from one time until another

    @property
    def has_times(self) -> bool:
        """Whether a publication begins or ends."""
        return any(one.not_before is not None or one.expires_at is not None for one in self.published)

    @property
    def said_of_patterns(self) -> tuple[tuple[Pattern, str], ...]:
        """Every pattern that is mentioned, with the key it is listed under."""
        keys = {"own": self.own, "public": self.public, "private": self.private}
        said = [*keys.items(), *self.groups.items(), *(("published", one.models) for one in self.published)]
        return tuple((pattern, key) for key, patterns in said for pattern in patterns)

    def rules(
        self, owner: TenantId, source: str = SOURCE_CLI, record_id: TenantRecordId | None = None
    ) -> Iterator[ModelRule]:
        """Yield one rule per pattern, combining everything that is said about the pattern."""
        times = {pattern: one for one in self.published for pattern in one.models}
        own, public, private = set(self.own), set(self.public), set(self.private)
        groups: dict[Pattern, list[GroupName]] = {}
        for group, patterns in self.groups.items():
            for pattern in patterns:
                groups.setdefault(pattern, []).append(group)
        for pattern in dict.fromkeys(pattern for pattern, _ in self.said_of_patterns):
            period = times.get(pattern)
            visibility = Visibility.PUBLIC if pattern in public or period is not None else None
            yield ModelRule(
                pattern=pattern,
                owner=owner if pattern in own else None,
                owner_record=record_id if pattern in own else None,
                visibility=Visibility.PRIVATE if pattern in private else visibility,
                groups=tuple(groups.get(pattern, ())),
                not_before=None if period is None else period.not_before,
                expires_at=None if period is None else period.expires_at,
                source=source,
            )


def standing_of(rules: Sequence[ModelRule], now: float = NEVER, latest: float | None = None) -> Standing:
    """The standing at a time of a model under the rules that cover it, most specific first.

    Without a time, no publication that begins or ends is in force.
    """
    owning = next((index for index, rule in enumerate(rules) if rule.owner is not None), None)
    counted = rules if owning is None else rules[: owning + 1]
    showing = next((rule for rule in counted if rule.visibility is not None), None)
    state = PeriodState.IN_FORCE if showing is None else showing.state_at(now, latest)
    return Standing(
        owner=None if owning is None else rules[owning].owner,
        owner_record=None if owning is None else rules[owning].owner_record,
        visibility=(None if showing is None else showing.shown_at(now, latest)) or Visibility.PRIVATE,
        groups=frozenset(group for rule in counted for group in rule.groups),
        lapsed=None if state is PeriodState.IN_FORCE else state,
    )
