"""Off-boarding: remove a tenant, restore it, list what was removed.

A removal is a row of changes, each recorded, and so is a restoration. One that was interrupted is sent again
and goes on with what is left; so neither takes an Idempotency-Key, and neither is a change of one state,
which If-Match could name. The first change refuses all keys of the tenant, and is waited for by itself.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.admin.call import Reply, barrier_told
from gateway.admin.documents import (
    RemovalDone,
    RemovalPlan,
    RemovedTenant,
    TenantRemoved,
    TenantRestored,
    moment,
)
from gateway.admin.pages import Page
from gateway.model.errors import Reason, Refusal, UnknownName
from gateway.model.names import parse_tenant_id
from gateway.model.roles import DAY_SECONDS
from gateway.operations import removal

if TYPE_CHECKING:
    from gateway.admin.call import Call
    from gateway.barrier import BarrierReport

NOT_REMOVED = "This tenant is there, and no removal of it can be taken back."


async def remove_tenant(call: Call) -> Reply:
    """Remove a tenant, or show what that would take."""
    tenant_id, query = parse_tenant_id(call.id), call.query
    seconds = query.restorable_days * DAY_SECONDS
    if query.dry_run:
        plan = await removal.plan_removal(call.session, tenant_id, seconds, call.catalogue)
        document = TenantRemoved(
            id=tenant_id,
            changed=False,
            generation=None,
            sure=True,
            sure_at=None,
            messages=[],
            barrier=None,
            plan=_told(plan, RemovalPlan),
            done=None,
        )
        return Reply(document=document)
    done = await removal.remove_tenant(call.beginning, tenant_id, seconds, call.catalogue)
    document = TenantRemoved(
        id=tenant_id,
        changed=True,
        generation=done.generation,
        **_sureness(call, done.barrier),
        plan=_told(done.plan, RemovalPlan),
        done=_told(done, RemovalDone),
    )
    return Reply(document=document, status=_status(done.barrier))


async def restore_tenant(call: Call) -> Reply:
    """Give back what the last removal of a tenant took, or the one that is named."""
    tenant_id = parse_tenant_id(call.id)
    try:
        done = await removal.restore_tenant(call.beginning, tenant_id, call.body.removal)
    except UnknownName as error:
        is_there = await call.listing.find_tenant(tenant_id) is not None
        if is_there and call.body.removal is None:
            raise Refusal(Reason.CONFLICT, client_detail=NOT_REMOVED) from error
        raise Refusal(Reason.ABSENT) from error
    document = TenantRestored(
        id=tenant_id,
        changed=True,
        generation=done.generation,
        **_sureness(call, done.barrier),
        record=done.record_id,
        removal_id=done.removal_id,
        facts=done.facts,
        left=done.left,
        keys=done.keys,
        bindings=done.bindings,
    )
    return Reply(document=document, status=_status(done.barrier))


async def list_removed_tenants(call: Call) -> Reply:
    """A page of removals, the oldest first. A place in the list is the id of a removal."""
    found = await removal.list_removed(call.session)
    ids = [one.removal_id for one in found]
    after = call.query.after
    if after is not None and after not in ids:
        raise Refusal(Reason.IMPOSSIBLE_VALUE, client_detail="There is no such removal to go on from.")
    start = 0 if after is None else ids.index(after) + 1
    page = found[start : start + call.query.limit]
    further = page[-1].removal_id if page and start + len(page) < len(found) else None
    items = [_told(one, RemovedTenant) for one in page]
    return Reply(document=Page(items=items, after=further), next_after=further)


def _told(value: msgspec.Struct, kind: Any) -> Any:
    """A value of the operations as it is answered: the members that both have."""
    return msgspec.convert(msgspec.to_builtins(value), type=kind)


def _sureness(call: Call, barrier: BarrierReport | None) -> dict[str, Any]:
    is_sure = barrier is not None and barrier.is_sure
    waits = None if barrier is None or is_sure else barrier.sure_in_seconds
    return {
        "sure": is_sure,
        "sure_at": None if waits is None else moment(call.session.clock.now() + waits + 1.0),
        "messages": [barrier.why] if barrier is not None and barrier.why else [],
        "barrier": None if barrier is None else barrier_told(barrier),
    }


def _status(barrier: BarrierReport | None) -> int:
    return HTTPStatus.OK if barrier is not None and barrier.is_sure else HTTPStatus.ACCEPTED
