"""Commands through a running gateway, where CACHEGATE_URL and CACHEGATE_ADMIN_KEY say so.

The gateway carries out the same operations that a command carries out on the state folder. What comes back is
shown as the command shows its own.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.barrier import BarrierReport
from gateway.configuration.sources import load_gateway
from gateway.directory.edits.effect import Effect
from gateway.model.errors import UnknownName
from gateway.model.moments import at
from gateway.model.periods import PeriodState
from gateway.model.stores import Moment
from gateway.operations.known_names import find_nearest, unknown_tenant
from gateway.operations.listings import GrantView, KeyView, TenantView, state_of
from gateway.registrar import Done

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.adapters.admin_client import AdminClient
    from gateway.model.names import TenantId


class Sent(msgspec.Struct, frozen=True):
    """A change, as a gateway is asked for it. With `force` it also changes what the policy folder says."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    force: bool = False
    query: dict[str, str] = {}

    def by(self, gateway: AdminClient, *, wait: bool) -> dict[str, Any]:
        """Ask for it; what it came to."""
        query = {**self.query, **({"force": "true"} if self.force else {})}
        return gateway.change(self.method, self.path, self.body, wait=wait, query=query)


def find_gateway() -> AdminClient | None:
    """The gateway that commands go through; None where they work on the state folder."""
    named = load_gateway()
    if named is None:
        return None
    # Only these commands need an HTTP client.
    from gateway.adapters.admin_client import AdminClient  # noqa: PLC0415

    return AdminClient(*named)


def told_change(told: Mapping[str, Any], *, is_waited_for: bool = True) -> Done[Effect]:
    """A change, as the gateway tells it, in the form that commands show."""
    barrier = told_barrier(told["barrier"], told["generation"])
    messages = told["messages"]
    if barrier is not None and barrier.why:
        messages = messages[:-1]  # why it is not sure is the last of them
    missing = told["missing"]
    effect = Effect(
        is_changed=told["changed"],
        sentences=tuple(messages),
        missing=tuple(one["name"] for one in missing),
        known=tuple(one["nearest"] for one in missing if one["nearest"] is not None),
    )
    return Done(effect, Moment(generation=told["generation"]), barrier if is_waited_for else None)


def told_barrier(told: Mapping[str, Any] | None, generation: int) -> BarrierReport | None:
    """How a change came into force, as the gateway tells it."""
    if told is None:
        return None
    return BarrierReport(
        generation=generation,
        workers=told["workers"],
        acknowledged=told["acknowledged"],
        milliseconds=told["milliseconds"],
        is_sure=told["sure"],
        sure_in_seconds=told["sure_in_seconds"],
        held=told["held_by"],
        servers=told["servers"],
        why=told["why"],
    )


def verify_tenant(gateway: AdminClient, tenant_id: TenantId) -> None:
    """Raise `UnknownName` when there is no such tenant. One that still has keys counts as known."""
    known = [one["id"] for one in gateway.each("/tenants")]
    if tenant_id in known or any(True for _ in gateway.each("/keys", tenant=tenant_id)):
        return
    unknown, nearest = unknown_tenant(tenant_id), find_nearest(tenant_id, known)
    if nearest is not None:
        raise UnknownName("tenant", tenant_id, f"the nearest is {nearest}; {unknown.advice}")
    raise unknown


def text_of(time: str | None) -> str | None:
    """A time of the gateway, as commands show it: to the second."""
    return None if time is None else at(datetime.fromisoformat(time).timestamp())


def key_view(key: Mapping[str, Any]) -> KeyView:
    """A key, as commands show it."""
    members = {**key, "key_id": key["id"], "created_at": text_of(key["created_at"])}
    return msgspec.convert(members, type=KeyView)


def tenant_view(tenant: Mapping[str, Any]) -> TenantView:
    """A tenant, as commands show it."""
    return TenantView(
        tenant=tenant["id"],
        name=tenant["name"],
        state=state_of(is_suspended=tenant["suspended"], is_being_removed=tenant["being_removed"]),
        degraded_seconds=tenant["degraded_seconds"],
        image_hosts=tuple(tenant["image_hosts"]),
        allows=tuple(tenant["allows"]),
        created_at=tenant["created_at"],
        generation=tenant["generation"],
        source=tenant["source"],
        record_id=tenant["record"],
    )


def grant_view(grant: Mapping[str, Any]) -> GrantView:
    """A grant, as commands show it."""
    return GrantView(
        tenant=grant["tenant"],
        grant_id=grant["grant_id"],
        models=tuple(grant["models"]),
        groups=tuple(grant["groups"]),
        packages=tuple(grant["packages"]),
        actions=list(grant["actions"]),
        source=grant["source"],
        state=PeriodState(grant["state"]),
        not_before=grant["not_before"],
        expires_at=grant["expires_at"],
    )
