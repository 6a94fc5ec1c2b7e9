"""`cachegate tenants`: create and edit tenants, which own models, are granted others, and have keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.barrier_view import NoWait
from gateway.cli.perform import in_session, perform
from gateway.directory.edits.tenants import (
    create_tenant,
    resume_tenant,
    set_degraded,
    suspend_tenant,
)
from gateway.identity.times import parse_duration
from gateway.model.names import parse_tenant_id
from gateway.operations.known_names import unknown_tenant
from gateway.terminal.console import AsJson, print_json, print_table, when

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.model.facts import Tenant
    from gateway.model.names import TenantId
    from gateway.operations.session import OperatorSession

commands = typer.Typer(help="Tenants: create, list, show, suspend, resume, degraded.", no_args_is_help=True)

TenantArgument = Annotated[str, typer.Argument(metavar="ID", help="The tenant's id.")]
Force = Annotated[bool, typer.Option("--force", help="Also change what the policy folder says.")]


@commands.command("create")
def create(
    tenant: TenantArgument,
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Create a tenant. It owns nothing and has no key yet."""
    tenant_id = parse_tenant_id(tenant)

    async def operation(changes: Changes, now: float) -> Effect:
        return await create_tenant(changes, tenant_id=tenant_id, name=name or tenant_id, now=now)

    _perform("tenants.create", tenant_id, operation, as_json=as_json, no_wait=no_wait)


@commands.command("suspend")
def suspend(tenant: TenantArgument, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Refuse all keys of a tenant, at once, whatever the policy folder says. Its facts stay."""
    tenant_id = parse_tenant_id(tenant)

    async def operation(changes: Changes, _now: float) -> Effect:
        return await suspend_tenant(changes, tenant_id=tenant_id)

    _perform("tenants.suspend", tenant_id, operation, as_json=as_json, no_wait=no_wait)


@commands.command("resume")
def resume(
    tenant: TenantArgument, force: Force = False, no_wait: NoWait = False, as_json: AsJson = False
) -> None:
    """Accept a suspended tenant's keys again."""
    tenant_id = parse_tenant_id(tenant)

    async def operation(changes: Changes, _now: float) -> Effect:
        return await resume_tenant(changes, tenant_id=tenant_id, force=force)

    _perform("tenants.resume", tenant_id, operation, as_json=as_json, no_wait=no_wait)


@commands.command("degraded")
def degraded(
    tenant: TenantArgument,
    mode: Annotated[str, typer.Argument(metavar="closed|DURATION", help="closed, or 60s up to 1h.")],
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Say for how long a tenant is served on what was last known when Redis is out of reach.

    `closed`, which is the default, serves nothing then. With a duration, a revocation may take that
    long to be true in a worker that is cut off.
    """
    tenant_id = parse_tenant_id(tenant)
    seconds = 0.0 if mode == "closed" else parse_duration(mode)

    async def operation(changes: Changes, _now: float) -> Effect:
        return await set_degraded(changes, tenant_id=tenant_id, seconds=seconds, force=force)

    _perform("tenants.degraded", tenant_id, operation, as_json=as_json, no_wait=no_wait, mode=mode)


def _perform(
    action: str,
    tenant_id: TenantId,
    operation: Callable[[Changes, float], Awaitable[Effect]],
    *,
    as_json: bool,
    no_wait: bool,
    mode: str | None = None,
) -> None:
    perform(
        action,
        operation,
        as_json=as_json,
        tenant=tenant_id,
        subject=() if mode is None else (f"degraded {mode}",),
        details={"tenant": tenant_id},
        wait=not no_wait,
    )


@commands.command("list")
def list_tenants(as_json: AsJson = False) -> None:
    """List all tenants."""

    async def work(session: OperatorSession) -> list[Tenant]:
        return await session.listing.list_tenants()

    tenants = in_session(work)
    if as_json:
        print_json([_plain(tenant) for tenant in tenants])
        return
    rows = [
        (one.tenant_id, one.name, _state(one), _degraded(one), when(one.created_at), one.source)
        for one in tenants
    ]
    empty = "No tenant yet. Create one: cachegate tenants create ID"
    columns = ("tenant", "name", "state", "without Redis", "created", "source")
    print_table("Tenants", columns, rows, empty)


@commands.command("show")
def show(tenant: TenantArgument, as_json: AsJson = False) -> None:
    """Show a tenant: its state, what it owns, what it was granted, its keys."""
    tenant_id = parse_tenant_id(tenant)

    async def work(session: OperatorSession) -> dict[str, Any]:
        found = await session.listing.find_tenant(tenant_id)
        if found is None:
            raise unknown_tenant(tenant_id)
        rules = await session.listing.list_rules()
        grants = await session.listing.list_grants(tenant_id)
        keys = await session.listing.list_keys(tenant_id)
        return {
            **_plain(found),
            "without_redis": _degraded(found),
            "owns": [rule.pattern for rule in rules if rule.owner == tenant_id],
            "grants": [
                {
                    "grant_id": one.grant_id,
                    "models": one.models,
                    "groups": one.groups,
                    "packages": one.packages,
                    "actions": sorted(one.actions),
                    "source": one.source,
                }
                for one in grants
            ],
            "keys": [key.key_id for key in keys],
        }

    shown = in_session(work)
    if as_json:
        print_json(shown)
        return
    rows = [
        ("tenant", shown["tenant"]),
        ("name", shown["name"]),
        ("state", shown["state"]),
        ("without Redis", shown["without_redis"]),
        ("created", shown["created_at"]),
        ("source", shown["source"]),
        ("owns", "\n".join(shown["owns"]) or "nothing"),
        ("grants", "\n".join(_grant_line(one) for one in shown["grants"]) or "none"),
        ("keys", "\n".join(shown["keys"]) or "none"),
    ]
    print_table(f"Tenant {tenant_id}", ("", ""), rows, "")


def _grant_line(grant: dict[str, Any]) -> str:
    on = " ".join([*grant["models"], *(f"group {group}" for group in grant["groups"])])
    narrowed = f" (packages {' '.join(grant['packages'])})" if grant["packages"] else ""
    return f"{grant['grant_id']}: {' '.join(grant['actions'])} on {on}{narrowed}"


def _plain(tenant: Tenant) -> dict[str, Any]:
    return {
        "tenant": tenant.tenant_id,
        "name": tenant.name,
        "state": _state(tenant),
        "degraded_seconds": tenant.degraded_seconds,
        "created_at": when(tenant.created_at),
        "generation": tenant.generation,
        "source": tenant.source,
    }


def _state(tenant: Tenant) -> str:
    return "suspended" if tenant.is_suspended else "active"


def _degraded(tenant: Tenant) -> str:
    if not tenant.degraded_seconds:
        return "closed"
    return f"last-known-good for {tenant.degraded_seconds:g} s"
