"""Adds and removes grants: rights of a tenant on models that it does not own.

A command makes one grant per pattern or group, with an id derived from what is granted on what. So the audit
record of an allow names exactly the grant that allowed it, and adding the same grant again finds it. More
actions on the same pattern or group extend the grant and keep its id.

A grant may begin and end. The times that were named last count: adding it again with another expiry moves the
end, earlier or later, and without one takes the end away. Where only some of its actions are named, these
become a grant of their own.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.directory.edits.effect import Effect, verify_not_from_folder
from gateway.directory.edits.periods import verify_period
from gateway.directory.edits.tenants import load_staying_tenant, load_tenant
from gateway.model.access import GRANTABLE
from gateway.model.errors import Conflict
from gateway.model.facts import Grant, Grants
from gateway.model.periods import period_text
from gateway.model.records import SOURCE_CLI

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.directory.edits.changes import Changes
    from gateway.model.facts import Tenant
    from gateway.model.names import GroupName, PackageId, Pattern, TenantId

_ID_CHARACTERS = 8


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    """The pattern or group that a command's grant is on."""

    model: Pattern | None = None
    group: GroupName | None = None

    def __str__(self) -> str:
        return f"group {self.group}" if self.model is None else self.model

    def is_named_by(self, grant: Grant) -> bool:
        return self.model in grant.models if self.model is not None else self.group in grant.groups

    def taken_out_of(self, grant: Grant) -> Grant:
        return replace(
            grant,
            models=tuple(model for model in grant.models if model != self.model),
            groups=tuple(group for group in grant.groups if group != self.group),
        )


class _Period(msgspec.Struct, frozen=True, kw_only=True):
    """From when and until when a grant is to count."""

    not_before: float | None = None
    expires_at: float | None = None

    def __str__(self) -> str:
        """What follows a sentence about it."""
        text = period_text(self)
        return f" {text}" if text else ""

    def is_of(self, grant: Grant) -> bool:
        """Whether a grant has exactly this period."""
        return (grant.not_before, grant.expires_at) == (self.not_before, self.expires_at)


_ALWAYS = _Period()


async def add_grants(
    changes: Changes,
    *,
    tenant_id: TenantId,
    models: Sequence[Pattern] = (),
    groups: Sequence[GroupName] = (),
    packages: Sequence[PackageId] = (),
    actions: Iterable[str],
    not_before: float | None = None,
    expires_at: float | None = None,
    now: float | None = None,
) -> Effect:
    """Grant actions on each of these patterns and groups, optionally limited to packages and in time.

    `now` is needed with an expiry only: one that has passed is refused.
    """
    tenant = await load_staying_tenant(changes, tenant_id)
    period = _Period(not_before=not_before, expires_at=expires_at)
    verify_period(not_before, expires_at, now)
    wanted = _granted_actions(actions)
    narrowed = tuple(sorted(set(packages)))
    grants = list(await _list_own(changes, tenant))
    sentences: list[str] = []
    is_changed = False
    for target in _targets(models, groups):
        same = [grant for grant in grants if target.is_named_by(grant) and _packages(grant) == set(narrowed)]
        own = [grant for grant in same if _is_only(grant, target)]
        others = [grant for grant in same if wanted <= grant.actions and grant not in own]
        endless = [grant for grant in others if not grant.has_times]
        is_own = any(grant.actions & wanted for grant in own)
        if not is_own and any(period.is_of(grant) for grant in (*others, *endless)):
            sentences.append(f"{tenant_id} had {_listed(wanted)} on {target} already{period}")
            continue
        after = _extended(tenant_id, target, narrowed, wanted, period, grants)
        if after == grants:
            sentences.append(f"{tenant_id} had {_listed(wanted)} on {target} already{period}")
            continue
        was = _former_period(own, wanted, period)
        grants = after
        is_changed = True
        sentences.append(f"{tenant_id} has {_listed(wanted)} on {target} now{period}{was}")
        if endless and period != _ALWAYS:
            named = ", ".join(grant.grant_id for grant in endless)
            sentences.append(f"{tenant_id} also has it without an end, by {named}")
    if is_changed:
        await changes.put_grants(_record_of(tenant, grants))
    if groups:
        filled = {group for rule in await changes.list_rules() for group in rule.groups}
        sentences += [f"no model is in the group {group} yet" for group in groups if group not in filled]
    return Effect(is_changed=is_changed, sentences=tuple(sentences))


async def remove_grants(
    changes: Changes,
    *,
    tenant_id: TenantId,
    models: Sequence[Pattern] = (),
    groups: Sequence[GroupName] = (),
    packages: Sequence[PackageId] | None = None,
    actions: Iterable[str] | None = None,
    force: bool = False,
) -> Effect:
    """Remove grants on exactly these patterns and groups: all, those with the same packages, or some actions.

    A pattern that a broader grant covers stays readable through that grant; no exception is made in it.
    """
    tenant = await load_tenant(changes, tenant_id)
    unwanted = GRANTABLE if actions is None else _granted_actions(actions)
    before = await _list_own(changes, tenant)
    grants = before
    sentences: list[str] = []
    missing: list[str] = []
    for target in _targets(models, groups):
        kept: list[Grant] = []
        for grant in grants:
            meant = target.is_named_by(grant) and (packages is None or _packages(grant) == set(packages))
            if not meant or not grant.actions & unwanted:
                kept.append(grant)
                continue
            verify_not_from_folder(f"the grant {grant.grant_id} on {target}", grant.source, force=force)
            kept += _remainders(tenant_id, grant, target, unwanted, grants)
        if tuple(kept) == grants:
            sentences.append(f"{tenant_id} had no such grant on {target}")
            missing.append(str(target))
        else:
            sentences.append(f"{tenant_id} no longer has {_listed(unwanted)} on {target}")
        grants = tuple(kept)
    if grants != before:
        await changes.put_grants(_record_of(tenant, grants))
    return Effect(
        is_changed=grants != before,
        sentences=tuple(sentences),
        missing=tuple(missing),
        known=_named_by(before) if missing else (),
    )


async def remove_grant(
    changes: Changes, *, tenant_id: TenantId, grant_id: str, force: bool = False
) -> Effect:
    """Remove one grant of a tenant, by its id."""
    tenant = await load_tenant(changes, tenant_id)
    before = await _list_own(changes, tenant)
    kept = tuple(grant for grant in before if grant.grant_id != grant_id)
    if kept == before:
        missing = f"{tenant_id} has no grant {grant_id}"
        known = tuple(grant.grant_id for grant in before)
        return Effect(is_changed=False, sentences=(missing,), missing=(grant_id,), known=known)
    for grant in before:
        if grant.grant_id == grant_id:
            verify_not_from_folder(f"the grant {grant_id}", grant.source, force=force)
    await changes.put_grants(_record_of(tenant, kept))
    return Effect(is_changed=True, sentences=(f"{tenant_id} no longer has the grant {grant_id}",))


def _named_by(grants: Iterable[Grant]) -> tuple[str, ...]:
    """Return everything that these grants are on, as text."""
    targets = [str(target) for grant in grants for target in _targets_of(grant)]
    return tuple(dict.fromkeys(targets))


def _targets_of(grant: Grant) -> list[_Target]:
    return [*(_Target(model=model) for model in grant.models), *(_Target(group=one) for one in grant.groups)]


def _remainders(
    tenant_id: TenantId, grant: Grant, target: _Target, unwanted: frozenset[str], others: Sequence[Grant]
) -> list[Grant]:
    """Return the rest of a grant: its other patterns and groups, and its other actions on this one."""
    remainders: list[Grant] = []
    others_named = replace(target.taken_out_of(grant), source=SOURCE_CLI)
    if others_named.models or others_named.groups:
        remainders.append(others_named)
    if actions := grant.actions - unwanted:
        if remainders:
            period = _Period(not_before=grant.not_before, expires_at=grant.expires_at)
            remainders.append(_new_grant(tenant_id, target, grant.packages, actions, period, others))
        else:
            remainders.append(replace(grant, actions=actions, source=SOURCE_CLI))
    return remainders


def _new_grant(
    tenant_id: TenantId,
    target: _Target,
    packages: tuple[PackageId, ...],
    actions: frozenset[str],
    period: _Period,
    others: Sequence[Grant],
) -> Grant:
    taken = {grant.grant_id for grant in others}
    attempt = 0
    while True:
        text = json.dumps([tenant_id, target.model, target.group, packages, attempt])
        grant_id = f"grant_{sha256(text.encode()).hexdigest()[:_ID_CHARACTERS]}"
        if grant_id not in taken:
            return Grant(
                grant_id=grant_id,
                actions=actions,
                models=() if target.model is None else (target.model,),
                groups=() if target.group is None else (target.group,),
                packages=packages,
                not_before=period.not_before,
                expires_at=period.expires_at,
            )
        attempt += 1  # another grant has this id: rare, but ids must be unique


def _targets(models: Sequence[Pattern], groups: Sequence[GroupName]) -> list[_Target]:
    targets = [_Target(model=model) for model in dict.fromkeys(models)]
    targets += [_Target(group=group) for group in dict.fromkeys(groups)]
    if not targets:
        raise Conflict("name at least one model, prefix or group")
    return targets


def _granted_actions(actions: Iterable[str]) -> frozenset[str]:
    wanted = frozenset(actions)
    if not wanted or not wanted <= GRANTABLE:
        raise Conflict(f"actions that can be granted are {', '.join(sorted(GRANTABLE))}")
    return wanted


def _is_only(grant: Grant, target: _Target) -> bool:
    """Whether this is a command's own grant on this target alone, which can be extended."""
    is_single = len(grant.models) + len(grant.groups) == 1
    return is_single and grant.source == SOURCE_CLI and target.is_named_by(grant)


def _extended(
    tenant_id: TenantId,
    target: _Target,
    packages: tuple[PackageId, ...],
    wanted: frozenset[str],
    period: _Period,
    grants: Sequence[Grant],
) -> list[Grant]:
    """Return the grants with these actions on a target in this period, and in no other by a command's grant.

    A grant whose period is this one is extended. Otherwise one that has no other actions gets the period; it
    keeps its id, by which records name it.
    """

    def is_own(grant: Grant) -> bool:
        return _is_only(grant, target) and _packages(grant) == set(packages)

    own = [grant for grant in grants if is_own(grant)]
    kept = next((grant for grant in own if period.is_of(grant)), None)
    kept = kept or next((grant for grant in own if grant.actions <= wanted), None)
    after: list[Grant] = []
    for grant in grants:
        if grant is kept:
            actions = (grant.actions if period.is_of(grant) else frozenset()) | wanted
            times = {"not_before": period.not_before, "expires_at": period.expires_at}
            after.append(replace(grant, actions=actions, **times))
        elif not is_own(grant):
            after.append(grant)
        elif actions := grant.actions - wanted:
            after.append(replace(grant, actions=actions))
    if kept is None:
        after.append(_new_grant(tenant_id, target, packages, wanted, period, grants))
    return after


def _former_period(own: Sequence[Grant], wanted: frozenset[str], period: _Period) -> str:
    """Say what the period was, where another one is replaced."""
    former = [grant for grant in own if grant.actions & wanted and not period.is_of(grant)]
    said = [period_text(grant) or "without an end" for grant in former]
    return f" (it was {', '.join(dict.fromkeys(said))})" if said else ""


async def _list_own(changes: Changes, tenant: Tenant) -> tuple[Grant, ...]:
    """Return the grants of exactly this tenant: none that an earlier tenant of its name left behind."""
    found = await changes.find_grants(tenant.tenant_id)
    return () if found is None or found.tenant_record != tenant.record_id else found.grants


def _record_of(tenant: Tenant, grants: Sequence[Grant]) -> Grants:
    return Grants(tenant_id=tenant.tenant_id, tenant_record=tenant.record_id, grants=tuple(grants))


def _packages(grant: Grant) -> set[PackageId]:
    return set(grant.packages)


def _listed(actions: Iterable[str]) -> str:
    return ", ".join(sorted(actions))
