"""`cachegate grants`: rights on models that a tenant does not own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.barrier_view import NoWait
from gateway.cli.perform import in_session, perform
from gateway.cli.tenants import Force
from gateway.directory.edits.grants import add_grants, remove_grants
from gateway.model.errors import BadNameError
from gateway.model.names import parse_group_name, parse_package_id, parse_pattern, parse_tenant_id
from gateway.operations.known_names import verify_tenant
from gateway.terminal.console import AsJson, print_json, print_table

if TYPE_CHECKING:
    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.model.names import GroupName, PackageId, Pattern, TenantId
    from gateway.operations.session import OperatorSession

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
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Grant actions (read, if none is named) on models and groups."""
    tenant_id, patterns, named, narrowed = _parse(tenant, models, groups, packages)

    async def operation(changes: Changes, _now: float) -> Effect:
        return await add_grants(
            changes,
            tenant_id=tenant_id,
            models=patterns,
            groups=named,
            packages=narrowed,
            actions=actions or ("read",),
        )

    subject = _subject(patterns, named, narrowed, actions or ["read"])
    details = {"tenant": tenant_id}
    perform(
        "grants.add",
        operation,
        as_json=as_json,
        tenant=tenant_id,
        subject=subject,
        details=details,
        wait=not no_wait,
    )


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
    tenant_id, patterns, named, narrowed = _parse(tenant, models, groups, packages)

    async def operation(changes: Changes, _now: float) -> Effect:
        return await remove_grants(
            changes,
            tenant_id=tenant_id,
            models=patterns,
            groups=named,
            packages=narrowed or None,
            actions=actions or None,
            force=force,
        )

    subject = _subject(patterns, named, narrowed, actions or [])
    details = {"tenant": tenant_id}
    perform(
        "grants.remove",
        operation,
        as_json=as_json,
        tenant=tenant_id,
        subject=subject,
        details=details,
        wait=not no_wait,
    )


@commands.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Of this tenant only.")] = None,
    as_json: AsJson = False,
) -> None:
    """List grants."""
    only = parse_tenant_id(tenant) if tenant else None

    async def work(session: OperatorSession) -> list[dict[str, Any]]:
        if only is not None:
            await verify_tenant(session, only)
        listed = await session.listing.list_all_grants()
        return [
            {
                "tenant": each.tenant_id,
                "grant_id": grant.grant_id,
                "models": list(grant.models),
                "groups": list(grant.groups),
                "packages": list(grant.packages),
                "actions": sorted(grant.actions),
                "source": grant.source,
            }
            for each in listed
            if only in (None, each.tenant_id)
            for grant in each.grants
        ]

    grants = in_session(work)
    if as_json:
        print_json(grants)
        return
    columns = ("tenant", "grant", "models", "groups", "packages", "actions", "source")
    rows = [[_cell(value) for value in grant.values()] for grant in grants]
    print_table("Grants", columns, rows, "No grant. Tenants read what they own and what is public.")


def _parse(
    tenant: str, models: list[str] | None, groups: list[str] | None, packages: list[str] | None
) -> tuple[TenantId, list[Pattern], list[GroupName], list[PackageId]]:
    """The parsed tenant, patterns, groups and packages.

    Raises `BadNameError`, also without model and group.
    """
    tenant_id = parse_tenant_id(tenant)
    patterns = [parse_pattern(one) for one in models or ()]
    named = [parse_group_name(one) for one in groups or ()]
    narrowed = [parse_package_id(one) for one in packages or ()]
    if not patterns and not named:
        raise BadNameError("name at least one model, prefix or group: --models or --groups")
    return tenant_id, patterns, named, narrowed


def _cell(value: object) -> object:
    return "\n".join(value) or None if isinstance(value, list) else value


def _subject(
    models: list[Any], groups: list[Any], packages: list[Any], actions: list[str]
) -> tuple[str, ...]:
    return (
        *models,
        *(f"group {group}" for group in groups),
        *(f"package {package}" for package in packages),
        *(f"action {action}" for action in actions),
    )
