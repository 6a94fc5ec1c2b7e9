"""`cachegate models`: ownership, visibility, groups and aliases of models, and the models on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.barrier_view import NoWait
from gateway.cli.models.views import list_models, show_model
from gateway.cli.perform import perform
from gateway.cli.tenants import Force
from gateway.directory.edits import models as operations
from gateway.model.names import parse_group_name, parse_model_id, parse_pattern, parse_tenant_id
from gateway.terminal.console import AsJson

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.model.names import Pattern

commands = typer.Typer(
    help="Models: own, disown, publish, unpublish, alias, unalias, group, ungroup, list, show.",
    no_args_is_help=True,
)

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="The owner.")]
Group = Annotated[str, typer.Argument(metavar="GROUP", help="The group's name.")]
Patterns = Annotated[
    list[str], typer.Argument(metavar="PATTERN...", help="Model ids, or prefix/* for all below a prefix.")
]


def _edit(
    action: str,
    patterns: list[str],
    edit: Callable[[Changes, list[Pattern]], Awaitable[Effect]],
    *,
    as_json: bool,
    no_wait: bool,
    tenant: str | None = None,
    group: str | None = None,
) -> None:
    parsed = [parse_pattern(one) for one in patterns]
    subject = (*([f"group {group}"] if group else []), *parsed)
    details = {"patterns": list(parsed)}

    async def operation(changes: Changes, _now: float) -> Effect:
        return await edit(changes, parsed)

    perform(
        action,
        operation,
        as_json=as_json,
        tenant=tenant,
        subject=subject,
        details=details,
        wait=not no_wait,
    )


@commands.command("own")
def own(
    tenant: Tenant, patterns: Patterns, force: Force = False, no_wait: NoWait = False, as_json: AsJson = False
) -> None:
    """Make a tenant the owner of models. They are private to it until they are published or granted."""
    owner = parse_tenant_id(tenant)
    _edit(
        "models.own",
        patterns,
        lambda changes, parsed: operations.own(changes, tenant_id=owner, patterns=parsed, force=force),
        as_json=as_json,
        no_wait=no_wait,
        tenant=owner,
    )


@commands.command("disown")
def disown(
    tenant: Tenant, patterns: Patterns, force: Force = False, no_wait: NoWait = False, as_json: AsJson = False
) -> None:
    """Take models from their owner."""
    owner = parse_tenant_id(tenant)
    _edit(
        "models.disown",
        patterns,
        lambda changes, parsed: operations.disown(changes, tenant_id=owner, patterns=parsed, force=force),
        as_json=as_json,
        no_wait=no_wait,
        tenant=owner,
    )


@commands.command("publish")
def publish(
    patterns: Patterns, force: Force = False, no_wait: NoWait = False, as_json: AsJson = False
) -> None:
    """Let every tenant read models."""
    _edit(
        "models.publish",
        patterns,
        lambda changes, parsed: operations.publish(changes, patterns=parsed, force=force),
        as_json=as_json,
        no_wait=no_wait,
    )


@commands.command("unpublish")
def unpublish(
    patterns: Patterns, force: Force = False, no_wait: NoWait = False, as_json: AsJson = False
) -> None:
    """Make models private."""
    _edit(
        "models.unpublish",
        patterns,
        lambda changes, parsed: operations.unpublish(changes, patterns=parsed, force=force),
        as_json=as_json,
        no_wait=no_wait,
    )


@commands.command("group")
def group(
    group: Group, patterns: Patterns, force: Force = False, no_wait: NoWait = False, as_json: AsJson = False
) -> None:
    """Put models into a group, which grants can name."""
    name = parse_group_name(group)
    _edit(
        "models.group",
        patterns,
        lambda changes, parsed: operations.add_to_group(changes, group=name, patterns=parsed, force=force),
        as_json=as_json,
        no_wait=no_wait,
        group=name,
    )


@commands.command("ungroup")
def ungroup(
    group: Group, patterns: Patterns, force: Force = False, no_wait: NoWait = False, as_json: AsJson = False
) -> None:
    """Take models out of a group."""
    name = parse_group_name(group)
    _edit(
        "models.ungroup",
        patterns,
        lambda changes, parsed: operations.remove_from_group(
            changes, group=name, patterns=parsed, force=force
        ),
        as_json=as_json,
        no_wait=no_wait,
        group=name,
    )


@commands.command("alias")
def alias(
    alias: Annotated[str, typer.Argument(metavar="ALIAS")],
    model: Annotated[str, typer.Argument(metavar="ID")],
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Give a model another name. It gives no access that the model itself does not give."""
    name, canonical = parse_model_id(alias), parse_model_id(model)

    async def operation(changes: Changes, _now: float) -> Effect:
        return await operations.add_alias(changes, alias=name, canonical=canonical, force=force)

    details = {"alias": name, "model": canonical}
    perform(
        "models.alias",
        operation,
        as_json=as_json,
        subject=(name, canonical),
        details=details,
        wait=not no_wait,
    )


@commands.command("unalias")
def unalias(
    alias: Annotated[str, typer.Argument(metavar="ALIAS")],
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Take a model's other name away."""
    name = parse_model_id(alias)

    async def operation(changes: Changes, _now: float) -> Effect:
        return await operations.remove_alias(changes, alias=name, force=force)

    details = {"alias": name}
    perform("models.unalias", operation, as_json=as_json, subject=(name,), details=details, wait=not no_wait)


@commands.command("list")
def list_(as_json: AsJson = False) -> None:
    """List who owns what, and the models on disk."""
    list_models(as_json=as_json)


@commands.command("show")
def show(model: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show one model: its owner and visibility, who may read it, its packages and files on disk."""
    show_model(parse_model_id(model), as_json=as_json)
