"""Edits models: their owners, visibility, groups and aliases.

A pattern has one owner. Owning a pattern below another tenant's prefix, or a prefix above another tenant's
pattern, is refused unless forced: it is legal (the most specific rule wins) and rarely intended.

An alias must point to a model id that is not an alias, must have no exact rule, and must not be the target of
another alias. Otherwise it would be unclear whose rules apply.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.directory.edits.effect import Effect, verify_not_from_folder
from gateway.directory.edits.periods import verify_period
from gateway.directory.edits.tenants import load_staying_tenant, load_tenant
from gateway.model.errors import Conflict
from gateway.model.facts import Alias, ModelRule, Visibility
from gateway.model.names import ModelId, Pattern, ancestors
from gateway.model.periods import period_text
from gateway.model.records import SOURCE_CLI
from gateway.model.standing import Publication

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.directory.edits.changes import Changes
    from gateway.model.names import GroupName, TenantId


MAX_MOVED = 2_000  # patterns in one transaction: about 50 ms of the server's time
_NO_TIMES = Publication(models=())


async def own(
    changes: Changes, *, tenant_id: TenantId, patterns: Sequence[Pattern], force: bool = False
) -> Effect:
    """Make a tenant the owner of these patterns. `force` allows overlaps, but not another's own pattern."""
    tenant = await load_staying_tenant(changes, tenant_id)
    rules = await changes.list_rules()
    owners = {
        rule.pattern: rule.owner for rule in rules if rule.owner is not None and rule.owner != tenant_id
    }
    ordered = sorted(owners)
    for pattern in patterns:
        if pattern in owners:
            raise Conflict(f"{pattern} belongs to tenant {owners[pattern]}; disown it there first")
        overlap = None if force else _find_overlap(pattern, owners, ordered)
        if overlap is not None:
            raise Conflict(f"{overlap}; use --force if that is meant")
    return await _edit(
        changes,
        patterns,
        lambda rule: replace(rule, owner=tenant_id, owner_record=tenant.record_id),
        f"belongs to {tenant_id}",
        force=force,
    )


async def move(
    changes: Changes,
    *,
    from_tenant: TenantId,
    to_tenant: TenantId,
    patterns: Sequence[Pattern] = (),
    force: bool = False,
) -> Effect:
    """Make one tenant the owner of what another one owns: of these patterns, or without any of all.

    What else the rules say (visibility, groups), aliases and the grants of others stay as they are.
    """
    giving = await load_tenant(changes, from_tenant)
    taking = await load_staying_tenant(changes, to_tenant)
    if from_tenant == to_tenant:
        raise Conflict(f"tenant {from_tenant} owns them already")
    owned = {
        rule.pattern: rule
        for rule in await changes.list_rules()
        if (rule.owner, rule.owner_record) == (from_tenant, giving.record_id)
    }
    wanted = list(dict.fromkeys(patterns)) or list(owned)
    missing = [pattern for pattern in wanted if pattern not in owned]
    if len(wanted) > MAX_MOVED:
        raise Conflict(
            f"{len(wanted)} patterns in one change, during which others wait; name at most {MAX_MOVED}"
        )
    if missing or not wanted:
        sentence = f"{from_tenant} does not own {', '.join(missing) or 'anything'}; nothing was moved"
        return Effect(is_changed=False, sentences=(sentence,), missing=tuple(missing), known=tuple(owned))
    for pattern in wanted:
        verify_not_from_folder(f"the rule for {pattern}", owned[pattern].source, force=force)
        moved = replace(owned[pattern], owner=to_tenant, owner_record=taking.record_id, source=SOURCE_CLI)
        await changes.put_rule(moved)
    sentences = [
        f"{pattern} belongs to {to_tenant} now, and no longer to {from_tenant}" for pattern in wanted
    ]
    return Effect(is_changed=True, sentences=tuple(sentences))


async def disown(
    changes: Changes, *, tenant_id: TenantId, patterns: Sequence[Pattern], force: bool = False
) -> Effect:
    """Remove the owner of these patterns. The rest of their rules stays."""
    owned = [rule.pattern for rule in await changes.list_rules() if rule.owner == tenant_id]
    if not owned:  # a tenant that no longer exists may still own patterns
        await load_tenant(changes, tenant_id)
    for pattern in patterns:
        rule = await changes.find_rule(pattern)
        if rule is not None and rule.owner not in {None, tenant_id}:
            raise Conflict(f"{pattern} belongs to tenant {rule.owner}, not to {tenant_id}")
    edit = partial(replace, owner=None, owner_record=None)
    return await _edit(changes, patterns, edit, "has no owner", force=force, taken_from=owned)


async def publish(
    changes: Changes,
    *,
    patterns: Sequence[Pattern],
    not_before: float | None = None,
    expires_at: float | None = None,
    now: float | None = None,
    force: bool = False,
) -> Effect:
    """Let every tenant read the models of these patterns, perhaps only from one time until another.

    Outside its period a pattern is private, whatever a broader one says. The times named last count.
    """
    verify_period(not_before, expires_at, now)
    period = Publication(models=(), not_before=not_before, expires_at=expires_at)
    return await _show(changes, patterns, Visibility.PUBLIC, period, force=force)


async def unpublish(changes: Changes, *, patterns: Sequence[Pattern], force: bool = False) -> Effect:
    """Make these patterns private explicitly, so that no broader rule keeps them public."""
    return await _show(changes, patterns, Visibility.PRIVATE, _NO_TIMES, force=force)


async def say_nothing_of_visibility(
    changes: Changes, *, patterns: Sequence[Pattern], force: bool = False
) -> Effect:
    """Leave to broader rules who may read these patterns; without one, their owner alone may."""
    edit = partial(replace, visibility=None, not_before=None, expires_at=None)
    return await _edit(changes, patterns, edit, "has no visibility of its own", force=force)


async def add_to_group(
    changes: Changes, *, group: GroupName, patterns: Sequence[Pattern], force: bool = False
) -> Effect:
    """Add these patterns to a group."""
    return await _edit(
        changes,
        patterns,
        lambda rule: replace(rule, groups=tuple(sorted({*rule.groups, group}))),
        f"is in group {group}",
        force=force,
    )


async def remove_from_group(
    changes: Changes, *, group: GroupName, patterns: Sequence[Pattern], force: bool = False
) -> Effect:
    """Remove these patterns from a group."""
    grouped = [rule.pattern for rule in await changes.list_rules() if group in rule.groups]
    if not grouped:
        groups = {name for rule in await changes.list_rules() for name in rule.groups}
        missing = f"no model is in the group {group}"
        return Effect(is_changed=False, sentences=(missing,), missing=(group,), known=tuple(sorted(groups)))
    return await _edit(
        changes,
        patterns,
        lambda rule: replace(rule, groups=tuple(name for name in rule.groups if name != group)),
        f"is not in group {group}",
        force=force,
        taken_from=grouped,
    )


async def add_alias(changes: Changes, *, alias: ModelId, canonical: ModelId, force: bool = False) -> Effect:
    """Add an alias of a model, or point an existing alias to another model."""
    known = await changes.find_alias(alias)
    if known is not None and known.canonical == canonical:
        return Effect(is_changed=False, sentences=(f"{alias} stood for {canonical} already",))
    if alias == canonical:
        raise Conflict(f"{alias} cannot stand for itself")
    if (further := await changes.find_alias(canonical)) is not None:
        raise Conflict(f"{canonical} is an alias itself; point {alias} to {further.canonical}")
    if await changes.find_rule(Pattern(alias)) is not None:
        raise Conflict(f"there is a rule for exactly {alias}, so it is a model and not an alias")
    for other in await changes.list_aliases():
        if other.canonical == alias:
            raise Conflict(f"{other.alias} stands for {alias}, so {alias} cannot be an alias too")
    if known is not None:
        verify_not_from_folder(f"the alias {alias}", known.source, force=force)
    await changes.put_alias(Alias(alias=alias, canonical=canonical))
    before = "" if known is None else f" (it stood for {known.canonical})"
    return Effect(is_changed=True, sentences=(f"{alias} stands for {canonical} now{before}",))


async def remove_alias(changes: Changes, *, alias: ModelId, force: bool = False) -> Effect:
    """Remove an alias."""
    known = await changes.find_alias(alias)
    if known is None:
        aliases = tuple(other.alias for other in await changes.list_aliases())
        return Effect(is_changed=False, sentences=(f"{alias} was no alias",), missing=(alias,), known=aliases)
    verify_not_from_folder(f"the alias {alias}", known.source, force=force)
    await changes.delete_alias(alias)
    return Effect(is_changed=True, sentences=(f"{alias} no longer stands for {known.canonical}",))


async def _show(
    changes: Changes,
    patterns: Sequence[Pattern],
    visibility: Visibility,
    period: Publication,
    *,
    force: bool,
) -> Effect:
    return await _edit(
        changes,
        patterns,
        lambda rule: replace(
            rule, visibility=visibility, not_before=period.not_before, expires_at=period.expires_at
        ),
        f"is {visibility.value} {period_text(period)}".rstrip(),
        force=force,
    )


async def _edit(
    changes: Changes,
    patterns: Sequence[Pattern],
    edit: Callable[[ModelRule], ModelRule],
    outcome: str,
    *,
    force: bool,
    taken_from: Sequence[Pattern] | None = None,
) -> Effect:
    """Edit each pattern's rule. `taken_from`: for a removal, the patterns that it applies to now."""
    sentences: list[str] = []
    missing: list[str] = []
    is_changed = False
    for pattern in patterns:
        known = await changes.find_rule(pattern)
        before = known or ModelRule(pattern=pattern)
        after = edit(before)
        if after == before:
            sentences.append(f"{pattern} {outcome} already")
            missing += [] if taken_from is None else [pattern]
            continue
        verify_not_from_folder(f"the rule for {pattern}", before.source, force=force)
        if known is None and await changes.find_alias(ModelId(pattern)) is not None:
            raise Conflict(f"{pattern} is an alias; name the model that it stands for")
        await changes.put_rule(replace(after, source=SOURCE_CLI))
        is_changed = True
        sentences.append(f"{pattern} {outcome} now")
    meant = tuple(taken_from or ()) if missing else ()
    return Effect(is_changed=is_changed, sentences=tuple(sentences), missing=tuple(missing), known=meant)


def _find_overlap(
    pattern: Pattern, owners: dict[Pattern, TenantId], ordered: Sequence[Pattern]
) -> str | None:
    """Say which pattern of another tenant overlaps this one. `ordered` are the owned ones, sorted."""
    for broader in covering(pattern):
        if broader in owners:
            return f"{pattern} lies below {broader}, which belongs to tenant {owners[broader]}"
    if pattern.endswith("/*"):
        place = bisect_left(ordered, pattern[:-1])
        if place < len(ordered) and ordered[place].startswith(pattern[:-1]):
            other = ordered[place]
            return f"{pattern} covers {other}, which belongs to tenant {owners[other]}"
    return None


def covering(pattern: Pattern) -> tuple[Pattern, ...]:
    """Return the broader patterns that cover one, most specific first: `a/*` covers `a/b/*` and `a/b`."""
    return ancestors(ModelId(pattern.removesuffix("/*")))[1:]
