"""Operations on tenants: list, read, create, change, suspend, resume, remove, restore."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec import UNSET

from gateway.admin import removals
from gateway.admin.call import Reply, changed, created
from gateway.admin.documents import (
    Forcing,
    Paged,
    RemovalQuery,
    RemovedTenant,
    Restoration,
    Tenant,
    TenantNew,
    TenantPatch,
    TenantRemoved,
    TenantRestored,
    Waiting,
    moment,
)
from gateway.admin.operation import Operation
from gateway.admin.pages import Page
from gateway.directory.edits import tenants as edits
from gateway.directory.edits.effect import Effect
from gateway.directory.records import names
from gateway.model.access import ALLOWABLE, Action
from gateway.model.errors import Reason, Refusal
from gateway.model.names import parse_tenant_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.admin.call import Call, Find
    from gateway.directory.edits.changes import Changes
    from gateway.directory.reading.listing import Listing
    from gateway.model import facts
    from gateway.model.names import TenantId


def tenant_document(tenant: facts.Tenant) -> Tenant:
    """A tenant, as it is answered."""
    return Tenant(
        id=tenant.tenant_id,
        record=tenant.record_id,
        name=tenant.name,
        suspended=tenant.is_suspended,
        being_removed=tenant.removal is not None,
        degraded_seconds=tenant.degraded_seconds,
        image_hosts=tenant.image_hosts,
        allows=tenant.allows,
        created_at=moment(tenant.created_at),
        source=tenant.source,
        generation=tenant.generation,
    )


def find_tag(tenant_id: TenantId) -> Find:
    """What finds the state of a tenant."""

    async def find(facts_now: Listing) -> str | None:
        found = await facts_now.find_tenant(tenant_id)
        return None if found is None else str(found.generation)

    return find


async def list_tenants(call: Call) -> Reply:
    """A page of tenants, by id."""
    ids, is_more = await call.listing.page_of(
        names.TENANTS, parse_tenant_id, after=call.query.after, limit=call.query.limit
    )
    found = await call.listing.find_tenants(ids)
    after = ids[-1] if is_more and ids else None
    items = [tenant_document(one) for one in found]
    return Reply(document=Page(items=items, after=after), next_after=after)


async def read_tenant(call: Call) -> Reply:
    """One tenant."""
    found = await call.listing.find_tenant(parse_tenant_id(call.id))
    if found is None:
        raise Refusal(Reason.ABSENT)
    return Reply(document=tenant_document(found), generation=found.generation)


async def create_tenant(call: Call) -> Reply:
    """A new tenant; one that is there already is a conflict."""
    tenant_id = parse_tenant_id(call.body.id)
    edit = partial(edits.create_tenant, tenant_id=tenant_id, name=call.body.name or tenant_id, now=call.now)
    location = f"/tenants/{tenant_id}"
    done = await call.change(edit, tenant=tenant_id, made=tenant_id, location=location, status=201)
    reply = changed(done, call, made=tenant_id)
    return created(reply, location) if done.result.is_changed else reply


async def change_tenant(call: Call) -> Reply:
    """Change what is named of a tenant, all of it or nothing."""
    tenant_id, patch, force = parse_tenant_id(call.id), call.body, call.query.force

    async def edit(changes: Changes) -> Effect:
        effects = []
        if patch.degraded_seconds is not UNSET:
            seconds = patch.degraded_seconds or 0.0
            effects.append(
                await edits.set_degraded(changes, tenant_id=tenant_id, seconds=seconds, force=force)
            )
        if patch.image_hosts is not UNSET:
            hosts = patch.image_hosts or ()
            effects.append(
                await edits.set_image_hosts(changes, tenant_id=tenant_id, hosts=hosts, force=force)
            )
        steps: list[tuple[Sequence[str], bool]] = []
        if patch.allows is not UNSET:
            wanted = set(patch.allows or ())
            steps += [(sorted(wanted), True), (sorted(set(ALLOWABLE) - wanted), False)]
        steps += [] if patch.allow is UNSET else [(patch.allow, True)]
        steps += [] if patch.disallow is UNSET else [(patch.disallow, False)]
        for actions, is_allowed in steps:
            effects.append(
                await edits.set_allows(
                    changes, tenant_id=tenant_id, actions=actions, is_allowed=is_allowed, force=force
                )
            )
        return together(effects)

    done = await call.change(
        edit,
        find=find_tag(tenant_id),
        tenant=tenant_id,
        subject=tuple(
            f"{name} changes" for name in patch.__struct_fields__ if getattr(patch, name) is not UNSET
        ),
        made=tenant_id,
    )
    return changed(done, call, made=tenant_id)


async def suspend_tenant(call: Call) -> Reply:
    """Refuse all keys of a tenant from now on."""
    return await _act(call, edits.suspend_tenant)


async def resume_tenant(call: Call) -> Reply:
    """Accept them again."""
    return await _act(call, partial(edits.resume_tenant, force=call.query.force))


async def _act(call: Call, edit: Callable[..., Awaitable[Effect]]) -> Reply:
    tenant_id = parse_tenant_id(call.id)
    bound = partial(edit, tenant_id=tenant_id)
    done = await call.change(bound, find=find_tag(tenant_id), tenant=tenant_id, made=tenant_id)
    return changed(done, call, made=tenant_id)


def together(effects: list[Effect]) -> Effect:
    """What several edits of one transaction came to; where one changed something, only what changed."""
    is_changed = any(one.is_changed for one in effects)
    told = [one for one in effects if one.is_changed] if is_changed else effects
    return Effect(is_changed=is_changed, sentences=tuple(text for one in told for text in one.sentences))


OPERATIONS = (
    Operation(
        action=Action.TENANTS_LIST,
        method="GET",
        path="/tenants",
        summary="List tenants, by id.",
        handle=list_tenants,
        query=Paged,
        reply=Page[Tenant],
    ),
    Operation(
        action=Action.TENANTS_CREATE,
        method="POST",
        path="/tenants",
        summary="Create a tenant. It owns nothing and has no key yet.",
        handle=create_tenant,
        query=Waiting,
        body=TenantNew,
        creates=True,
    ),
    Operation(
        action=Action.TENANTS_REMOVED,
        method="GET",
        path="/removed-tenants",
        summary="List removals of tenants, the oldest first, and until when each can be restored.",
        handle=removals.list_removed_tenants,
        query=Paged,
        reply=Page[RemovedTenant],
        more_refusals=(Reason.IMPOSSIBLE_VALUE,),
    ),
    Operation(
        action=Action.TENANTS_REMOVE,
        method="POST",
        path="/tenants/{id}/remove",
        summary="Remove a tenant, or go on with its removal; with dry_run=true show what it takes.",
        handle=removals.remove_tenant,
        parse_id=parse_tenant_id,
        query=RemovalQuery,
        reply=TenantRemoved,
        is_safe_to_repeat=True,
        more_refusals=(Reason.IMPOSSIBLE_VALUE,),
    ),
    Operation(
        action=Action.TENANTS_RESTORE,
        method="POST",
        path="/tenants/{id}/restore",
        summary="Give back what removing a tenant took. Its keys and bindings stay revoked.",
        handle=removals.restore_tenant,
        parse_id=parse_tenant_id,
        body=Restoration,
        is_body_optional=True,
        reply=TenantRestored,
        is_safe_to_repeat=True,
    ),
    Operation(
        action=Action.TENANTS_READ,
        method="GET",
        path="/tenants/{id}",
        summary="Read a tenant.",
        handle=read_tenant,
        parse_id=parse_tenant_id,
        has_etag=True,
        reply=Tenant,
    ),
    Operation(
        action=Action.TENANTS_CHANGE,
        method="PATCH",
        path="/tenants/{id}",
        summary="Change a tenant: its degraded mode, hosts of images, what its workflows may do.",
        handle=change_tenant,
        parse_id=parse_tenant_id,
        query=Forcing,
        body=TenantPatch,
        has_etag=True,
        needs_match=True,
        more_refusals=(Reason.FOLDER_OWNED,),
    ),
    Operation(
        action=Action.TENANTS_SUSPEND,
        method="POST",
        path="/tenants/{id}/suspend",
        summary="Refuse all keys of a tenant from now on, whatever the policy folder says.",
        handle=suspend_tenant,
        parse_id=parse_tenant_id,
        query=Waiting,
        has_etag=True,
    ),
    Operation(
        action=Action.TENANTS_RESUME,
        method="POST",
        path="/tenants/{id}/resume",
        summary="Accept a suspended tenant's keys again.",
        handle=resume_tenant,
        parse_id=parse_tenant_id,
        query=Forcing,
        has_etag=True,
        more_refusals=(Reason.FOLDER_OWNED,),
    ),
)
