"""Verify names that operators type: an unknown name is an error, which suggests the nearest known one.

A mistyped tenant that answers "no key yet" reads as if there were none to revoke. So commands that read
verify the names they are given, and commands that change report what did not exist. The nearest name is for
operators alone: existence is hidden from clients (I3).
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from gateway.model.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from gateway.model.facts import Key
    from gateway.model.names import TenantId
    from gateway.operations.session import OperatorSession

MAX_COMPARED = 20_000  # names; comparing takes some ten microseconds each


def unknown_tenant(tenant_id: TenantId) -> UnknownName:
    """The error for a tenant that does not exist, from a command that creates none."""
    return UnknownName("tenant", tenant_id, "`cachegate tenants list` shows them")


async def verify_tenant(session: OperatorSession, tenant_id: TenantId) -> None:
    """Raises `UnknownName` when there is no such tenant. One that still has keys counts as known."""
    if await session.listing.find_tenant(tenant_id) is None and not await session.listing.has_keys(tenant_id):
        raise unknown_tenant(tenant_id)


async def find_membership(session: OperatorSession, tenant_id: TenantId | None) -> Callable[[Key], bool]:
    """What tells a tenant's own keys from those of an earlier tenant of its name; None: every key counts.

    Where nobody has the name now, all its keys are those of removed tenants, and all count.
    """
    tenant = None if tenant_id is None else await session.listing.find_tenant(tenant_id)
    return lambda key: tenant is None or key.tenant_record == tenant.record_id


async def with_nearest(session: OperatorSession, unknown: UnknownName) -> UnknownName:
    """The same error, with the nearest name of its kind in front of the advice."""
    match unknown.kind:
        case "tenant":
            known: Collection[str] = [tenant.tenant_id for tenant in await session.listing.list_tenants()]
        case "key":
            owners = [None, *(tenant.tenant_id for tenant in await session.listing.list_tenants())]
            known = await session.listing.list_key_ids(owners)
        case "binding":
            known = [binding.binding_id for binding in await session.listing.list_all_bindings()]
        case _:
            known = ()
    nearest = find_nearest(unknown.name, known)
    if nearest is None:
        return unknown
    return UnknownName(unknown.kind, unknown.name, f"the nearest is {nearest}; {unknown.advice}")


def find_nearest(name: str, known: Collection[str]) -> str | None:
    """The name most similar to this one, if any is."""
    if len(known) > MAX_COMPARED:
        return None
    found = get_close_matches(name, known, n=1)
    return found[0] if found else None
