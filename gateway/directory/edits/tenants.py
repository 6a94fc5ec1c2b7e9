"""Creates, suspends and resumes tenants; sets degraded modes, hosts of images, what workflows may do.

A suspended tenant's keys are refused; its facts stay. An edit that restricts access is never refused because
the policy folder says otherwise, because an incident cannot wait for a file. The next `policy apply` then
reports the difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.directory.edits.effect import Effect, verify_not_from_folder
from gateway.model.access import ALLOWABLE
from gateway.model.errors import Conflict, UnknownName
from gateway.model.facts import MAX_DEGRADED_SECONDS, Tenant
from gateway.model.image_hosts import MAX_IMAGE_HOSTS, parse_image_host
from gateway.model.records import SOURCE_CLI
from gateway.model.tenant_records import new_record_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.directory.edits.changes import Changes
    from gateway.model.names import TenantId


async def create_tenant(changes: Changes, *, tenant_id: TenantId, name: str, now: float) -> Effect:
    """Create a tenant. Repeating it changes nothing; the same id with another name is a conflict.

    Of two operators at once, one creates it, and the other is told that it was there already: its record has
    one id.
    """
    known = await changes.find_tenant(tenant_id)
    if known is None:
        await changes.put_tenant(
            Tenant(
                tenant_id=tenant_id,
                name=name,
                is_suspended=False,
                created_at=now,
                record_id=new_record_id(),
            )
        )
        return Effect(is_changed=True, sentences=(f"tenant {tenant_id} created",))
    verify_not_being_removed(known)
    if known.name != name:
        raise Conflict(f"tenant {tenant_id} is there already, by the name {known.name!r}")
    return Effect(is_changed=False, sentences=(f"tenant {tenant_id} was there already",))


async def suspend_tenant(changes: Changes, *, tenant_id: TenantId) -> Effect:
    """Refuse all keys of a tenant from now on."""
    return await _set_suspended(changes, tenant_id, is_suspended=True, force=True)


async def resume_tenant(changes: Changes, *, tenant_id: TenantId, force: bool = False) -> Effect:
    """Accept the keys of a suspended tenant again."""
    return await _set_suspended(changes, tenant_id, is_suspended=False, force=force)


async def set_degraded(
    changes: Changes, *, tenant_id: TenantId, seconds: float, force: bool = False
) -> Effect:
    """Set how long a tenant is served from last known facts while Redis is unreachable; 0 for not at all."""
    if not 0 <= seconds <= MAX_DEGRADED_SECONDS:  # NaN fails this comparison
        raise Conflict("a degraded time is from 0 seconds to 1 hour: a revocation may take that long")
    tenant = await load_staying_tenant(changes, tenant_id)
    mode = f"last-known-good for {seconds:g} s" if seconds else "closed"
    if tenant.degraded_seconds == seconds:
        return Effect(is_changed=False, sentences=(f"tenant {tenant_id} was {mode} already",))
    is_closing = seconds < tenant.degraded_seconds
    verify_not_from_folder(f"tenant {tenant_id}", tenant.source, force=force or is_closing)
    await changes.put_tenant(replace(tenant, degraded_seconds=seconds, source=SOURCE_CLI))
    return Effect(is_changed=True, sentences=(f"tenant {tenant_id} is {mode} now without a lease",))


async def set_image_hosts(
    changes: Changes, *, tenant_id: TenantId, hosts: Sequence[str], force: bool = False
) -> Effect:
    """Set the hosts whose images the front door fetches for a tenant, in place of the present ones."""
    wanted = tuple(dict.fromkeys(map(parse_image_host, hosts)))
    if len(wanted) > MAX_IMAGE_HOSTS:
        raise Conflict(f"a tenant has at most {MAX_IMAGE_HOSTS} hosts of images")
    tenant = await load_staying_tenant(changes, tenant_id)
    named = " ".join(wanted) or "nowhere"
    if tenant.image_hosts == wanted:
        sentence = f"images for tenant {tenant_id} came from {named} already"
        return Effect(is_changed=False, sentences=(sentence,))
    is_closing = set(wanted) <= set(tenant.image_hosts)
    verify_not_from_folder(f"tenant {tenant_id}", tenant.source, force=force or is_closing)
    await changes.put_tenant(replace(tenant, image_hosts=wanted, source=SOURCE_CLI))
    return Effect(is_changed=True, sentences=(f"images for tenant {tenant_id} come from {named} now",))


async def set_allows(
    changes: Changes,
    *,
    tenant_id: TenantId,
    actions: Sequence[str],
    is_allowed: bool,
    force: bool = False,
) -> Effect:
    """Allow a tenant's workflows to do something beside running models, or allow it no longer."""
    if unknown := sorted(set(actions) - set(ALLOWABLE)):
        raise Conflict(f"{unknown[0]!r} is no action of a workflow: expected one of {', '.join(ALLOWABLE)}")
    tenant = await load_staying_tenant(changes, tenant_id)
    known = frozenset(tenant.allows)
    wanted = tuple(sorted(known | set(actions) if is_allowed else known - set(actions)))
    may = f"may {' '.join(wanted)}" if wanted else "may nothing but run models"
    if tenant.allows == wanted:
        return Effect(is_changed=False, sentences=(f"workflows of tenant {tenant_id} {may}, as before",))
    verify_not_from_folder(f"tenant {tenant_id}", tenant.source, force=force or not is_allowed)
    await changes.put_tenant(replace(tenant, allows=wanted, source=SOURCE_CLI))
    return Effect(is_changed=True, sentences=(f"workflows of tenant {tenant_id} {may} now",))


async def load_tenant(changes: Changes, tenant_id: TenantId) -> Tenant:
    """Return the tenant that an edit is about. Raises `UnknownName` if there is none."""
    tenant = await changes.find_tenant(tenant_id)
    if tenant is None:
        raise UnknownName("tenant", tenant_id, f"create it with `cachegate tenants create {tenant_id}`")
    return tenant


async def load_staying_tenant(changes: Changes, tenant_id: TenantId) -> Tenant:
    """Return a tenant that may be given something. Raises `Conflict` for one that is being removed."""
    tenant = await load_tenant(changes, tenant_id)
    verify_not_being_removed(tenant)
    return tenant


def verify_not_being_removed(tenant: Tenant) -> None:
    """Raise `Conflict` for a tenant that is being removed or restored: nothing of it may change meanwhile."""
    if tenant.removal is not None:
        raise Conflict(
            f"tenant {tenant.tenant_id} is being removed or restored; end that first with `cachegate tenants "
            f"remove {tenant.tenant_id} --yes` or `cachegate tenants restore {tenant.tenant_id}`"
        )


async def _set_suspended(changes: Changes, tenant_id: TenantId, *, is_suspended: bool, force: bool) -> Effect:
    tenant = await load_tenant(changes, tenant_id)
    if not is_suspended:
        verify_not_being_removed(tenant)
    state = "suspended" if is_suspended else "active"
    if tenant.is_suspended == is_suspended:
        return Effect(is_changed=False, sentences=(f"tenant {tenant_id} was {state} already",))
    verify_not_from_folder(f"tenant {tenant_id}", tenant.source, force=force)
    await changes.put_tenant(replace(tenant, is_suspended=is_suspended, source=SOURCE_CLI))
    return Effect(is_changed=True, sentences=(f"tenant {tenant_id} is {state} now",))
