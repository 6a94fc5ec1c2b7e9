"""What `cachegate tenants` does through a running gateway beside single changes: show, remove, restore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET
from msgspec.structs import asdict, replace

from gateway.cli.remote import grant_view, tenant_view, told_barrier, verify_tenant
from gateway.operations.listings import TenantRecord, without_redis
from gateway.operations.removal import LostGrants, OnDisk, RemovalPlan, RemovalView, Removed, Restored

if TYPE_CHECKING:
    from gateway.adapters.admin_client import AdminClient
    from gateway.model.names import TenantId

SECONDS = 600.0  # a removal is a row of changes, longer the more a tenant has
DAY_SECONDS = 86_400.0


def find_tenant(gateway: AdminClient, tenant_id: TenantId) -> TenantRecord:
    """One tenant, what it owns, what it was granted, its keys."""
    verify_tenant(gateway, tenant_id)
    tenant = gateway.get(f"/tenants/{tenant_id}")
    owner = tenant["id"], tenant["record"]
    rules = gateway.each("/model-rules")
    keys = sorted(gateway.each("/keys", tenant=tenant_id), key=lambda key: (key["created_at"], key["id"]))
    return TenantRecord(
        **asdict(tenant_view(tenant)),
        without_redis=without_redis(tenant["degraded_seconds"]),
        owns=[rule["pattern"] for rule in rules if (rule["owner"], rule["owner_record"]) == owner],
        grants=[replace(grant_view(one), tenant=UNSET) for one in gateway.each("/grants", tenant=tenant_id)],
        keys=[key["id"] for key in keys],
    )


def plan_removal(gateway: AdminClient, tenant_id: TenantId, seconds: float) -> RemovalPlan:
    """What removing a tenant would take now."""
    return _plan(_remove(gateway, tenant_id, seconds, is_dry=True)["plan"])


def remove_tenant(gateway: AdminClient, tenant_id: TenantId, seconds: float) -> Removed:
    """Remove a tenant, or go on with its removal."""
    answer = _remove(gateway, tenant_id, seconds, is_dry=False)
    barrier = told_barrier(answer["barrier"], answer["generation"])
    done = {**answer["done"], "generation": answer["generation"], "barrier": barrier}
    return Removed(plan=_plan(answer["plan"]), **done)


def restore_tenant(gateway: AdminClient, tenant_id: TenantId, removal_id: str | None) -> Restored:
    """Give back what the last removal of a tenant took, or the one that is named."""
    body = {"removal": removal_id}
    answer = gateway.change("POST", f"/tenants/{tenant_id}/restore", body, seconds=SECONDS)
    told = {name: answer[name] for name in ("removal_id", "facts", "left", "keys", "bindings", "generation")}
    barrier = told_barrier(answer["barrier"], answer["generation"])
    return Restored(tenant=tenant_id, record_id=answer["record"], barrier=barrier, **told)


def list_removed(gateway: AdminClient) -> list[RemovalView]:
    """All removals of tenants, the oldest first."""
    return [RemovalView(**one) for one in gateway.each("/removed-tenants")]


def _remove(gateway: AdminClient, tenant_id: TenantId, seconds: float, *, is_dry: bool) -> dict[str, Any]:
    days = str(seconds / DAY_SECONDS)
    path = f"/tenants/{tenant_id}/remove"
    asked = "true" if is_dry else "false"
    query = {"restorable_days": days, "dry_run": asked}
    return gateway.change("POST", path, None, seconds=SECONDS, query=query)


def _plan(told: dict[str, Any]) -> RemovalPlan:
    nested = {
        "grants_of_others": [LostGrants(**one) for one in told["grants_of_others"]],
        "on_disk": [OnDisk(**one) for one in told["on_disk"]],
        "allows": tuple(told["allows"]),
    }
    return RemovalPlan(**{**told, **nested})
