"""Operations on what is said of models: rules of patterns, aliases, groups.

Patterns and model ids stand in bodies and queries, and never in paths: a slash does not survive every proxy.
The id of a rule is its pattern in the letters of base64url.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import partial
from typing import TYPE_CHECKING

from msgspec import UNSET

from gateway.admin.call import Reply, changed, created, impossible
from gateway.admin.documents import (
    Alias,
    AliasNew,
    AliasQuery,
    Group,
    GroupPatterns,
    ModelRule,
    ModelRuleNew,
    ModelRulePatch,
    OwnershipMove,
    Paged,
    Waiting,
)
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
    parse_group_name,
    parse_model_id,
    parse_pattern,
    parse_tenant_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from gateway.admin.call import Call, Find
    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.directory.reading.listing import Listing
    from gateway.model import facts
    from gateway.model.names import ModelId

RULE_PREFIX = "rule_"


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


def _document(rule: facts.ModelRule) -> ModelRule:
    return ModelRule(
        id=rule_id(rule.pattern),
        pattern=rule.pattern,
        owner=rule.owner,
        owner_record=rule.owner_record,
        visibility=rule.visibility,
        groups=rule.groups,
        source=rule.source,
        generation=rule.generation,
    )


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
    found = await call.listing.find_rules(patterns)
    after = patterns[-1] if is_more and patterns else None
    return Reply(document=Page(items=[_document(one) for one in found], after=after), next_after=after)


async def read_rule(call: Call) -> Reply:
    """One rule."""
    found = await call.listing.find_rule(pattern_of(call.id))
    if found is None:
        raise Refusal(Reason.ABSENT)
    return Reply(document=_document(found), generation=found.generation)


async def create_rule(call: Call) -> Reply:
    """Say something of a pattern that nothing was said of."""
    body = call.body
    pattern = _parsed("/pattern", parse_pattern, body.pattern)
    if body.owner is None and body.visibility is None:
        raise impossible("/owner", "say an owner, a visibility, or both")

    async def edit(changes: Changes) -> Effect:
        if await changes.find_rule(pattern) is not None:
            raise Refusal(Reason.CONFLICT, client_detail="There is a rule for this pattern: change it.")
        return await _said(changes, pattern, body.owner or UNSET, body.visibility or UNSET)

    location = f"/model-rules/{rule_id(pattern)}"
    done = await call.change(
        edit, tenant=None, subject=(pattern,), made=rule_id(pattern), location=location, status=201
    )
    return created(changed(done, call, made=rule_id(pattern)), location)


async def change_rule(call: Call) -> Reply:
    """Change owner and visibility of a pattern, both or neither."""
    pattern = pattern_of(call.id)

    async def edit(changes: Changes) -> Effect:
        if await changes.find_rule(pattern) is None:
            raise Refusal(Reason.ABSENT)
        return await _said(changes, pattern, call.body.owner, call.body.visibility)

    done = await call.change(edit, find=_find_tag(pattern), subject=(pattern,), made=call.id)
    return changed(done, call, made=call.id)


async def move_rules(call: Call) -> Reply:
    """Give what one tenant owns to another, in one transaction; all else that is said of it stays."""
    body = call.body
    patterns = [_parsed(f"/patterns/{nth}", parse_pattern, one) for nth, one in enumerate(body.patterns)]
    giving, taking = parse_tenant_id(body.from_tenant), parse_tenant_id(body.to_tenant)

    async def edit(changes: Changes) -> Effect:
        for pointer, tenant in (("/from_tenant", giving), ("/to_tenant", taking)):
            if await changes.find_tenant(tenant) is None:
                raise impossible(pointer, f"there is no tenant {tenant}")
        effect = await edits.move(changes, from_tenant=giving, to_tenant=taking, patterns=patterns)
        if not effect.is_changed:
            raise Refusal(Reason.CONFLICT, client_detail=" ".join(effect.sentences))
        return effect

    named = patterns or ["all that it owns"]
    subject = (f"from {giving}", f"to {taking}", *named)
    done = await call.change(edit, tenant=taking, subject=subject, made=taking)
    return changed(done, call, made=taking)


async def _said(changes: Changes, pattern: Pattern, owner: Any, visibility: Any) -> Effect:
    """Edit the rule of a pattern; what is unset stays, and None takes away."""
    effects = []
    known = await changes.find_rule(pattern)
    if owner is not UNSET and known is not None and known.owner not in {None, owner}:
        effects.append(await edits.disown(changes, tenant_id=known.owner, patterns=[pattern]))
    if owner not in {UNSET, None}:
        tenant = parse_tenant_id(owner)
        if await changes.find_tenant(tenant) is None:
            raise impossible("/owner", f"there is no tenant {tenant}")
        effects.append(await edits.own(changes, tenant_id=tenant, patterns=[pattern]))
    match visibility:
        case Visibility.PUBLIC:
            effects.append(await edits.publish(changes, patterns=[pattern]))
        case Visibility.PRIVATE:
            effects.append(await edits.unpublish(changes, patterns=[pattern]))
        case None:
            effects.append(await edits.say_nothing_of_visibility(changes, patterns=[pattern]))
    return together(effects)


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
    edit = partial(edits.add_alias, alias=alias, canonical=model)
    done = await call.change(edit, find=_find_alias_tag(alias), subject=(alias, model), made=alias)
    return changed(done, call, made=alias)


async def remove_alias(call: Call) -> Reply:
    """Remove an alias."""
    try:
        alias = parse_model_id(call.query.alias)
    except BadNameError as error:
        raise Refusal(Reason.IMPOSSIBLE_VALUE, client_detail=str(error)) from error
    edit = partial(edits.remove_alias, alias=alias)
    done = await call.change(edit, find=_find_alias_tag(alias), subject=(alias,), made=alias)
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
    patterns = [_parsed(f"/patterns/{nth}", parse_pattern, one) for nth, one in enumerate(call.body.patterns)]
    group = parse_group_name(call.id)
    bound = partial(edit, group=group, patterns=list(dict.fromkeys(patterns)))
    done = await call.change(bound, subject=(f"group {group}", *patterns), made=group)
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
        query=Waiting,
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
        query=Waiting,
        body=OwnershipMove,
        more_refusals=(Reason.FOLDER_OWNED,),
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
        query=Waiting,
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
        query=Waiting,
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
        more_refusals=(Reason.FOLDER_OWNED, Reason.ABSENT, Reason.IMPOSSIBLE_VALUE),
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
        query=Waiting,
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
        query=Waiting,
        body=GroupPatterns,
        more_refusals=(Reason.FOLDER_OWNED,),
    ),
)
