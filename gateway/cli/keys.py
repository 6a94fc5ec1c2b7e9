"""`cachegate keys`: API keys. A key is shown once, when it is created, and never again (I8)."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from msgspec.structs import asdict, replace

from gateway.adapters.clock import SystemClock
from gateway.assembly.credential_marks import note_mark
from gateway.cli import remote
from gateway.cli.perform import NoWait, barrier_document, barrier_notes, in_session, is_sure, perform
from gateway.cli.remote import find_gateway, show_made
from gateway.directory.edits import keys as edits
from gateway.identity.new_keys import KeyOrder, adopt_key, import_key, issue_key, parse_networks, parse_scopes
from gateway.identity.times import parse_duration, parse_moment
from gateway.model.errors import BadNameError
from gateway.model.facts import KeyKind, Role
from gateway.model.names import parse_key_id, parse_tenant_id
from gateway.model.roles import KIND_OF_ROLE
from gateway.operations.listings import find_key, key_view, list_keys
from gateway.terminal.console import AsJson, Line, Note, Table, show, showing_key, when

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from gateway.adapters.admin_client import AdminClient
    from gateway.directory.edits.effect import Effect
    from gateway.identity.new_keys import NewKey
    from gateway.model.names import KeyId
    from gateway.operations.session import OperatorSession
    from gateway.registrar import Done

commands = typer.Typer(help="Keys: create, list, show, revoke, rotate, import.", no_args_is_help=True)

KeyArgument = Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id, as `keys list` shows it.")]
OfTenant = Annotated[str | None, typer.Option("--tenant", help="Whose key it is.")]
OfAdmin = Annotated[bool, typer.Option("--admin", help="An admin key: it administers and reads no content.")]
OfRole = Annotated[
    Role | None,
    typer.Option(help="What it administers by; without one, an admin key is an owner's, and others do not."),
]
Name = Annotated[str, typer.Option(help="A name for people.")]
Expires = Annotated[str | None, typer.Option(help="When it ends: 30d, 12h, or 2030-01-31T12:00:00Z.")]
NotBefore = Annotated[str | None, typer.Option(help="When it begins: a duration from now, or a time.")]
Scopes = Annotated[
    list[str] | None, typer.Option(help="discover read infer audit:read keys:manage tokens:introspect")
]
Networks = Annotated[list[str] | None, typer.Option(help="The networks it may be used from, as CIDR.")]


class _Wishes(msgspec.Struct, frozen=True):
    """The options of `create` and `import` that describe the key, as they were typed."""

    tenant: str | None
    is_admin: bool
    name: str
    expires: str | None
    not_before: str | None
    scopes: list[str] | None
    networks: list[str] | None
    role: Role | None = None

    def order(self, now: float) -> KeyOrder:
        """Parse the options, with times relative to `now`."""
        kind = KeyKind.TENANT if self.role is None else KIND_OF_ROLE[self.role]
        is_admin = self.is_admin or kind is KeyKind.ADMIN
        if is_admin == (self.tenant is not None):
            raise BadNameError("say whose key it is: --tenant T, or --admin for an admin key")
        kind = KeyKind.ADMIN if is_admin else KeyKind.TENANT
        return KeyOrder(
            now=now,
            kind=kind,
            tenant=None if self.tenant is None else parse_tenant_id(self.tenant),
            name=self.name,
            role=self.role,
            scopes=parse_scopes(self.scopes, kind, self.role) if self.scopes else None,
            networks=parse_networks(self.networks or ()),
            not_before=parse_moment(self.not_before, now) if self.not_before else None,
            expires_at=parse_moment(self.expires, now) if self.expires else None,
        )


@commands.command("create")
def create(
    tenant: OfTenant = None,
    admin: OfAdmin = False,
    role: OfRole = None,
    name: Name = "",
    expires: Expires = None,
    not_before: NotBefore = None,
    scopes: Scopes = None,
    networks: Networks = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Create a key and show it, this once."""
    wishes = _Wishes(tenant, admin, name, expires, not_before, scopes, networks, role)
    if (gateway := find_gateway()) is not None:
        _create_through(gateway, wishes, no_wait=no_wait, as_json=as_json)
        return

    def make(session: OperatorSession, order: KeyOrder) -> NewKey:
        return issue_key(order, environment=session.settings.token_env, peppers=session.peppers)

    _add("keys.create", edits.create_key, wishes, make, no_wait=no_wait, as_json=as_json)


def _create_through(gateway: AdminClient, wishes: _Wishes, *, no_wait: bool, as_json: bool) -> None:
    """Create a key through a running gateway."""
    order = wishes.order(SystemClock().now())
    body = {
        "tenant": order.tenant,
        "role": None if order.role is None else order.role.value,
        "name": order.name,
        "scopes": None if order.scopes is None else sorted(order.scopes),
        "networks": list(order.networks),
        "not_before": when(order.not_before) if order.not_before is not None else None,
        "expires_at": when(order.expires_at) if order.expires_at is not None else None,
    }
    made = gateway.change("POST", "/keys", body, wait=not no_wait)
    show_made(made, no_wait=no_wait, as_json=as_json)


@commands.command("import")
def import_(
    tenant: OfTenant = None,
    sha256: Annotated[str | None, typer.Option(help="The key's SHA-256 in hex.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read the key itself from standard input.")] = False,
    name: Name = "",
    expires: Expires = None,
    not_before: NotBefore = None,
    scopes: Scopes = None,
    networks: Networks = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Accept a key of an existing platform, by its SHA-256 or as it is on standard input."""
    if (sha256 is None) is not stdin:
        raise BadNameError("say where the key comes from: --sha256 HEX or --stdin")
    wishes = _Wishes(tenant, False, name, expires, not_before, scopes, networks)
    raw_key = sys.stdin.readline().rstrip("\r\n") if stdin else None

    def make(session: OperatorSession, order: KeyOrder) -> NewKey:
        if raw_key is not None:
            return adopt_key(order, raw_key=raw_key, peppers=session.peppers)
        return import_key(order, sha256_hex=sha256 or "", peppers=session.peppers)

    _add("keys.import", edits.import_key, wishes, make, raw_key, no_wait=no_wait, as_json=as_json)


def _add(
    action: str,
    edit: Callable[..., Awaitable[Effect]],
    wishes: _Wishes,
    make: Callable[[OperatorSession, KeyOrder], NewKey],
    raw_key: str | None = None,
    *,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Make a key as it was ordered, add it to the facts and show it."""

    async def work(session: OperatorSession) -> tuple[NewKey, Done[Effect]]:
        new = make(session, wishes.order(session.clock.now()))
        done = await session.perform(
            action,
            partial(edit, key=new.key, digest=new.digest),
            tenant=new.key.tenant,
            key_id=new.key.key_id,
            wait=not no_wait,
        )
        if done.result.is_changed:  # else it has another id already, and its mark belongs to that one
            await note_mark(session.store, session.peppers, new.key.key_id, raw_key or new.token)
        return new, done

    _show_new(*in_session(work), as_json=as_json)


@commands.command("revoke")
def revoke(key_id: KeyArgument, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Refuse a key from now on, in every worker when this returns; its transfers are cut off."""
    parsed = parse_key_id(key_id)
    if (gateway := find_gateway()) is not None:
        revoked = gateway.change("POST", f"/keys/{parsed}/revoke", None, wait=not no_wait)
        show_made(revoked, no_wait=no_wait, as_json=as_json)
        return
    edit = partial(edits.revoke_key, key_id=parsed, now=SystemClock().now())
    perform("keys.revoke", edit, {"key_id": parsed}, no_wait=no_wait, as_json=as_json, key_id=parsed)


@commands.command("rotate")
def rotate(
    key_id: KeyArgument,
    overlap: Annotated[str, typer.Option(help="How long the old key goes on: 0s to 30d.")] = "0s",
    expires: Expires = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Replace a key by a new one with the same rights; the old one ends after the overlap.

    The new key begins and ends when the old one would have, unless --expires gives it another end.
    """
    parsed, overlap_seconds = parse_key_id(key_id), parse_duration(overlap)
    if overlap_seconds > edits.MAX_OVERLAP_SECONDS:
        raise BadNameError(f"--overlap {overlap}: expected 0s to 30d")
    if (gateway := find_gateway()) is not None:
        ends = parse_moment(expires, SystemClock().now()) if expires else None
        body = {"overlap_seconds": overlap_seconds, "expires_at": None if ends is None else when(ends)}
        made = gateway.change("POST", f"/keys/{parsed}/rotate", body, wait=not no_wait)
        show_made(made, no_wait=no_wait, as_json=as_json, replaces=parsed)
        return

    async def work(session: OperatorSession) -> tuple[NewKey, Done[Effect]]:
        now = session.clock.now()
        old = await session.listing.find_key(parsed)
        order = KeyOrder(
            now=now,
            kind=old.kind if old else KeyKind.ADMIN,
            tenant=old.tenant if old else None,
            expires_at=parse_moment(expires, now) if expires else None,
        )
        new = issue_key(order, environment=session.settings.token_env, peppers=session.peppers)
        if old is not None:
            new = replace(new, key=edits.heir_of(old, new.key))
        done = await session.perform(
            "keys.rotate",
            partial(
                edits.rotate_key,
                key_id=parsed,
                successor=new.key,
                digest=new.digest,
                now=now,
                overlap_seconds=overlap_seconds,
            ),
            tenant=order.tenant,
            key_id=parsed,
            subject=(new.key.key_id,),
            wait=not no_wait,
        )
        await note_mark(session.store, session.peppers, new.key.key_id, new.token)
        return new, done

    _show_new(*in_session(work), as_json=as_json, replaces=parsed)


@commands.command("list")
def list_(tenant: OfTenant = None, as_json: AsJson = False) -> None:
    """List keys: of one tenant, or all, the admin keys first. The oldest come first."""
    only = parse_tenant_id(tenant) if tenant else None
    if (gateway := find_gateway()) is not None:
        keys = [*map(remote.key_view, gateway.each("/keys", **({} if only is None else {"tenant": only})))]
    else:
        keys = in_session(lambda session: list_keys(session, only))
    rows = (
        (
            key.key_id,
            key.tenant or "(admin)",
            key.name,
            key.state,
            " ".join(key.scopes),
            key.expires_at,
            key.last_used_at,
        )
        for key in keys
    )
    columns = ("key id", "tenant", "name", "state", "scopes", "expires", "last used")
    empty = "No key yet. Create one: cachegate keys create --tenant ID"
    show(keys, [Table("Keys", columns, rows, empty)], as_json=as_json)


@commands.command("show")
def show_(key_id: KeyArgument, as_json: AsJson = False) -> None:
    """Show a key's record. The key itself is stored nowhere and cannot be shown."""
    parsed = parse_key_id(key_id)
    if (gateway := find_gateway()) is not None:
        key = remote.key_view(gateway.get(f"/keys/{parsed}"))
    else:
        key = in_session(lambda session: find_key(session, parsed))
    rows = ((name.replace("_", " "), _text(value)) for name, value in asdict(key).items())
    show(key, [Table(f"Key {parsed}", ("", ""), rows)], as_json=as_json)


def _text(value: object) -> object:
    return " ".join(value) or "-" if isinstance(value, list | tuple) else value


def _show_new(new: NewKey, done: Done[Effect], *, as_json: bool, replaces: KeyId | None = None) -> None:
    """Show a new key. The token goes to standard output alone, so that a pipe gets it."""
    document = {
        **asdict(key_view(new.key, new.key.created_at, None)),
        "generation": done.generation,
        "changed": done.result.is_changed,
        "messages": done.result.sentences,
        **barrier_document(done.barrier),
        **({} if replaces is None else {"replaces": replaces}),
        **({} if new.token is None else {"token": new.token}),
    }

    def shown() -> Iterator[Note | Line]:
        yield from map(Note, done.result.sentences)
        yield from barrier_notes(done.barrier)
        if new.token is not None:
            yield Note("This is the key. It is shown once and stored nowhere:", "bold")
            yield Line(new.token)

    with nullcontext() if new.token is None else showing_key(new.key.key_id):
        show(document, shown(), as_json=as_json, is_yes=is_sure(done.barrier))
