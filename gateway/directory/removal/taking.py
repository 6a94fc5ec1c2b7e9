"""The steps of a removal: each an edit in one bounded transaction, safe to repeat.

Which facts a step is about is found out before, outside of the transaction. The step reads each of them again
and takes what is still the tenant's; so a removal that was interrupted, or that runs twice, goes on with what
is left. From the first step on the tenant gets nothing new: no key, no grant, no pattern.

Nothing may open meanwhile. So the tenant's rules are closed first, each by itself: private, in no group, with
the tenant as owner. Only when all are closed are they deleted. A rule below somebody else's pattern stays
closed for good where that pattern would open its models; its owner is a record that no longer exists.

Facts of the policy folder are not touched: the next `policy apply` would bring them back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.directory.edits.effect import verify_not_from_folder
from gateway.directory.edits.models import covering
from gateway.directory.edits.tenants import load_tenant
from gateway.directory.removal.journal import (
    Removal,
    RemovalStage,
    find_removal,
    head_of,
    note_taken,
    put_removal,
)
from gateway.directory.removal.ownership import owner_of
from gateway.model.errors import Conflict, UnknownName
from gateway.model.facts import FOLDER_SOURCE, Grants, ModelRule, Visibility
from gateway.model.records import SOURCE_CLI
from gateway.model.rulings import SOURCE_PLATFORM
from gateway.model.standing import standing_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.directory.edits.changes import Changes
    from gateway.directory.removal.ownership import Belongings
    from gateway.directory.transfer.lines import Fact
    from gateway.model.facts import Alias, Tenant
    from gateway.model.issuers import Binding
    from gateway.model.names import KeyId, Pattern, TenantId


async def begin_removal(
    changes: Changes, *, tenant_id: TenantId, removal_id: str, now: float, restorable_seconds: float
) -> Removal:
    """Refuse all that the tenant has from now on. Repeated, it returns the removal that is under way."""
    tenant = await load_tenant(changes, tenant_id)
    known = None if tenant.removal is None else await find_removal(changes, tenant.removal)
    if known is not None and known.stage is RemovalStage.RESTORING:
        raise Conflict(
            f"tenant {tenant_id} is being restored; end that first with `cachegate tenants "
            f"restore {tenant_id}`"
        )
    if known is not None:
        return known
    verify_removable(tenant)
    removal = head_of(tenant, removal_id, now, restorable_seconds)
    removing = replace(tenant, is_suspended=True, removal=removal_id, degraded_seconds=0.0, source=SOURCE_CLI)
    await changes.put_tenant(removing)
    await put_removal(changes, removal)
    return removal


def verify_removable(tenant: Tenant) -> None:
    """Raise `Conflict` for a tenant that somebody else than an operator's commands would bring back.

    What `policy apply` leaves of a tenant whose document is gone is a suspended record.
    """
    if tenant.source == SOURCE_PLATFORM:
        raise Conflict(f"tenant {tenant.tenant_id} is the platform's, which would bring it back")
    if tenant.source.startswith(FOLDER_SOURCE) and not tenant.is_suspended:
        document = tenant.source.removeprefix(FOLDER_SOURCE)
        raise Conflict(
            f"tenant {tenant.tenant_id} comes from the policy folder: take tenants/{document}.toml out of "
            "it, run `cachegate policy apply`, and repeat this command"
        )


async def revoke_keys(changes: Changes, *, removal_id: str, key_ids: Sequence[KeyId], now: float) -> int:
    """Revoke those of these keys that are the tenant's and are not revoked. For good: see `restoring.py`."""
    removal = await load_removal(changes, removal_id, RemovalStage.REMOVING)
    revoked = 0
    for key_id in key_ids:
        digest = await changes.find_key_digest(key_id)
        key = None if digest is None else await changes.find_key_by_digest(digest)
        if digest is None or key is None or key.revoked_at is not None:
            continue
        if removal.owns(key.tenant, key.tenant_record):
            await changes.put_key(replace(key, revoked_at=now), digest)
            revoked += 1
    if revoked:
        await put_removal(changes, replace(removal, keys=removal.keys + revoked))
    return revoked


async def revoke_bindings(
    changes: Changes, *, removal_id: str, bindings: Sequence[Binding], now: float
) -> int:
    """Revoke those of these bindings that are the tenant's and are not revoked."""
    removal = await load_removal(changes, removal_id, RemovalStage.REMOVING)
    revoked = 0
    for one in bindings:
        binding = await changes.find_binding(one.digest)
        if binding is None or binding.revoked_at is not None:
            continue
        if removal.owns(binding.tenant, binding.tenant_record):
            await changes.put_binding(replace(binding, revoked_at=now))
            revoked += 1
    if revoked:
        await put_removal(changes, replace(removal, bindings=removal.bindings + revoked))
    return revoked


async def take_own_grants(changes: Changes, *, removal_id: str, now: float) -> int:
    """Take all that the tenant was granted."""
    removal = await load_removal(changes, removal_id, RemovalStage.REMOVING)
    held = await changes.find_grants(removal.tenant)
    if held is None:
        return 0
    await changes.put_grants(replace(held, grants=()))
    if not removal.owns(held.tenant_id, held.tenant_record):
        return 0  # an earlier tenant's of this name: they counted for nobody
    for grant in held.grants:
        verify_not_from_folder(f"the grant {grant.grant_id}", grant.source, force=False)
    await _note(changes, removal, [replace(held, generation=0)], now)
    return len(held.grants)


async def close_rules(changes: Changes, *, removal_id: str, patterns: Sequence[Pattern], now: float) -> int:
    """Close those of these patterns that are the tenant's: private, in no group, and its own."""
    removal = await load_removal(changes, removal_id, RemovalStage.REMOVING)
    taken: list[Fact] = []
    for pattern in patterns:
        rules = {
            one: rule
            for one in (pattern, *covering(pattern))
            if (rule := await changes.find_rule(one)) is not None
        }
        rule = rules.get(pattern)
        if rule is None or not removal.owns(*owner_of(pattern, rules)):
            continue
        closed = _closed(pattern, removal)
        if replace(rule, generation=0) == closed:
            continue
        verify_not_from_folder(f"the rule for {pattern}", rule.source, force=False)
        taken.append(replace(rule, generation=0))
        await changes.put_rule(closed)
    await _note(changes, removal, taken, now)
    return len(taken)


async def take_aliases(changes: Changes, *, removal_id: str, aliases: Sequence[Alias], now: float) -> int:
    """Take those of these aliases that still stand for the same."""
    removal = await load_removal(changes, removal_id, RemovalStage.REMOVING)
    taken: list[Fact] = []
    for one in aliases:
        alias = await changes.find_alias(one.alias)
        if alias is None or alias.canonical != one.canonical:
            continue
        verify_not_from_folder(f"the alias {alias.alias}", alias.source, force=False)
        taken.append(replace(alias, generation=0))
        await changes.delete_alias(alias.alias)
    await _note(changes, removal, taken, now)
    return len(taken)


async def take_grants_of_others(
    changes: Changes, *, removal_id: str, holders: Sequence[TenantId], belongings: Belongings, now: float
) -> int:
    """Take what others were granted on the tenant's models and groups. A grant on more keeps the rest."""
    removal = await load_removal(changes, removal_id, RemovalStage.REMOVING)
    taken: list[Fact] = []
    count = 0
    for holder in holders:
        held = await changes.find_grants(holder)
        if held is None or removal.owns(held.tenant_id, held.tenant_record):
            continue
        lost, kept = [], []
        for grant in held.grants:
            out, rest = belongings.split(grant)
            if out is not None:
                what = f"the grant {grant.grant_id} of {holder}"
                verify_not_from_folder(what, grant.source, force=False)
                lost.append(out)
            if rest is not None:
                kept.append(rest)
        if lost:
            count += len(lost)
            taken.append(Grants(tenant_id=holder, tenant_record=held.tenant_record, grants=tuple(lost)))
            await changes.put_grants(replace(held, grants=tuple(kept)))
    await _note(changes, removal, taken, now)
    return count


async def delete_rules(changes: Changes, *, removal_id: str, patterns: Sequence[Pattern]) -> int:
    """Delete those of these rules that are closed, broad ones first; return how many.

    Where a broader rule of somebody else would open the models or make them theirs, the rule stays closed.
    """
    removal = await load_removal(changes, removal_id, RemovalStage.REMOVING)
    deleted = 0
    for pattern in patterns:
        rule = await changes.find_rule(pattern)
        if rule is None or replace(rule, generation=0) != _closed(pattern, removal):
            continue
        broader = [await changes.find_rule(one) for one in covering(pattern)]
        standing = standing_of([one for one in broader if one is not None])
        is_closed = standing.visibility is Visibility.PRIVATE and not standing.groups
        is_nobodys = standing.owner is None or removal.owns(standing.owner, standing.owner_record)
        if is_closed and is_nobodys and standing.lapsed is None:
            await changes.delete_rule(pattern)
            deleted += 1
    return deleted


async def end_removal(changes: Changes, *, removal_id: str, now: float) -> Removal:
    """Delete the tenant's record: its name is free."""
    removal = await load_removal(changes, removal_id, RemovalStage.REMOVING)
    if await changes.find_grants(removal.tenant) is not None:
        raise Conflict(f"tenant {removal.tenant} was granted something meanwhile; repeat the command")
    await changes.delete_tenant(removal.tenant, has_ended_keys=True)
    removal = replace(removal, stage=RemovalStage.REMOVED, ended_at=now)
    await put_removal(changes, removal)
    return removal


async def load_removal(changes: Changes, removal_id: str, stage: RemovalStage) -> Removal:
    """Return the head of a removal at this stage. Raises `Conflict` if it is at another one."""
    removal = await find_removal(changes, removal_id)
    if removal is None:
        raise UnknownName("removal", removal_id, "`cachegate tenants removed` shows them")
    if removal.stage is not stage:
        raise Conflict(f"the removal of tenant {removal.tenant} is {removal.stage.value} meanwhile")
    return removal


def _closed(pattern: Pattern, removal: Removal) -> ModelRule:
    return ModelRule(
        pattern=pattern,
        owner=removal.tenant,
        owner_record=removal.record_id,
        visibility=Visibility.PRIVATE,
    )


async def _note(changes: Changes, removal: Removal, taken: Sequence[Fact], now: float) -> None:
    if taken:
        await put_removal(changes, await note_taken(changes, removal, taken, now))
