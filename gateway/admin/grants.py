"""Operations on grants: list, read, create, remove.

The id of a grant is its tenant and its own id, with a colon between: ids are unique within a tenant, and a
grant is found by its id without a search through all tenants. All grants of a tenant are one record, whose
generation is the ETag of each of them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.admin.call import Reply, changed, created, impossible
from gateway.admin.documents import (
    Forcing,
    Grant,
    GrantNew,
    GrantsNamed,
    PagedOfOwners,
    PagedOfTenant,
    Waiting,
    moment,
)
from gateway.admin.operation import Operation
from gateway.admin.pages import Page, cut, walk
from gateway.directory.edits import grants as edits
from gateway.model.access import Action
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.names import (
    TenantId,
    parse_group_name,
    parse_package_id,
    parse_pattern,
    parse_tenant_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.admin.call import Call, Find
    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.directory.reading.listing import Listing
    from gateway.model import facts

T = TypeVar("T")

MAX_ID_CHARACTERS = 64


def parse_grant(text: str) -> str:
    """The id of a grant: tenant, colon, the grant's own id. Raises `BadNameError`."""
    tenant, colon, grant_id = text.partition(":")
    parse_tenant_id(tenant)
    is_plain = grant_id.isascii() and grant_id.replace("_", "").isalnum()
    if not colon or not is_plain or len(grant_id) > MAX_ID_CHARACTERS:
        raise BadNameError("not the id of a grant: expected TENANT:GRANT")
    return text


def _split(text: str) -> tuple[TenantId, str]:
    tenant, _, grant_id = text.partition(":")
    return TenantId(tenant), grant_id


def _document(grant: facts.Grant, tenant: TenantId, generation: int, now: float) -> Grant:
    return Grant(
        id=f"{tenant}:{grant.grant_id}",
        tenant=tenant,
        grant_id=grant.grant_id,
        models=grant.models,
        groups=grant.groups,
        packages=grant.packages,
        actions=sorted(grant.actions),
        state=grant.state_at(now),
        not_before=moment(grant.not_before),
        expires_at=moment(grant.expires_at),
        source=grant.source,
        generation=generation,
    )


async def _find_held(call: Call, facts_now: Listing, tenant: TenantId) -> facts.Grants | None:
    """The grants of a tenant; none that another tenant, which had its name before, left behind.

    Whoever administers its own tenant sees those of exactly this tenant, and no more once it was removed.
    """
    found, owner = await facts_now.find_grants(tenant), await facts_now.find_tenant(tenant)
    if found is None or owner is None or found.tenant_record != owner.record_id:
        return None
    whose = owner.tenant_id, owner.record_id
    is_shown = call.own is None or whose == (call.principal.tenant, call.principal.tenant_record)
    return found if is_shown else None


def _find_tag(call: Call, tenant: TenantId) -> Find:
    async def find(facts_now: Listing) -> str | None:
        found = await _find_held(call, facts_now, tenant)
        return None if found is None else str(found.generation)

    return find


async def list_grants(call: Call) -> Reply:
    """A page of grants, tenant by tenant, each by id."""
    query = call.query

    async def page_of(
        owner: TenantId | None, after: str | None, limit: int
    ) -> tuple[list[Grant], str | None]:
        if owner is None:
            return [], None
        held = await _find_held(call, call.listing, owner)
        if held is None:
            return [], None
        found = [
            (grant.grant_id, _document(grant, owner, held.generation, call.now)) for grant in held.grants
        ]
        page, is_more = cut(sorted(found, key=lambda one: one[0]), after, limit)
        return [one for _, one in page], page[-1][0] if is_more and page else None

    only = call.own
    if only is None and query.tenant is not None:
        only = parse_tenant_id(query.tenant)
    page = await walk(call.listing, page_of, after=query.after, limit=query.limit, only=only)
    return Reply(document=page, next_after=page.after)


async def read_grant(call: Call) -> Reply:
    """One grant."""
    tenant, grant_id = _split(call.id)
    held = await _find_held(call, call.listing, tenant)
    if held is None:
        raise Refusal(Reason.ABSENT)
    for grant in held.grants:
        if grant.grant_id == grant_id:
            document = _document(grant, tenant, held.generation, call.now)
            return Reply(document=document, generation=held.generation)
    raise Refusal(Reason.ABSENT)


async def create_grant(call: Call) -> Reply:
    """A right on each pattern and group. One that is there already is extended, or stays as it is."""
    body = call.body
    tenant = parse_tenant_id(body.tenant)
    is_single = not (body.models or body.groups)
    if is_single and (body.model is None) == (body.group is None):
        raise impossible("/model", "name a model or a group, and not both")
    if not is_single and not (body.model is None and body.group is None):
        raise impossible("/models", "name one model or group, or lists of them")
    if is_single:
        models = [] if body.model is None else _parsed("/model", parse_pattern, [body.model])
        groups = [] if body.group is None else [parse_group_name(body.group)]
    else:
        models = _parsed("/models", parse_pattern, body.models)
        groups = [parse_group_name(one) for one in body.groups]
    packages = _parsed("/packages", parse_package_id, body.packages)
    not_before, expires_at = period_of(body, call.now)
    made: list[str] = []

    async def edit(changes: Changes) -> Effect:
        if await changes.find_tenant(tenant) is None:
            raise impossible("/tenant", f"there is no tenant {tenant}")
        effect = await edits.add_grants(
            changes,
            tenant_id=tenant,
            models=models,
            groups=groups,
            packages=packages,
            actions=body.actions,
            not_before=not_before,
            expires_at=expires_at,
            now=call.now,
        )
        narrowed = set(packages)
        held = await _find_held(call, changes, tenant)
        made[:] = [
            f"{tenant}:{one.grant_id}"
            for one in (() if held is None else held.grants)
            if (set(models) & set(one.models) or set(groups) & set(one.groups))
            and set(one.packages) == narrowed
            and set(body.actions) <= one.actions
        ]
        return effect

    subject = (*models, *(f"group {one}" for one in groups), *(f"action {one}" for one in body.actions))
    done = await call.change(edit, tenant=tenant, subject=subject, made=str(tenant), status=201)
    if not is_single:
        reply = changed(done, call, made=str(tenant))
        return created(reply, f"/grants?tenant={tenant}") if done.result.is_changed else reply
    reply = changed(done, call, made=made[0] if made else None)
    return created(reply, f"/grants/{made[0]}") if done.result.is_changed and made else reply


async def remove_named(call: Call) -> Reply:
    """Take rights on exactly these patterns and groups away, as `cachegate grants remove` does."""
    body = call.body
    tenant = parse_tenant_id(body.tenant)
    if not (body.models or body.groups):
        raise impossible("/models", "name at least one model, prefix or group")
    models = _parsed("/models", parse_pattern, body.models)
    groups = [parse_group_name(one) for one in body.groups]
    packages = _parsed("/packages", parse_package_id, body.packages)
    edit = partial(
        edits.remove_grants,
        tenant_id=tenant,
        models=models,
        groups=groups,
        packages=packages or None,
        actions=body.actions or None,
        force=call.query.force,
    )
    subject = (
        *models,
        *(f"group {one}" for one in groups),
        *(f"package {one}" for one in packages),
        *(f"action {one}" for one in body.actions),
    )
    done = await call.change(edit, tenant=tenant, subject=subject, made=str(tenant), may_miss=True)
    return changed(done, call, made=str(tenant))


def period_of(body: Any, now: float) -> tuple[float | None, float | None]:
    """The times that a body names. Raises `Refusal` for an end that is none."""
    begins, ends = body.not_before, body.expires_at
    not_before = None if begins is None else begins.timestamp()
    expires_at = None if ends is None else ends.timestamp()
    if expires_at is not None and expires_at <= max(now, not_before or now):
        raise impossible("/expires_at", "it lies ahead of now and of not_before")
    return not_before, expires_at


def _parsed(pointer: str, parse: Callable[[str], T], texts: Sequence[str]) -> list[T]:
    try:
        return [parse(one) for one in texts]
    except BadNameError as error:
        raise impossible(pointer, error) from error


async def remove_grant(call: Call) -> Reply:
    """Take one grant away."""
    tenant, grant_id = _split(call.id)

    async def edit(changes: Changes) -> Effect:
        if await _find_held(call, changes, tenant) is None:
            raise Refusal(Reason.ABSENT)
        return await edits.remove_grant(changes, tenant_id=tenant, grant_id=grant_id)

    done = await call.change(
        edit, find=_find_tag(call, tenant), tenant=tenant, subject=(grant_id,), made=call.id
    )
    return changed(done, call, made=call.id)


def _operations(*, is_own: bool) -> tuple[Operation, ...]:
    listed = Operation(
        action=Action.GRANTS_LIST,
        method="GET",
        path="/grants",
        summary="List grants, tenant by tenant.",
        handle=list_grants,
        query=PagedOfOwners if is_own else PagedOfTenant,
        reply=Page[Grant],
    )
    made = Operation(
        action=Action.GRANTS_CREATE,
        method="POST",
        path="/grants",
        summary="Grant actions (read, if none is named) on a pattern or a group.",
        handle=create_grant,
        query=Waiting,
        body=GrantNew,
        creates=True,
    )
    named = Operation(
        action=Action.GRANTS_REMOVE_NAMED,
        method="POST",
        path="/grants/remove",
        summary="Take rights on exactly these patterns and groups away: all, or some packages or actions.",
        handle=remove_named,
        query=Forcing,
        body=GrantsNamed,
        more_refusals=(Reason.FOLDER_OWNED,),
    )
    one = (
        Operation(
            action=Action.GRANTS_READ,
            method="GET",
            path="/grants/{id}",
            summary="Read a grant.",
            handle=read_grant,
            parse_id=parse_grant,
            has_etag=True,
            reply=Grant,
        ),
        Operation(
            action=Action.GRANTS_REMOVE,
            method="DELETE",
            path="/grants/{id}",
            summary="Take a grant away.",
            handle=remove_grant,
            parse_id=parse_grant,
            query=Waiting,
            has_etag=True,
            more_refusals=(Reason.FOLDER_OWNED,),
        ),
    )
    return (listed, *one) if is_own else (listed, made, named, *one)


OPERATIONS = _operations(is_own=False)
OWN_OPERATIONS = _operations(is_own=True)
