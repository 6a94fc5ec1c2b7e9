"""`cachegate keys`: API keys. A key is shown once, when it is created, and never again (I8)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from msgspec.structs import replace

from gateway.assembly.credential_marks import note_mark
from gateway.cli.barrier_view import NoWait
from gateway.cli.keys.views import list_keys, print_new_key, show_key
from gateway.cli.perform import in_session, perform
from gateway.directory.edits import keys as operations
from gateway.identity.new_keys import KeyOrder, adopt_key, import_key, issue_key, parse_networks, parse_scopes
from gateway.identity.times import parse_duration, parse_moment
from gateway.model.errors import BadNameError
from gateway.model.facts import KeyKind
from gateway.model.names import parse_key_id, parse_tenant_id
from gateway.terminal.console import AsJson

if TYPE_CHECKING:
    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.identity.new_keys import NewKey
    from gateway.operations.session import OperatorSession
    from gateway.registrar import Done

commands = typer.Typer(help="Keys: create, list, show, revoke, rotate, import.", no_args_is_help=True)

KeyArgument = Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id, as `keys list` shows it.")]
OfTenant = Annotated[str | None, typer.Option("--tenant", help="Whose key it is.")]
OfAdmin = Annotated[bool, typer.Option("--admin", help="An admin key: it administers and reads no content.")]
Name = Annotated[str, typer.Option(help="A name for people.")]
Expires = Annotated[str | None, typer.Option(help="When it ends: 30d, 12h, or 2030-01-31T12:00:00Z.")]
NotBefore = Annotated[str | None, typer.Option(help="When it begins: a duration from now, or a time.")]
Scopes = Annotated[list[str] | None, typer.Option(help="discover read infer audit:read keys:manage")]
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

    def order(self, now: float) -> KeyOrder:
        """Parse the options, with times relative to `now`."""
        if self.is_admin == (self.tenant is not None):
            raise BadNameError("say whose key it is: --tenant T, or --admin for an admin key")
        kind = KeyKind.ADMIN if self.is_admin else KeyKind.TENANT
        return KeyOrder(
            now=now,
            kind=kind,
            tenant=None if self.tenant is None else parse_tenant_id(self.tenant),
            name=self.name,
            scopes=parse_scopes(self.scopes, kind) if self.scopes else None,
            networks=parse_networks(self.networks or ()),
            not_before=parse_moment(self.not_before, now) if self.not_before else None,
            expires_at=parse_moment(self.expires, now) if self.expires else None,
        )


@commands.command("create")
def create(
    tenant: OfTenant = None,
    admin: OfAdmin = False,
    name: Name = "",
    expires: Expires = None,
    not_before: NotBefore = None,
    scopes: Scopes = None,
    networks: Networks = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Create a key and show it, this once."""
    wishes = _Wishes(tenant, admin, name, expires, not_before, scopes, networks)

    async def work(session: OperatorSession) -> tuple[NewKey, Done[Effect]]:
        order = wishes.order(session.clock.now())
        new = issue_key(order, environment=session.settings.token_env, peppers=session.peppers)
        done = await session.perform(
            "keys.create",
            lambda changes: operations.create_key(changes, key=new.key, digest=new.digest),
            tenant=new.key.tenant,
            key_id=new.key.key_id,
            wait=not no_wait,
        )
        await note_mark(session.store, session.peppers, new.key.key_id, new.token)
        return new, done

    print_new_key(*in_session(work), as_json=as_json)


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

    async def work(session: OperatorSession) -> tuple[NewKey, Done[Effect]]:
        order = wishes.order(session.clock.now())
        if raw_key is not None:
            new = adopt_key(order, raw_key=raw_key, peppers=session.peppers)
        else:
            new = import_key(order, sha256_hex=sha256 or "", peppers=session.peppers)
        done = await session.perform(
            "keys.import",
            lambda changes: operations.import_key(changes, key=new.key, digest=new.digest),
            tenant=new.key.tenant,
            key_id=new.key.key_id,
            wait=not no_wait,
        )
        if done.result.is_changed:  # else it has another id already, and its mark belongs to that one
            await note_mark(session.store, session.peppers, new.key.key_id, raw_key)
        return new, done

    print_new_key(*in_session(work), as_json=as_json)


@commands.command("revoke")
def revoke(key_id: KeyArgument, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Refuse a key from now on, in every worker when this returns; its transfers are cut off."""
    parsed = parse_key_id(key_id)

    async def operation(changes: Changes, now: float) -> Effect:
        return await operations.revoke_key(changes, key_id=parsed, now=now)

    perform(
        "keys.revoke",
        operation,
        as_json=as_json,
        key_id=parsed,
        details={"key_id": parsed},
        wait=not no_wait,
    )


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
    if overlap_seconds > operations.MAX_OVERLAP_SECONDS:
        raise BadNameError(f"--overlap {overlap}: expected 0s to 30d")

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
            new = replace(new, key=operations.heir_of(old, new.key))
        done = await session.perform(
            "keys.rotate",
            lambda changes: operations.rotate_key(
                changes,
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

    print_new_key(*in_session(work), as_json=as_json, replaces=parsed)


@commands.command("list")
def list_(tenant: OfTenant = None, as_json: AsJson = False) -> None:
    """List keys: of one tenant, or all, the admin keys first."""
    list_keys(parse_tenant_id(tenant) if tenant else None, as_json=as_json)


@commands.command("show")
def show(key_id: KeyArgument, as_json: AsJson = False) -> None:
    """Show a key's record. The key itself is stored nowhere and cannot be shown."""
    show_key(parse_key_id(key_id), as_json=as_json)
