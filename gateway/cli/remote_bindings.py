"""What `cachegate bindings` shows through a running gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.cli.remote import verify_tenant
from gateway.operations.binding_listings import BindingView, unknown_issuer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.adapters.admin_client import AdminClient
    from gateway.model.names import TenantId


def list_bindings(gateway: AdminClient, issuer: str | None, tenant: TenantId | None) -> list[BindingView]:
    """The bindings of all issuers, or of one that has a document; of all tenants, or of one."""
    if tenant is not None:
        verify_tenant(gateway, tenant)
    if issuer is not None:
        known = [one["id"] for one in gateway.each("/issuers")]
        if issuer not in known:
            raise unknown_issuer(issuer, known)
    asked = {"issuer": issuer, "tenant": tenant}
    query = {name: value for name, value in asked.items() if value is not None}
    return [binding_view(one) for one in gateway.each("/bindings", **query)]


def binding_view(told: Mapping[str, Any]) -> BindingView:
    """A binding, as commands show it."""
    members = {**told, "binding_id": told["id"], "issuer": told["issuer"] or "-"}
    return msgspec.convert(members, type=BindingView)
