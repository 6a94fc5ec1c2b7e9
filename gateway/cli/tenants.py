"""`cachegate tenants`: create and edit tenants, which own models, are granted others, and have keys."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.adapters.clock import SystemClock
from gateway.cli import remote_tenants, removal
from gateway.cli.perform import Force, NoWait, in_session, perform
from gateway.cli.periods import period_cells
from gateway.cli.remote import Sent, find_gateway, tenant_view
from gateway.directory.edits.tenants import (
    create_tenant,
    resume_tenant,
    set_allows,
    set_degraded,
    set_image_hosts,
    suspend_tenant,
)
from gateway.identity.times import parse_duration
from gateway.model.access import ALLOWABLE
from gateway.model.errors import BadNameError
from gateway.model.image_hosts import parse_image_host
from gateway.model.names import parse_tenant_id
from gateway.operations.listings import find_tenant, list_tenants, without_redis
from gateway.terminal.console import AsJson, Table, show

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.directory.edits.effect import Effect
    from gateway.operations.listings import GrantView

commands = typer.Typer(
    help="Tenants: create, list, show, suspend, resume, degraded, image-hosts, allow, disallow, remove, "
    "restore, removed.",
    no_args_is_help=True,
)

TenantArgument = Annotated[str, typer.Argument(metavar="ID", help="The tenant's id.")]
ActionsArgument = Annotated[
    list[str], typer.Argument(metavar="ACTION...", help=f"Of {', '.join(ALLOWABLE)}.")
]


@commands.command("create")
def create(
    tenant: TenantArgument,
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Create a tenant. It owns nothing and has no key yet."""
    edit = partial(create_tenant, name=name or tenant, now=SystemClock().now())
    through = Sent("POST", "/tenants", {"id": tenant, "name": name or tenant})
    _perform("tenants.create", tenant, edit, through, no_wait=no_wait, as_json=as_json)


@commands.command("suspend")
def suspend(tenant: TenantArgument, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Refuse all keys of a tenant, at once, whatever the policy folder says. Its facts stay."""
    through = Sent("POST", f"/tenants/{tenant}/suspend")
    _perform("tenants.suspend", tenant, suspend_tenant, through, no_wait=no_wait, as_json=as_json)


@commands.command("resume")
def resume(
    tenant: TenantArgument, force: Force = False, no_wait: NoWait = False, as_json: AsJson = False
) -> None:
    """Accept a suspended tenant's keys again."""
    edit = partial(resume_tenant, force=force)
    through = Sent("POST", f"/tenants/{tenant}/resume", force=force)
    _perform("tenants.resume", tenant, edit, through, no_wait=no_wait, as_json=as_json)


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
    seconds = 0.0 if mode == "closed" else parse_duration(mode)
    edit = partial(set_degraded, seconds=seconds, force=force)
    through = _patch(tenant, {"degraded_seconds": seconds}, force=force)
    said = f"degraded {mode}"
    _perform("tenants.degraded", tenant, edit, through, said, no_wait=no_wait, as_json=as_json)


@commands.command("image-hosts")
def image_hosts(
    tenant: TenantArgument,
    hosts: Annotated[list[str], typer.Argument(metavar="none|HOST...", help="All hosts, or none.")],
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Say from which hosts the front door fetches images that a tenant's requests name by URL.

    Without any, which is the default, such a request is refused. A host is asked by https, at a port if
    one is named; http://HOST asks by http. The hosts replace those that were set before.
    """
    wanted = () if hosts == ["none"] else tuple(map(parse_image_host, hosts))
    edit = partial(set_image_hosts, hosts=wanted, force=force)
    said = f"images from {' '.join(wanted) or 'nowhere'}"
    through = _patch(tenant, {"image_hosts": wanted}, force=force)
    _perform("tenants.image-hosts", tenant, edit, through, said, no_wait=no_wait, as_json=as_json)


@commands.command("allow")
def allow(
    tenant: TenantArgument,
    actions: ActionsArgument,
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Allow a tenant's workflows to do more than running models, which is all that they may by default.

    An external-request is any request to somewhere else: webhooks, uploads, models of third parties. The
    others reach what all requests to one inference server share; they count only on a server that is bound
    to the tenant.
    """
    _set_allows("tenants.allow", tenant, actions, force=force, no_wait=no_wait, as_json=as_json)


@commands.command("disallow")
def disallow(
    tenant: TenantArgument, actions: ActionsArgument, no_wait: NoWait = False, as_json: AsJson = False
) -> None:
    """Allow it no longer, at once, whatever the policy folder says."""
    _set_allows("tenants.disallow", tenant, actions, force=True, no_wait=no_wait, as_json=as_json)


def _set_allows(
    command: str, tenant: str, actions: list[str], *, force: bool, no_wait: bool, as_json: bool
) -> None:
    if unknown := sorted(set(actions) - set(ALLOWABLE)):
        raise BadNameError(f"{unknown[0]!r} is not an action: expected one of {', '.join(ALLOWABLE)}")
    is_allowed = command == "tenants.allow"
    edit = partial(set_allows, actions=actions, is_allowed=is_allowed, force=force)
    through = _patch(tenant, {"allow" if is_allowed else "disallow": actions}, force=force)
    _perform(command, tenant, edit, through, *sorted(set(actions)), no_wait=no_wait, as_json=as_json)


def _patch(tenant: str, patch: dict[str, Any], *, force: bool) -> Sent:
    return Sent("PATCH", f"/tenants/{tenant}", patch, force)


def _perform(
    action: str,
    tenant: str,
    edit: Callable[..., Awaitable[Effect]],
    through: Sent,
    *subject: str,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Make a change of this tenant, which the edit gets as `tenant_id`."""
    tenant_id = parse_tenant_id(tenant)
    perform(
        action,
        partial(edit, tenant_id=tenant_id),
        {"tenant": tenant_id},
        through,
        no_wait=no_wait,
        as_json=as_json,
        tenant=tenant_id,
        subject=subject,
    )


@commands.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all tenants."""
    if (gateway := find_gateway()) is not None:
        tenants = [*map(tenant_view, gateway.each("/tenants"))]
    else:
        tenants = in_session(list_tenants)
    rows = (
        (one.tenant, one.name, one.state, without_redis(one.degraded_seconds), one.created_at, one.source)
        for one in tenants
    )
    columns = ("tenant", "name", "state", "without Redis", "created", "source")
    empty = "No tenant yet. Create one: cachegate tenants create ID"
    show(tenants, [Table("Tenants", columns, rows, empty)], as_json=as_json)


@commands.command("show")
def show_(tenant: TenantArgument, as_json: AsJson = False) -> None:
    """Show a tenant: its state, what it owns, what it was granted, its keys."""
    tenant_id = parse_tenant_id(tenant)
    if (gateway := find_gateway()) is not None:
        found = remote_tenants.find_tenant(gateway, tenant_id)
    else:
        found = in_session(lambda session: find_tenant(session, tenant_id))
    rows = (
        ("tenant", found.tenant),
        ("name", found.name),
        ("record", found.record_id or "without an id"),
        ("state", found.state),
        ("without Redis", found.without_redis),
        ("images from", "\n".join(found.image_hosts) or "nowhere"),
        ("workflows may", "\n".join(found.allows) or "run models only"),
        ("created", found.created_at),
        ("source", found.source),
        ("owns", "\n".join(found.owns) or "nothing"),
        ("grants", "\n".join(map(_grant_line, found.grants)) or "none"),
        ("keys", "\n".join(found.keys) or "none"),
    )
    show(found, [Table(f"Tenant {tenant_id}", ("", ""), rows)], as_json=as_json)


commands.command("remove")(removal.remove)
commands.command("restore")(removal.restore)
commands.command("removed")(removal.removed)


def _grant_line(grant: GrantView) -> str:
    on = " ".join([*grant.models, *(f"group {group}" for group in grant.groups)])
    narrowed = f" (packages {' '.join(grant.packages)})" if grant.packages else ""
    state, begins, ends = period_cells(grant)
    times = [
        f"from {begins}" if begins else "",
        f"until {ends}" if ends else "",
        f"({state})" if state else "",
    ]
    period = "".join(f" {text}" for text in times if text)
    return f"{grant.grant_id}: {' '.join(grant.actions)} on {on}{narrowed}{period}"
