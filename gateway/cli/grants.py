"""`cachegate grants`: rights on models that a tenant does not own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from gateway.cli.perform import Force, NoWait, in_session, perform
from gateway.cli.periods import PERIOD_COLUMNS, Expires, NotBefore, has_period, parse_period, period_cells
from gateway.cli.remote import Sent, find_gateway, grant_view, verify_tenant
from gateway.directory.edits.grants import add_grants, remove_grants
from gateway.model.errors import BadNameError
from gateway.model.names import parse_group_name, parse_package_id, parse_pattern, parse_tenant_id
from gateway.operations.listings import list_grants
from gateway.terminal.console import AsJson, Table, show

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.directory.edits.effect import Effect

commands = typer.Typer(help="Grants: add, remove, list.", no_args_is_help=True)

Tenant = Annotated[str, typer.Option("--tenant", help="Who is granted.")]
Models = Annotated[list[str] | None, typer.Option(help="Model ids, or prefix/* for all below a prefix.")]
Groups = Annotated[list[str] | None, typer.Option(help="Model groups.")]
Packages = Annotated[list[str] | None, typer.Option(help="Only these packages of them.")]


@commands.command("add")
def add(
    tenant: Tenant,
    models: Models = None,
    groups: Groups = None,
    packages: Packages = None,
    actions: Annotated[list[str] | None, typer.Option(help="discover read infer")] = None,
    expires: Expires = None,
    not_before: NotBefore = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Grant actions (read, if none is named) on models and groups, perhaps for a time.

    Adding a grant again with other times moves them; without --expires it has no end.
    """
    named = tenant, models, groups, packages, actions or ["read"]
    asked = parse_period(expires, not_before)
    edit = partial(add_grants, not_before=asked.not_before, expires_at=asked.expires_at, now=asked.now)
    through = Sent("POST", "/grants", asked.told)
    _perform("grants.add", edit, *named, through, *asked.said, no_wait=no_wait, as_json=as_json)


@commands.command("remove")
def remove(
    tenant: Tenant,
    models: Models = None,
    groups: Groups = None,
    packages: Packages = None,
    actions: Annotated[list[str] | None, typer.Option(help="Only these actions; all if none.")] = None,
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Take grants on exactly these models and groups away."""
    named = tenant, models, groups, packages, actions
    edit, through = partial(remove_grants, force=force), Sent("POST", "/grants/remove", {}, force)
    _perform("grants.remove", edit, *named, through, no_wait=no_wait, as_json=as_json)


def _perform(
    action: str,
    edit: Callable[..., Awaitable[Effect]],
    tenant: str,
    models: Sequence[str] | None,
    groups: Sequence[str] | None,
    packages: Sequence[str] | None,
    actions: Sequence[str] | None,
    through: Sent,
    *said: str,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Make a change of a tenant's grants on what is named; the edit gets no argument for what is not."""
    tenant_id = parse_tenant_id(tenant)
    patterns = [parse_pattern(one) for one in models or ()]
    named = [parse_group_name(one) for one in groups or ()]
    narrowed = [parse_package_id(one) for one in packages or ()]
    if not patterns and not named:
        raise BadNameError("name at least one model, prefix or group: --models or --groups")
    limits = {"packages": narrowed, "actions": actions}
    body = {
        **(through.body or {}),
        "tenant": tenant_id,
        "models": patterns,
        "groups": named,
        "packages": narrowed,
        "actions": list(actions or ()),
    }
    perform(
        action,
        partial(
            edit,
            tenant_id=tenant_id,
            models=patterns,
            groups=named,
            **{name: limit for name, limit in limits.items() if limit},
        ),
        {"tenant": tenant_id},
        replace(through, body=body),
        no_wait=no_wait,
        as_json=as_json,
        tenant=tenant_id,
        subject=(
            *patterns,
            *(f"group {group}" for group in named),
            *(f"package {package}" for package in narrowed),
            *(f"action {verb}" for verb in actions or ()),
            *said,
        ),
    )


@commands.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Of this tenant only.")] = None,
    as_json: AsJson = False,
) -> None:
    """List grants."""
    only = parse_tenant_id(tenant) if tenant else None
    if (gateway := find_gateway()) is not None:
        if only is not None:
            verify_tenant(gateway, only)
        grants = [*map(grant_view, gateway.each("/grants", **({} if only is None else {"tenant": only})))]
    else:
        grants = in_session(lambda session: list_grants(session, only))
    has_times = any(map(has_period, grants))
    rows = [
        (
            one.tenant,
            one.grant_id,
            *("\n".join(several) or None for several in (one.models, one.groups, one.packages, one.actions)),
            *(period_cells(one) if has_times else ()),
            one.source,
        )
        for one in grants
    ]
    named = ("tenant", "grant", "models", "groups", "packages", "actions")
    columns = (*named, *(PERIOD_COLUMNS if has_times else ()), "source")
    empty = "No grant. Tenants read what they own and what is public."
    show(grants, [Table("Grants", columns, rows, empty)], as_json=as_json)
