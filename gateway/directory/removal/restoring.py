"""The steps of a restoration: what a removal took is given back, where nobody has it now.

Keys and bindings stay revoked. A revocation that was reported is final: the tenant was told that its keys are
dead, and may have thrown them away, published them, or given the machines back that held them. Nobody can say
after a week where a secret has been meanwhile. So a restored tenant gets new keys, and until then nothing can
be read in its name. Grants of others on its models count again at once, as before, within their times.

Rules are given back narrow ones first, so that nothing opens meanwhile. What somebody else has now (a pattern
with another owner, an alias that stands for another model) is left to them and reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.directory.removal.journal import Removal, RemovalStage, drop_entries, find_removal, put_removal
from gateway.directory.removal.taking import load_removal
from gateway.model.errors import Conflict, UnknownName
from gateway.model.facts import Alias, Grants, ModelRule
from gateway.model.names import ModelId, Pattern
from gateway.model.periods import moment_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.directory.edits.changes import Changes
    from gateway.directory.transfer.lines import Fact
    from gateway.model.facts import Grant


async def begin_restoration(changes: Changes, *, removal_id: str, now: float) -> Removal:
    """Bring the tenant's record back, suspended. Repeated, it returns the restoration that is under way."""
    removal = await find_removal(changes, removal_id)
    if removal is None:
        raise UnknownName("removal", removal_id, "`cachegate tenants removed` shows them")
    if removal.stage is RemovalStage.RESTORED:
        raise Conflict(f"tenant {removal.tenant} was restored from this removal already")
    if removal.stage is not RemovalStage.RESTORING and not now < removal.restorable_until:
        raise Conflict(
            f"tenant {removal.tenant} could be restored until {moment_text(removal.restorable_until)}"
        )
    there = await changes.find_tenant(removal.tenant)
    if there is not None and there.removal != removal_id:
        raise Conflict(
            f"another tenant has the name {removal.tenant} now ({there.record_id or 'without a record id'}); "
            "remove that one first"
        )
    await changes.put_tenant(replace(removal.former_tenant(), is_suspended=True, removal=removal_id))
    removal = replace(removal, stage=RemovalStage.RESTORING)
    await put_removal(changes, removal)
    return removal


async def give_back(changes: Changes, *, removal_id: str, facts: Sequence[Fact]) -> tuple[str, ...]:
    """Give these facts back; return a sentence for each that is not."""
    removal = await load_removal(changes, removal_id, RemovalStage.RESTORING)
    left: list[str] = []
    for fact in facts:
        match fact:
            case ModelRule():
                left += await _give_rule_back(changes, removal, fact)
            case Alias():
                left += await _give_alias_back(changes, fact)
            case Grants():
                left += await _give_grants_back(changes, removal, fact)
    return tuple(left)


async def end_restoration(changes: Changes, *, removal_id: str) -> Removal:
    """Let the tenant be what it was, without its keys and bindings."""
    removal = await load_removal(changes, removal_id, RemovalStage.RESTORING)
    await changes.put_tenant(removal.former_tenant())
    removal = replace(await drop_entries(changes, removal), stage=RemovalStage.RESTORED)
    await put_removal(changes, removal)
    return removal


async def _give_rule_back(changes: Changes, removal: Removal, rule: ModelRule) -> list[str]:
    there = await changes.find_rule(rule.pattern)
    if there is not None and replace(there, generation=0) == rule:
        return []
    if there is not None and not removal.owns(there.owner, there.owner_record):
        whose = f"belongs to tenant {there.owner}" if there.owner else "has another rule"
        return [f"{rule.pattern} {whose} now"]
    if await changes.find_alias(ModelId(rule.pattern)) is not None:
        return [f"{rule.pattern} is an alias now"]
    await changes.put_rule(rule)
    return []


async def _give_alias_back(changes: Changes, alias: Alias) -> list[str]:
    there = await changes.find_alias(alias.alias)
    if there is not None:
        is_same = there.canonical == alias.canonical
        return [] if is_same else [f"the alias {alias.alias} stands for {there.canonical} now"]
    if await changes.find_rule(Pattern(alias.alias)) is not None:
        return [f"the alias {alias.alias} is a model with a rule now"]
    if await changes.find_alias(alias.canonical) is not None:
        return [f"the alias {alias.alias} would stand for an alias"]
    await changes.put_alias(alias)
    return []


async def _give_grants_back(changes: Changes, removal: Removal, lost: Grants) -> list[str]:
    """Give a tenant back what was taken from its grants, beside those that it has now."""
    holder = await changes.find_tenant(lost.tenant_id)
    if holder is None or holder.record_id != lost.tenant_record:
        return [f"tenant {lost.tenant_id} is gone, which had {len(lost.grants)} grants"]
    if holder.removal is not None and not removal.owns(holder.tenant_id, holder.record_id):
        return [f"tenant {lost.tenant_id} is being removed itself"]
    there = await changes.find_grants(lost.tenant_id)
    is_own = there is not None and there.tenant_record == holder.record_id
    grants = {one.grant_id: one for one in there.grants} if there is not None and is_own else {}
    left: list[str] = []
    for grant in lost.grants:
        known = grants.get(grant.grant_id)
        if known is not None and not _is_same_right(known, grant):
            left.append(f"the grant {grant.grant_id} of {lost.tenant_id} says something else now")
        else:
            grants[grant.grant_id] = grant if known is None else _joined(known, grant)
    try:
        await changes.put_grants(replace(lost, grants=tuple(grants.values())))
    except Conflict as conflict:  # it was granted as much as anybody may have meanwhile
        return [str(conflict)]
    return left


def _is_same_right(known: Grant, lost: Grant) -> bool:
    """Whether both say the same of what they are on."""
    return replace(known, models=(), groups=()) == replace(lost, models=(), groups=())


def _joined(known: Grant, lost: Grant) -> Grant:
    return replace(
        known,
        models=tuple(dict.fromkeys((*known.models, *lost.models))),
        groups=tuple(dict.fromkeys((*known.groups, *lost.groups))),
    )
