"""`cachegate models`: ownership, visibility, groups and aliases of models, and the models on disk."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from gateway.cli import remote_models
from gateway.cli.perform import Force, NoWait, in_session, perform
from gateway.cli.periods import PERIOD_COLUMNS, Expires, NotBefore, has_period, parse_period, period_cells
from gateway.cli.remote import Sent, find_gateway
from gateway.directory.edits import models as edits
from gateway.model.names import parse_group_name, parse_model_id, parse_pattern, parse_tenant_id
from gateway.operations.listings import find_model, list_models
from gateway.terminal.console import AsJson, Note, Table, show

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from gateway.directory.edits.effect import Effect
    from gateway.operations.listings import ModelsView, ModelView, RuleView

commands = typer.Typer(
    help="Models: own, disown, move, publish, unpublish, alias, unalias, group, ungroup, list, show.",
    no_args_is_help=True,
)

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="The owner.")]
Group = Annotated[str, typer.Argument(metavar="GROUP", help="The group's name.")]
Patterns = Annotated[
    list[str], typer.Argument(metavar="PATTERN...", help="Model ids, or prefix/* for all below a prefix.")
]
Alias = Annotated[str, typer.Argument(metavar="ALIAS")]


def _of_owner(name: str, edit: Callable[..., Awaitable[Effect]], text: str) -> None:
    """Register a command that changes whose models are."""

    @commands.command(name, help=text)
    def command(
        tenant: Tenant,
        patterns: Patterns,
        force: Force = False,
        no_wait: NoWait = False,
        as_json: AsJson = False,
    ) -> None:
        owner = parse_tenant_id(tenant)
        edit_theirs = partial(edit, tenant_id=owner, force=force)
        through = Sent("POST", f"/model-rules/{name}", {"tenant": owner}, force)
        _perform(
            f"models.{name}", edit_theirs, patterns, through, tenant=owner, no_wait=no_wait, as_json=as_json
        )


def _of_visibility(name: str, edit: Callable[..., Awaitable[Effect]], text: str) -> None:
    """Register a command that changes who reads models."""

    @commands.command(name, help=text)
    def command(
        patterns: Patterns, force: Force = False, no_wait: NoWait = False, as_json: AsJson = False
    ) -> None:
        through = Sent("POST", f"/model-rules/{name}", {}, force)
        edit_them = partial(edit, force=force)
        _perform(f"models.{name}", edit_them, patterns, through, no_wait=no_wait, as_json=as_json)


def _of_group(name: str, verb: str, edit: Callable[..., Awaitable[Effect]], text: str) -> None:
    """Register a command that changes what is in a group."""

    @commands.command(name, help=text)
    def command(
        group: Group,
        patterns: Patterns,
        force: Force = False,
        no_wait: NoWait = False,
        as_json: AsJson = False,
    ) -> None:
        parsed = parse_group_name(group)
        edit_it = partial(edit, group=parsed, force=force)
        through = Sent("POST", f"/groups/{parsed}/{verb}", {}, force)
        said = f"group {parsed}"
        _perform(f"models.{name}", edit_it, patterns, through, said, no_wait=no_wait, as_json=as_json)


def _perform(
    action: str,
    edit: Callable[..., Awaitable[Effect]],
    patterns: list[str],
    through: Sent,
    *subject: str,
    no_wait: bool,
    as_json: bool,
    tenant: str | None = None,
) -> None:
    parsed = [parse_pattern(one) for one in patterns]
    perform(
        action,
        partial(edit, patterns=parsed),
        {"patterns": parsed},
        replace(through, body={**(through.body or {}), "patterns": parsed}),
        no_wait=no_wait,
        as_json=as_json,
        tenant=tenant,
        subject=(*subject, *parsed),
    )


_of_owner(
    "own",
    edits.own,
    "Make a tenant the owner of models. They are private to it until they are published or granted.",
)
_of_owner("disown", edits.disown, "Take models from their owner.")
_of_visibility("unpublish", edits.unpublish, "Make models private.")
_of_group("group", "add", edits.add_to_group, "Put models into a group, which grants can name.")
_of_group("ungroup", "remove", edits.remove_from_group, "Take models out of a group.")


@commands.command("publish")
def publish(
    patterns: Patterns,
    expires: Expires = None,
    not_before: NotBefore = None,
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Let every tenant read models, perhaps for a time; before and after it they are private.

    Publishing them again with other times moves them; without --expires it has no end.
    """
    asked = parse_period(expires, not_before)
    edit = partial(
        edits.publish,
        not_before=asked.not_before,
        expires_at=asked.expires_at,
        now=asked.now,
        force=force,
    )
    through = Sent("POST", "/model-rules/publish", asked.told, force)
    _perform("models.publish", edit, patterns, through, *asked.said, no_wait=no_wait, as_json=as_json)


@commands.command("move")
def move(
    giving: Annotated[str, typer.Option("--from", metavar="TENANT", help="Who owns them.")],
    taking: Annotated[str, typer.Option("--to", metavar="TENANT", help="Who is to own them.")],
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="[PATTERN...]", help="Of what it owns; all if none.")
    ] = None,
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Give what one tenant owns to another, in one change. Visibility, groups and grants stay as they are."""
    from_tenant, to_tenant = parse_tenant_id(giving), parse_tenant_id(taking)
    named = patterns or []
    edit = partial(edits.move, from_tenant=from_tenant, to_tenant=to_tenant, force=force)
    subject = (f"from {from_tenant}", f"to {to_tenant}", *(() if named else ("all that it owns",)))
    through = Sent("POST", "/model-rules/move", {"from_tenant": from_tenant, "to_tenant": to_tenant}, force)
    _perform(
        "models.move", edit, named, through, *subject, no_wait=no_wait, as_json=as_json, tenant=to_tenant
    )


@commands.command("alias")
def alias(
    alias: Alias,
    model: Annotated[str, typer.Argument(metavar="ID")],
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Give a model another name. It gives no access that the model itself does not give."""
    name, canonical = parse_model_id(alias), parse_model_id(model)
    perform(
        "models.alias",
        partial(edits.add_alias, alias=name, canonical=canonical, force=force),
        {"alias": name, "model": canonical},
        Sent("POST", "/aliases", {"alias": name, "model": canonical}, force),
        no_wait=no_wait,
        as_json=as_json,
        subject=(name, canonical),
    )


@commands.command("unalias")
def unalias(alias: Alias, force: Force = False, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Take a model's other name away."""
    name = parse_model_id(alias)
    edit = partial(edits.remove_alias, alias=name, force=force)
    through = Sent("DELETE", "/aliases", force=force, query={"alias": name})
    details = {"alias": name}
    perform("models.unalias", edit, details, through, no_wait=no_wait, as_json=as_json, subject=(name,))


@commands.command("list")
def list_(as_json: AsJson = False) -> None:
    """List who owns what, and the models on disk."""
    gateway = find_gateway()
    found = in_session(list_models) if gateway is None else remote_models.list_models(gateway)
    show(found, _shown_models(found), as_json=as_json)


@commands.command("show")
def show_(model: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show one model: its owner and visibility, who may read it, its packages and files on disk."""
    asked = parse_model_id(model)
    if (gateway := find_gateway()) is not None:
        found = remote_models.find_model(gateway, asked)
    else:
        found = in_session(lambda session: find_model(session, asked))
    notes = [] if found.known else [Note(_unknown(found), "red")]
    show(found, _shown_model(found), as_json=as_json, notes=notes, is_yes=found.known)


def _unknown(found: ModelView) -> str:
    nearest = "" if found.nearest is None else f"; the nearest name is {found.nearest}"
    return f"there is no model {found.asked}: nothing names it, and it is not on disk{nearest}"


def _owner(rule: RuleView) -> str | None:
    return rule.owner if rule.owner is None or rule.owner_exists else f"{rule.owner} (removed)"


def _shown_models(found: ModelsView) -> Iterator[Note | Table]:
    has_times = any(map(has_period, found.rules))
    yield Table(
        "Rules",
        ("pattern", "owner", "visibility", "groups", *(PERIOD_COLUMNS if has_times else ()), "source"),
        [
            (
                one.pattern,
                _owner(one),
                one.visibility,
                " ".join(one.groups),
                *(period_cells(one) if has_times else ()),
                one.source,
            )
            for one in found.rules
        ],
        "No model belongs to anybody: cachegate models own TENANT PATTERN",
    )
    if found.aliases:
        aliases = [(one.alias, one.model, one.source) for one in found.aliases]
        yield Table("Aliases", ("alias", "model", "source"), aliases)
    yield Table(
        "On disk",
        ("model", "owner", "visibility", "packages"),
        [(one.model, one.owner, one.visibility, " ".join(one.packages)) for one in found.on_disk],
        f"No model on disk in {found.cache_root}.",
    )
    if found.problem:
        yield Note(f"{found.cache_root}: {found.problem}", "red")
    for skipped in found.skipped:
        yield Note(f"not served: {skipped.where}: {skipped.why}", "yellow")


def _shown_model(found: ModelView) -> Iterator[Table]:
    rows = (
        ("model", found.model),
        ("asked for as", found.asked),
        ("owner", found.owner),
        ("visibility", found.visibility),
        ("groups", " ".join(found.groups) or None),
        ("readers", "\n".join(f"{one.tenant} ({one.how})" for one in found.readers) or "nobody"),
        ("directory", found.directory),
    )
    yield Table(f"Model {found.model}", ("", ""), rows)
    files = [
        (package.package, file.file, file.size, file.md5)
        for package in found.packages
        for file in package.files
    ]
    yield Table("Files", ("package", "file", "bytes", "md5"), files, "Nothing of it is on disk.")
