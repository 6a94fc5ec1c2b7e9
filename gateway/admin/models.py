"""Operations on what is said of models: rules of patterns, aliases, groups.

Patterns and model ids stand in bodies and queries, and never in paths: a slash does not survive every proxy.
The id of a rule is its pattern in the letters of base64url.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from gateway.admin.call import Reply, changed, created, impossible
from gateway.admin.documents import (
    Alias,
    AliasNew,
    AliasQuery,
    Forcing,
    Group,
    GroupPatterns,
    Model,
    ModelOnDisk,
    ModelQuery,
    ModelRule,
    ModelRuleNew,
    ModelRulePatch,
    ModelsPage,
    NotServed,
    OwnedPatterns,
    OwnershipMove,
    Paged,
    Patterns,
    PublishedPatterns,
    moment,
)
from gateway.admin.grants import period_of
from gateway.admin.operation import Operation
from gateway.admin.pages import Page, cut
from gateway.admin.tenants import together
from gateway.directory.edits import models as edits
from gateway.directory.records import names
from gateway.model.access import Action
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.facts import Visibility
from gateway.model.names import (
    Pattern,
    ancestors,
    parse_group_name,
    parse_model_id,
    parse_pattern,
    parse_tenant_id,
)
from gateway.model.periods import moment_text
from gateway.operations.listings import find_model, list_on_disk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from msgspec import UnsetType

    from gateway.admin.call import Call, Find
    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.directory.reading.listing import Listing
    from gateway.model import facts
    from gateway.model.names import ModelId

RULE_PREFIX = "rule_"
MAX_SKIPPED = 1_000
ONLY_PUBLISHED = "only what is public has times"


def rule_id(pattern: str) -> str:
    """The id of a pattern's rule."""
    return RULE_PREFIX + urlsafe_b64encode(pattern.encode()).decode().rstrip("=")


def parse_rule(text: str) -> str:
    """Raises `BadNameError` for what is the id of no rule."""
    pattern_of(text)
    return text


def pattern_of(text: str) -> Pattern:
    """The pattern of a rule, by its id. Raises `BadNameError`; an id has one spelling."""
    body = text.removeprefix(RULE_PREFIX)
    try:
        pattern = parse_pattern(urlsafe_b64decode(body.encode("ascii") + b"=" * (-len(body) % 4)).decode())
    except (ValueError, UnicodeError) as error:
        raise BadNameError("not the id of a rule: it is told where rules are listed") from error
    if rule_id(pattern) != text:
        raise BadNameError("not the id of a rule: it is told where rules are listed")
    return pattern


def _document(rule: facts.ModelRule, owner: facts.Tenant | None, now: float) -> ModelRule:
    return ModelRule(
        id=rule_id(rule.pattern),
        pattern=rule.pattern,
        owner=rule.owner,
        owner_record=rule.owner_record,
        owner_exists=owner is not None and owner.record_id == rule.owner_record,
        visibility=rule.visibility,
        groups=rule.groups,
        state=rule.state_at(now),
        not_before=moment(rule.not_before),
        expires_at=moment(rule.expires_at),
        source=rule.source,
        generation=rule.generation,
    )


async def _documents(call: Call, rules: Sequence[facts.ModelRule]) -> list[ModelRule]:
    owners = dict.fromkeys(rule.owner for rule in rules if rule.owner is not None)
    known = {one.tenant_id: one for one in await call.listing.find_tenants(list(owners))}
    return [
        _document(rule, None if rule.owner is None else known.get(rule.owner), call.now) for rule in rules
    ]


def _find_tag(pattern: Pattern) -> Find:
    async def find(facts_now: Listing) -> str | None:
        found = await facts_now.find_rule(pattern)
        return None if found is None else str(found.generation)

    return find


async def list_rules(call: Call) -> Reply:
    """A page of rules, by pattern."""
    patterns, is_more = await call.listing.page_of(
        names.PATTERNS, parse_pattern, after=call.query.after, limit=call.query.limit
    )
    items = await _documents(call, await call.listing.find_rules(patterns))
    after = patterns[-1] if is_more and patterns else None
    return Reply(document=Page(items=items, after=after), next_after=after)


async def read_rule(call: Call) -> Reply:
    """One rule."""
    found = await call.listing.find_rule(pattern_of(call.id))
    if found is None:
        raise Refusal(Reason.ABSENT)
    [document] = await _documents(call, [found])
    return Reply(document=document, generation=found.generation)


async def create_rule(call: Call) -> Reply:
    """Say something of a pattern that nothing was said of."""
    body = call.body
    pattern = _parsed("/pattern", parse_pattern, body.pattern)
    if body.owner is None and body.visibility is None:
        raise impossible("/owner", "say an owner, a visibility, or both")
    if body.visibility is not Visibility.PUBLIC and not (body.not_before is body.expires_at is None):
        raise impossible("/visibility", ONLY_PUBLISHED)
    period = period_of(body, call.now)

    async def edit(changes: Changes) -> Effect:
        if await changes.find_rule(pattern) is not None:
            raise Refusal(Reason.CONFLICT, client_detail="There is a rule for this pattern: change it.")
        said = body.owner or UNSET, body.visibility or UNSET
        return await _said(changes, pattern, *said, period=period, now=call.now, force=call.query.force)

    location = f"/model-rules/{rule_id(pattern)}"
    subject = (pattern, *_said_times(body.not_before, body.expires_at))
    done = await call.change(
        edit, tenant=None, subject=subject, made=rule_id(pattern), location=location, status=201
    )
    return created(changed(done, call, made=rule_id(pattern)), location)


async def change_rule(call: Call) -> Reply:
    """Change owner and visibility of a pattern, both or neither."""
    pattern, body = pattern_of(call.id), call.body
    said_times = body.not_before, body.expires_at
    are_times_said = any(one is not UNSET for one in said_times)
    are_times_named = any(isinstance(one, datetime) for one in said_times)

    async def edit(changes: Changes) -> Effect:
        known = await changes.find_rule(pattern)
        if known is None:
            raise Refusal(Reason.ABSENT)
        visibility = body.visibility
        if are_times_said and visibility is UNSET and known.visibility is Visibility.PUBLIC:
            visibility = Visibility.PUBLIC
        if are_times_named and visibility is not Visibility.PUBLIC:  # null takes away what is not there
            raise impossible("/visibility", ONLY_PUBLISHED)
        is_public = visibility is Visibility.PUBLIC
        period = _period_after(body, known, call.now) if is_public else (None, None)
        said = body.owner, visibility
        return await _said(changes, pattern, *said, period=period, now=call.now, force=call.query.force)

    subject = (pattern, *_said_times(body.not_before, body.expires_at))
    done = await call.change(edit, find=_find_tag(pattern), subject=subject, made=call.id)
    return changed(done, call, made=call.id)


async def move_rules(call: Call) -> Reply:
    """Give what one tenant owns to another, in one transaction; all else that is said of it stays.

    Where one of the patterns is not its own, nothing is moved, and the answer names it.
    """
    body = call.body
    patterns = _patterns(body.patterns)
    giving, taking = parse_tenant_id(body.from_tenant), parse_tenant_id(body.to_tenant)

    async def edit(changes: Changes) -> Effect:
        for pointer, tenant in (("/from_tenant", giving), ("/to_tenant", taking)):
            if await changes.find_tenant(tenant) is None:
                raise impossible(pointer, f"there is no tenant {tenant}")
        force = call.query.force
        return await edits.move(changes, from_tenant=giving, to_tenant=taking, patterns=patterns, force=force)

    named: list[str] = [*patterns] or ["all that it owns"]
    subject = (f"from {giving}", f"to {taking}", *named)
    done = await call.change(edit, tenant=taking, subject=subject, made=taking, may_miss=True)
    return changed(done, call, made=taking)


def _period_after(
    body: ModelRulePatch, known: facts.ModelRule, now: float
) -> tuple[float | None, float | None]:
    """The period of a publication after a change: of its times, those that are left out stay."""

    def after(said: datetime | UnsetType | None, before: float | None) -> float | None:
        if said is UNSET:
            return before
        return said.timestamp() if isinstance(said, datetime) else None

    not_before = after(body.not_before, known.not_before)
    expires_at = after(body.expires_at, known.expires_at)
    if expires_at is not None and expires_at <= max(now, not_before or now):
        raise impossible("/expires_at", "it lies ahead of now and of not_before")
    return not_before, expires_at


async def _said(
    changes: Changes,
    pattern: Pattern,
    owner: Any,
    visibility: Any,
    *,
    period: tuple[float | None, float | None],
    now: float,
    force: bool,
) -> Effect:
    """Edit the rule of a pattern; what is unset stays, and None takes away."""
    effects = []
    known = await changes.find_rule(pattern)
    if owner is not UNSET and known is not None and known.owner not in {None, owner}:
        effects.append(await edits.disown(changes, tenant_id=known.owner, patterns=[pattern], force=force))
    if owner not in {UNSET, None}:
        tenant = parse_tenant_id(owner)
        if await changes.find_tenant(tenant) is None:
            raise impossible("/owner", f"there is no tenant {tenant}")
        effects.append(await edits.own(changes, tenant_id=tenant, patterns=[pattern], force=force))
    match visibility:
        case Visibility.PUBLIC:
            times = {"not_before": period[0], "expires_at": period[1], "now": now}
            effects.append(await edits.publish(changes, patterns=[pattern], force=force, **times))
        case Visibility.PRIVATE:
            effects.append(await edits.unpublish(changes, patterns=[pattern], force=force))
        case None:
            edit = edits.say_nothing_of_visibility
            effects.append(await edit(changes, patterns=[pattern], force=force))
    return together(effects)


async def own_patterns(call: Call) -> Reply:
    """Make a tenant the owner of several patterns, in one transaction."""
    return await _of_owner(call, edits.own)


async def disown_patterns(call: Call) -> Reply:
    """Take several patterns from their owner; what was not its is told, the rest is done."""
    return await _of_owner(call, edits.disown)


async def publish_patterns(call: Call) -> Reply:
    """Let every tenant read several patterns, perhaps for a time."""
    not_before, expires_at = period_of(call.body, call.now)
    edit = partial(edits.publish, not_before=not_before, expires_at=expires_at, now=call.now)
    return await _of_patterns(call, edit, *_said_times(call.body.not_before, call.body.expires_at))


async def unpublish_patterns(call: Call) -> Reply:
    """Make several patterns private."""
    return await _of_patterns(call, edits.unpublish)


def _said_times(not_before: object, expires_at: object) -> list[str]:
    """What the record of a change has of the times that were named."""
    times = (("from", not_before), ("until", expires_at))
    return [f"{word} {moment_text(time.timestamp())}" for word, time in times if isinstance(time, datetime)]


async def _of_owner(call: Call, edit: Callable[..., Awaitable[Effect]]) -> Reply:
    tenant = parse_tenant_id(call.body.tenant)
    return await _of_patterns(call, partial(edit, tenant_id=tenant), tenant=tenant)


async def _of_patterns(
    call: Call, edit: Callable[..., Awaitable[Effect]], *said: str, tenant: str | None = None
) -> Reply:
    patterns = _patterns(call.body.patterns)
    bound = partial(edit, patterns=patterns, force=call.query.force)
    done = await call.change(bound, tenant=tenant, subject=(*said, *patterns), made=tenant, may_miss=True)
    return changed(done, call, made=tenant)


def _patterns(texts: Sequence[str]) -> list[Pattern]:
    return [_parsed(f"/patterns/{nth}", parse_pattern, one) for nth, one in enumerate(texts)]


# Models


async def list_models(call: Call) -> Reply:
    """A page of the models on disk, as the last scan found them, with what the rules say of each."""
    survey, query = call.catalogue.state().survey, call.query
    start = 0 if query.after is None else bisect_right(survey.models, query.after)
    models = survey.models[start : start + query.limit]
    after = models[-1] if models and start + len(models) < len(survey.models) else None
    patterns = dict.fromkeys(pattern for model in models for pattern in ancestors(model))
    rules = {one.pattern: one for one in await call.listing.find_rules(list(patterns))}
    found = await list_on_disk(call.catalogue, models, rules, call.now)
    document = ModelsPage(
        items=msgspec.convert(msgspec.to_builtins(found), type=list[ModelOnDisk]),
        after=after,
        cache_root=str(call.session.settings.cache_root),
        problem=survey.problem,
        skipped=[NotServed(where=one.where, why=one.why) for one in survey.skipped[:MAX_SKIPPED]],
    )
    return Reply(document=document, next_after=after)


async def read_model(call: Call) -> Reply:
    """One model: the rules about it, who may read it, and what of it is on disk.

    All grants are read for it: one at a time in each worker.
    """
    model = _parsed_query(call.query.model)
    if _READING:
        raise Refusal(Reason.BUSY)
    _READING.add(model)
    # A client that leaves ends nothing: the nearest name is looked for in a thread, which goes on.
    finding = asyncio.ensure_future(find_model(call.session, model, call.catalogue))
    finding.add_done_callback(lambda _: _READING.discard(model))
    found = await asyncio.shield(finding)
    return Reply(document=msgspec.convert(msgspec.to_builtins(found), type=Model))


_READING: set[str] = set()
"""The model that this worker reads now."""


def _parsed_query(text: str) -> ModelId:
    try:
        return parse_model_id(text)
    except BadNameError as error:
        raise Refusal(Reason.IMPOSSIBLE_VALUE, client_detail=str(error)) from error


# Aliases


async def list_aliases(call: Call) -> Reply:
    """A page of aliases, by name."""
    aliases, is_more = await call.listing.page_of(
        names.ALIASES, parse_model_id, after=call.query.after, limit=call.query.limit
    )
    items = [
        Alias(alias=one.alias, model=one.canonical, source=one.source, generation=one.generation)
        for one in await call.listing.find_aliases(aliases)
    ]
    after = aliases[-1] if is_more and aliases else None
    return Reply(document=Page(items=items, after=after), next_after=after)


async def create_alias(call: Call) -> Reply:
    """Add an alias of a model; one that exists is pointed to another."""
    alias = _parsed("/alias", parse_model_id, call.body.alias)
    model = _parsed("/model", parse_model_id, call.body.model)
    edit = partial(edits.add_alias, alias=alias, canonical=model, force=call.query.force)
    done = await call.change(edit, find=_find_alias_tag(alias), subject=(alias, model), made=alias)
    return changed(done, call, made=alias)


async def remove_alias(call: Call) -> Reply:
    """Remove an alias; one that is not there is told as missing."""
    alias = _parsed_query(call.query.alias)
    edit = partial(edits.remove_alias, alias=alias, force=call.query.force)
    done = await call.change(edit, find=_find_alias_tag(alias), subject=(alias,), made=alias, may_miss=True)
    return changed(done, call, made=alias)


def _find_alias_tag(alias: ModelId) -> Find:
    async def find(facts_now: Listing) -> str | None:
        found = await facts_now.find_alias(alias)
        return None if found is None else str(found.generation)

    return find


# Groups


async def list_groups(call: Call) -> Reply:
    """A page of groups, by name."""
    grouped = await _groups(call.listing)
    found = [(name, Group(id=name, patterns=patterns)) for name, patterns in sorted(grouped.items())]
    page, is_more = cut(found, call.query.after, call.query.limit)
    after = page[-1][0] if is_more else None
    return Reply(document=Page(items=[one for _, one in page], after=after), next_after=after)


async def read_group(call: Call) -> Reply:
    """One group; one that no rule names is absent."""
    patterns = (await _groups(call.listing)).get(call.id)
    if patterns is None:
        raise Refusal(Reason.ABSENT)
    return Reply(document=Group(id=call.id, patterns=patterns))


async def add_patterns(call: Call) -> Reply:
    """Put patterns into a group."""
    return await _regroup(call, edits.add_to_group)


async def remove_patterns(call: Call) -> Reply:
    """Take patterns out of a group."""
    return await _regroup(call, edits.remove_from_group)


async def _regroup(call: Call, edit: Any) -> Reply:
    patterns = _patterns(call.body.patterns)
    group = parse_group_name(call.id)
    bound = partial(edit, group=group, patterns=list(dict.fromkeys(patterns)), force=call.query.force)
    done = await call.change(bound, subject=(f"group {group}", *patterns), made=group, may_miss=True)
    return changed(done, call, made=group)


async def _groups(facts_now: Listing) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for rule in await facts_now.list_rules():
        for group in rule.groups:
            grouped.setdefault(group, []).append(rule.pattern)
    return grouped


def _parsed(pointer: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except BadNameError as error:
        raise impossible(pointer, error) from error


OPERATIONS: Sequence[Operation] = (
    Operation(
        action=Action.MODEL_RULES_LIST,
        method="GET",
        path="/model-rules",
        summary="List what is said of patterns: owner, visibility, groups.",
        handle=list_rules,
        query=Paged,
        reply=Page[ModelRule],
    ),
    Operation(
        action=Action.MODEL_RULES_CREATE,
        method="POST",
        path="/model-rules",
        summary="Say who owns the models of a pattern, or who may read them.",
        handle=create_rule,
        query=Forcing,
        body=ModelRuleNew,
        creates=True,
        more_refusals=(Reason.FOLDER_OWNED,),
    ),
    Operation(
        action=Action.MODEL_RULES_MOVE,
        method="POST",
        path="/model-rules/move",
        summary="Give what one tenant owns to another, in one transaction.",
        handle=move_rules,
        query=Forcing,
        body=OwnershipMove,
        more_refusals=(Reason.FOLDER_OWNED,),
    ),
    *(
        Operation(
            action=action,
            method="POST",
            path=f"/model-rules/{verb}",
            summary=summary,
            handle=handle,
            query=Forcing,
            body=body,
            more_refusals=(Reason.FOLDER_OWNED,),
        )
        for action, verb, summary, handle, body in (
            (
                Action.MODEL_RULES_OWN,
                "own",
                "Make a tenant the owner of several patterns, in one transaction.",
                own_patterns,
                OwnedPatterns,
            ),
            (
                Action.MODEL_RULES_DISOWN,
                "disown",
                "Take several patterns from their owner.",
                disown_patterns,
                OwnedPatterns,
            ),
            (
                Action.MODEL_RULES_PUBLISH,
                "publish",
                "Let every tenant read the models of several patterns, perhaps for a time.",
                publish_patterns,
                PublishedPatterns,
            ),
            (
                Action.MODEL_RULES_UNPUBLISH,
                "unpublish",
                "Make the models of several patterns private.",
                unpublish_patterns,
                Patterns,
            ),
        )
    ),
    Operation(
        action=Action.MODELS_LIST,
        method="GET",
        path="/models",
        summary="List the models on disk, with owner, visibility and packages.",
        handle=list_models,
        query=Paged,
        reply=ModelsPage,
        more_refusals=(Reason.CACHE_UNAVAILABLE,),
    ),
    Operation(
        action=Action.MODELS_READ,
        method="GET",
        path="/model",
        summary="Read one model, by any of its names: its rules, its readers, its files on disk.",
        handle=read_model,
        query=ModelQuery,
        reply=Model,
        more_refusals=(Reason.IMPOSSIBLE_VALUE, Reason.BUSY, Reason.CACHE_UNAVAILABLE),
    ),
    Operation(
        action=Action.MODEL_RULES_READ,
        method="GET",
        path="/model-rules/{id}",
        summary="Read what is said of a pattern.",
        handle=read_rule,
        parse_id=parse_rule,
        has_etag=True,
        reply=ModelRule,
    ),
    Operation(
        action=Action.MODEL_RULES_CHANGE,
        method="PATCH",
        path="/model-rules/{id}",
        summary="Change owner and visibility of a pattern. A rule that says nothing is gone.",
        handle=change_rule,
        parse_id=parse_rule,
        query=Forcing,
        body=ModelRulePatch,
        has_etag=True,
        needs_match=True,
        more_refusals=(Reason.FOLDER_OWNED,),
    ),
    Operation(
        action=Action.ALIASES_LIST,
        method="GET",
        path="/aliases",
        summary="List aliases, by name.",
        handle=list_aliases,
        query=Paged,
        reply=Page[Alias],
    ),
    Operation(
        action=Action.ALIASES_CREATE,
        method="POST",
        path="/aliases",
        summary="Let a name stand for a model.",
        handle=create_alias,
        query=Forcing,
        body=AliasNew,
        has_etag=True,
        more_refusals=(Reason.FOLDER_OWNED,),
    ),
    Operation(
        action=Action.ALIASES_REMOVE,
        method="DELETE",
        path="/aliases",
        summary="Remove an alias.",
        handle=remove_alias,
        query=AliasQuery,
        has_etag=True,
        more_refusals=(Reason.FOLDER_OWNED, Reason.IMPOSSIBLE_VALUE),
    ),
    Operation(
        action=Action.GROUPS_LIST,
        method="GET",
        path="/groups",
        summary="List groups and the patterns in them.",
        handle=list_groups,
        query=Paged,
        reply=Page[Group],
    ),
    Operation(
        action=Action.GROUPS_READ,
        method="GET",
        path="/groups/{id}",
        summary="Read a group.",
        handle=read_group,
        parse_id=parse_group_name,
        reply=Group,
    ),
    Operation(
        action=Action.GROUPS_ADD,
        method="POST",
        path="/groups/{id}/add",
        summary="Put patterns into a group.",
        handle=add_patterns,
        parse_id=parse_group_name,
        query=Forcing,
        body=GroupPatterns,
        more_refusals=(Reason.FOLDER_OWNED,),
    ),
    Operation(
        action=Action.GROUPS_REMOVE,
        method="POST",
        path="/groups/{id}/remove",
        summary="Take patterns out of a group.",
        handle=remove_patterns,
        parse_id=parse_group_name,
        query=Forcing,
        body=GroupPatterns,
        more_refusals=(Reason.FOLDER_OWNED,),
    ),
)
