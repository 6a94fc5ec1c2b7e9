"""`cachegate bindings`: subjects of outside issuers, and the tenants that they act for.

The rules of `issuers/*.toml` make a binding when a subject comes first. Here it is listed and revoked, like a
key.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from msgspec.structs import asdict

from gateway.adapters.clock import SystemClock
from gateway.cli import remote_bindings
from gateway.cli.perform import NoWait, in_session, perform
from gateway.cli.remote import Sent, find_gateway
from gateway.directory.edits import bindings as edits
from gateway.model.names import parse_binding_id, parse_tenant_id
from gateway.operations.binding_listings import find_binding, list_bindings
from gateway.terminal.console import AsJson, Table, show

commands = typer.Typer(
    help="Bindings of outside issuers' subjects: list, show, revoke, forget.", no_args_is_help=True
)

BindingArgument = Annotated[
    str, typer.Argument(metavar="BINDING_ID", help="The binding's id, as `bindings list` shows it.")
]


@commands.command("list")
def list_(
    issuer: Annotated[str | None, typer.Option("--issuer", help="Only those of this document.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only those of this tenant.")] = None,
    as_json: AsJson = False,
) -> None:
    """List bindings, issuer by issuer, the oldest first."""
    only = parse_tenant_id(tenant) if tenant else None
    if (gateway := find_gateway()) is not None:
        bindings = remote_bindings.list_bindings(gateway, issuer, only)
    else:
        bindings = in_session(lambda session: list_bindings(session, issuer, only))
    rows = (
        (
            one.binding_id,
            one.issuer,
            one.subject,
            one.tenant,
            one.state,
            " ".join(one.scopes),
            one.last_used_at,
        )
        for one in bindings
    )
    columns = ("binding id", "issuer", "subject", "tenant", "state", "scopes", "last seen")
    empty = "No binding yet. A rule of issuers/*.toml makes one when its first token comes."
    show(bindings, [Table("Bindings", columns, rows, empty)], as_json=as_json)


@commands.command("show")
def show_(binding_id: BindingArgument, as_json: AsJson = False) -> None:
    """Show a binding: whose it is, and what the rules in force give its tokens."""
    parsed = parse_binding_id(binding_id)
    if (gateway := find_gateway()) is not None:
        found = remote_bindings.binding_view(gateway.get(f"/bindings/{parsed}"))
    else:
        found = in_session(lambda session: find_binding(session, parsed))
    rows = ((name.replace("_", " "), _text(value)) for name, value in asdict(found).items())
    show(found, [Table(f"Binding {parsed}", ("", ""), rows)], as_json=as_json)


@commands.command("revoke")
def revoke(binding_id: BindingArgument, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Refuse all tokens of a subject from now on, in every worker; its transfers are cut off.

    The rules never bind the subject again.
    """
    parsed = parse_binding_id(binding_id)
    edit = partial(edits.revoke_binding, binding_id=parsed, now=SystemClock().now())
    details = {"binding_id": parsed}
    through = Sent("POST", f"/bindings/{parsed}/revoke")
    perform("bindings.revoke", edit, details, through, no_wait=no_wait, as_json=as_json, key_id=parsed)


@commands.command("forget")
def forget(binding_id: BindingArgument, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Delete a binding. If a rule still matches, its subject's next token makes another.

    For subjects that come no more, and for one that was revoked and is to be let in again.
    """
    parsed = parse_binding_id(binding_id)
    edit = partial(edits.forget_binding, binding_id=parsed)
    details = {"binding_id": parsed}
    through = Sent("POST", f"/bindings/{parsed}/forget")
    perform("bindings.forget", edit, details, through, no_wait=no_wait, as_json=as_json, key_id=parsed)


def _text(value: object) -> object:
    return " ".join(value) or "-" if isinstance(value, list | tuple) else value
