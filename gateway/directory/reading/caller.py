"""Assembles the facts about one caller and the models it asks about from the records that were read.

For a key that the platform knows, the platform's ruling is one of these facts. An allow that is in force
becomes a grant on exactly that model, so the rules decide as usual and a rule that forbids still wins; the
answer then depends on a leaf that expires with the allow. Where no ruling is in force, the facts say so and
the answer is a denial until the platform has been asked. A signed link uses the record of its minting
instead, since its holder has no key to ask the platform with.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.directory.reading.read_set import NO_GRANTS, names_about
from gateway.directory.reading.rulings import names_of_ruling, ruling_in_force
from gateway.directory.records import names
from gateway.model.access import GRANTABLE
from gateway.model.facts import Facts, Grant
from gateway.model.names import Pattern
from gateway.model.rulings import PLATFORM_GRANT, SOURCE_PLATFORM, EndingLeaf
from gateway.model.stamps import Stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.directory.reading.read_set import ReadSet
    from gateway.model.access import Principal
    from gateway.model.clocks import Clock
    from gateway.model.facts import PolicySet, Standing
    from gateway.model.names import ModelId


def names_about_caller(principal: Principal) -> list[bytes]:
    """Return the names of all records about a caller, whatever it asks about."""
    about = (
        [names.POLICY] if principal.tenant is None else [names.grants_fact(principal.tenant), names.POLICY]
    )
    return about + _ruling_names(principal, None) if principal.is_of_platform else about


def names_about_rulings(principal: Principal, models: Iterable[ModelId]) -> list[bytes]:
    """Return the names of the platform's records about this caller and these models."""
    if not principal.is_of_platform:
        return []
    return [name for model in models for name in _ruling_names(principal, model)]


def _ruling_names(principal: Principal, model: ModelId | None) -> list[bytes]:
    return names_of_ruling(principal.key_id, model, of_links=principal.is_link)


class CallerFacts:
    """The facts about one caller, shared by all models it asks about.

    Without a clock no ruling is in force, because its expiry cannot be checked.
    """

    def __init__(
        self, read_set: ReadSet, principal: Principal, policy: PolicySet, clock: Clock | None
    ) -> None:
        self._read_set = read_set
        self._principal = principal
        self._policy = policy
        self._clock = clock
        self._names = names_about_caller(replace(principal, is_of_platform=False))
        held = NO_GRANTS
        if principal.tenant is not None:
            held = read_set.grants_of(principal.tenant, principal.tenant_record)
        self._grants, self._ended, self._ahead = held.in_force, held.ended, held.ahead

    def about_each(self, models: Sequence[ModelId | None]) -> list[Facts]:
        """Return the facts about each of these models (None: no model), in order."""
        found = [self._facts_about(model) for model in models]
        if not self._principal.is_of_platform:
            return found
        ruled = [self._ruled(facts) for facts in found]
        allowed = dict.fromkeys(one.model for one in ruled if one.ruling is not None and one.ruling.is_allow)
        # One tuple for all: callers decide facts with the identical grants object in one batch.
        grants = (*self._grants, *(_grant_on(model) for model in allowed if model is not None))
        return [replace(one, grants=grants) for one in ruled]

    def _facts_about(self, requested: ModelId | None) -> Facts:
        read_set = self._read_set
        used = list(self._names)
        model, standing, requested_standing = requested, None, None
        broken: list[str] = []
        if requested is not None:
            used += names_about([requested])
            alias = read_set.alias_of(requested)
            standing = requested_standing = read_set.standing_of(requested)
            if alias is not None:
                model = alias.canonical
                used += names_about([model])
                standing = read_set.standing_of(model)
                if read_set.alias_of(model) is not None:
                    broken.append(names.alias_fact(requested).decode())
                    model, standing = None, None
        standing, requested_standing = self._of_record(standing), self._of_record(requested_standing)
        broken += [read_set.unreadable[name] for name in dict.fromkeys(used) if name in read_set.unreadable]
        return Facts(
            grants=self._grants,
            ended=self._ended,
            ahead=self._ahead,
            requested=requested,
            model=model,
            requested_standing=requested_standing,
            model_standing=standing,
            policy=self._policy,
            stamp=read_set.stamp(dict.fromkeys(used)),
            unreadable=tuple(broken),
        )

    def _of_record(self, standing: Standing | None) -> Standing | None:
        """The standing, without an owner of the caller's name whose record is another one."""
        principal = self._principal
        if standing is None or standing.owner is None or standing.owner != principal.tenant:
            return standing
        return standing if standing.owner_record == principal.tenant_record else replace(standing, owner=None)

    def _ruled(self, facts: Facts) -> Facts:
        """Add the platform's ruling to the facts, if one is in force now."""
        if facts.unreadable:
            return facts
        key_id, is_link = self._principal.key_id, self._principal.is_link
        leaves = [self._read_set.leaves[name] for name in _ruling_names(self._principal, facts.model)]
        now = inf if self._clock is None else self._clock.now()
        ruling = ruling_in_force(self._read_set, key_id, facts.model, now, of_links=is_link)
        if ruling is not None and self._clock is not None:
            leaves[0] = EndingLeaf(leaves[0], ruling.until, self._clock)
        stamp = Stamp(facts.stamp.generation, (*facts.stamp.leaves, *leaves))
        return replace(facts, stamp=stamp, ruling=ruling, is_confirmed=ruling is not None)


def _grant_on(model: ModelId) -> Grant:
    return Grant(grant_id=PLATFORM_GRANT, actions=GRANTABLE, models=(Pattern(model),), source=SOURCE_PLATFORM)
