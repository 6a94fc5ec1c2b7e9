"""`cachegate keys`: API keys. A key is shown once, when it is created, and never again (I8)."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from msgspec import UNSET
from msgspec.structs import asdict

from gateway.adapters.clock import SystemClock
from gateway.cli import remote, remote_keys
from gateway.cli.perform import (
    NoWait,
    barrier_document,
    barrier_notes,
    in_session,
    is_sure,
    perform,
    show_change,
)
from gateway.cli.remote import Sent, find_gateway, told_change
from gateway.directory.edits import keys as edits
from gateway.identity.new_keys import (
    MAX_OPAQUE_CHARACTERS,
    KeyOrder,
    adopt_key,
    import_key,
    parse_name,
    parse_networks,
    parse_scopes,
    parse_sha256,
    sha256_of_adopted,
)
from gateway.identity.times import parse_duration, parse_moment
from gateway.model.errors import BadNameError
from gateway.model.facts import KeyKind, Role
from gateway.model.key_changes import KeyChange
from gateway.model.moments import when
from gateway.model.names import parse_key_id, parse_tenant_id
from gateway.model.roles import KIND_OF_ROLE
from gateway.operations.keys.found import MAX_LIST_BYTES, WHY, identify, parse_found
from gateway.operations.keys.making import Made, add_key, create_key, rotate_key
from gateway.operations.keys.revoking import FOUND_REASON, parse_reason, revoke_found, revoke_of_tenant
from gateway.operations.keys.views import key_report, list_rotations
from gateway.operations.listings import KeyFilter, find_key, key_view, list_keys
from gateway.terminal.console import AsJson, Line, Note, Table, show, showing_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from gateway.adapters.admin_client import AdminClient
    from gateway.directory.edits.effect import Effect
    from gateway.model.names import TenantId
    from gateway.operations.keys.found import FoundToken
    from gateway.operations.keys.revoking import Revocations, RevokedKey
    from gateway.operations.listings import KeyView
    from gateway.operations.session import OperatorSession
    from gateway.registrar import Done

commands = typer.Typer(
    help="Keys: create, list, show, change, rotate, disable, revoke, report.", no_args_is_help=True
)

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
    list[str] | None,
    typer.Option(help="discover read infer audit:read keys:manage tokens:introspect decisions:ask"),
]
Networks = Annotated[list[str] | None, typer.Option(help="The networks it may be used from, as CIDR.")]


NOTHING_TO_CHANGE = "say what is to be changed: --name, --scopes, --networks or --expires"


class _Wishes(msgspec.Struct, frozen=True):
    """The options of `create` and `import` that describe the key, as they were typed."""

    tenant: str | None
    is_admin: bool
    name: str
    expires: str | None
    not_before: str | None
    scopes: list[str] | None
    networks: list[str] | None
    is_decoy: bool = False
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
            is_decoy=self.is_decoy,
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
    decoy: Annotated[
        bool, typer.Option("--decoy", help="Give it to nobody: it opens nothing, and any use is an alarm.")
    ] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Create a key and show it, this once.

    Example: cachegate keys create --tenant acme --name ci --expires 90d --scopes discover read > key
    """
    wishes = _Wishes(tenant, admin, name, expires, not_before, scopes, networks, decoy, role)
    if (gateway := find_gateway()) is not None:
        _create_through(gateway, wishes, {}, no_wait=no_wait, as_json=as_json)
        return
    made = in_session(
        lambda session: create_key(session, wishes.order(session.clock.now()), wait=not no_wait)
    )
    _show_made(made, as_json=as_json)


def _create_through(
    gateway: AdminClient, wishes: _Wishes, more: dict[str, str], *, no_wait: bool, as_json: bool
) -> None:
    """Create or import a key through a running gateway."""
    order = wishes.order(SystemClock().now())
    body = {
        "tenant": order.tenant,
        "role": None if order.role is None else order.role.value,
        "name": order.name,
        "scopes": None if order.scopes is None else sorted(order.scopes),
        "networks": list(order.networks),
        "not_before": when(order.not_before) if order.not_before is not None else None,
        "expires_at": when(order.expires_at) if order.expires_at is not None else None,
        "decoy": order.is_decoy,
        **more,
    }
    told = gateway.change("POST", "/keys", body, wait=not no_wait)
    _show_told(told, no_wait=no_wait, as_json=as_json)


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
    """Accept a key of an existing platform, by its SHA-256 or as it is on standard input.

    Example: cachegate keys import --tenant acme --stdin < key
    """
    if (sha256 is None) is not stdin:
        raise BadNameError("say where the key comes from: --sha256 HEX or --stdin")
    wishes = _Wishes(tenant, False, name, expires, not_before, scopes, networks)
    raw_key = sys.stdin.readline().rstrip("\r\n") if stdin else None
    if (gateway := find_gateway()) is not None:
        # The key itself stays on this machine: its SHA-256 is what is sent.
        digest = parse_sha256(sha256 or "") if raw_key is None else sha256_of_adopted(raw_key)
        _create_through(gateway, wishes, {"sha256": digest}, no_wait=no_wait, as_json=as_json)
        return

    async def work(session: OperatorSession) -> Made:
        order = wishes.order(session.clock.now())
        if raw_key is not None:
            new = adopt_key(order, raw_key=raw_key, peppers=session.peppers)
        else:
            new = import_key(order, sha256_hex=sha256 or "", peppers=session.peppers)
        return await add_key(session, "keys.import", edits.import_key, new, raw_key, wait=not no_wait)

    _show_made(in_session(work), as_json=as_json)


@commands.command("revoke")
def revoke(
    key_id: Annotated[
        str | None, typer.Argument(metavar="[KEY_ID]", help="The key's id, as `keys list` shows it.")
    ] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Revoke all keys of this tenant.")] = None,
    found: Annotated[
        str | None,
        typer.Option(
            help="Revoke the keys among found tokens: a file with one a line, or the JSON array that secret "
            "scanners send. `-` is standard input."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for its record and the audit log.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --found: only say what the tokens are.")
    ] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Refuse a key from now on, in every worker when this returns; its transfers are cut off.

    Its access tokens and signed links end with it.

    Example: cachegate keys revoke key_R4bDt3yWK8gu --reason "in a build log"

    Example: cachegate keys revoke --found scanner.json
    """
    if sum(one is not None for one in (key_id, tenant, found)) != 1:
        raise BadNameError("say which: one KEY_ID, --tenant T, or --found FILE")
    if dry_run and found is None:
        raise BadNameError("--dry-run is for --found: without it there is nothing to find out")
    why, wait = parse_reason(reason), not no_wait
    if key_id is not None:
        parsed = parse_key_id(key_id)
        perform(
            "keys.revoke",
            partial(edits.revoke_key, key_id=parsed, now=SystemClock().now(), reason=why),
            {"key_id": parsed},
            Sent("POST", f"/keys/{parsed}/revoke", {"reason": why}),
            no_wait=no_wait,
            as_json=as_json,
            key_id=parsed,
            subject=(f"reason: {why}",) if why else (),
        )
        return
    if tenant is not None:
        made = _revoke_of_tenant(parse_tenant_id(tenant), why, wait=wait)
    else:
        tokens = parse_found(_read_found(found or ""))
        made = _revoke_found(tokens, why or FOUND_REASON, wait=wait, is_dry=dry_run)
    _show_revocations(made, as_json=as_json)


def _revoke_of_tenant(tenant: TenantId, why: str, *, wait: bool) -> Revocations:
    if (gateway := find_gateway()) is not None:
        return remote_keys.revoke_of_tenant(gateway, tenant, why, wait=wait)
    return in_session(lambda session: revoke_of_tenant(session, tenant, reason=why, wait=wait))


def _revoke_found(tokens: Sequence[str], why: str, *, wait: bool, is_dry: bool) -> Revocations:
    if (gateway := find_gateway()) is not None:
        return remote_keys.revoke_found(gateway, tokens, why, wait=wait, is_dry=is_dry)
    return in_session(lambda session: revoke_found(session, tokens, reason=why, wait=wait, is_dry=is_dry))


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

    Example: cachegate keys rotate key_R4bDt3yWK8gu --overlap 7d > new-key
    """
    parsed, overlap_seconds = parse_key_id(key_id), parse_duration(overlap)
    if overlap_seconds > edits.MAX_OVERLAP_SECONDS:
        raise BadNameError(f"--overlap {overlap}: expected 0s to 30d")
    if (gateway := find_gateway()) is not None:
        ends = parse_moment(expires, SystemClock().now()) if expires else None
        body = {"overlap_seconds": overlap_seconds, "expires_at": None if ends is None else when(ends)}
        told = gateway.change("POST", f"/keys/{parsed}/rotate", body, wait=not no_wait)
        ended = {"replaces": parsed, "old_ends_at": told["old_ends_at"]}
        _show_told(told, no_wait=no_wait, as_json=as_json, ends=ended)
        return

    async def work(session: OperatorSession) -> Made:
        ends_at = parse_moment(expires, session.clock.now()) if expires else None
        return await rotate_key(
            session, parsed, overlap_seconds=overlap_seconds, expires_at=ends_at, wait=not no_wait
        )

    made = in_session(work)
    _show_made(made, as_json=as_json, ends={"replaces": parsed, "old_ends_at": when(made.old_ends_at)})


@commands.command("rotations")
def rotations(tenant: OfTenant = None, as_json: AsJson = False) -> None:
    """List rotations whose overlap is not over: both keys are valid until it ends.

    Example: cachegate keys rotations --tenant acme
    """
    only = parse_tenant_id(tenant) if tenant else None
    if (gateway := find_gateway()) is not None:
        found = remote_keys.list_rotations(gateway, only)
    else:
        found = in_session(lambda session: list_rotations(session, only))
    rows = (
        (one.old, one.new, one.tenant or "(admin)", one.ends_at, one.old_last_used_at, one.new_last_used_at)
        for one in found
    )
    columns = ("old key", "new key", "tenant", "overlap ends", "old last used", "new last used")
    show(found, [Table("Rotations", columns, rows, "No rotation is under way.")], as_json=as_json)


@commands.command("close")
def close(key_id: KeyArgument, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """End the overlap of a rotation now, by the id of either key: the old one is revoked.

    Example: cachegate keys close key_R4bDt3yWK8gu
    """
    _change(edits.close_overlap, "close", key_id, no_wait=no_wait, as_json=as_json)


@commands.command("disable")
def disable(key_id: KeyArgument, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Refuse a key until it is enabled again, as surely as by revoking it; its transfers are cut off.

    Example: cachegate keys disable key_R4bDt3yWK8gu
    """
    _change(edits.disable_key, "disable", key_id, no_wait=no_wait, as_json=as_json)


@commands.command("enable")
def enable(key_id: KeyArgument, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Accept a disabled key again.

    Example: cachegate keys enable key_R4bDt3yWK8gu
    """
    _change(edits.enable_key, "enable", key_id, no_wait=no_wait, as_json=as_json)


@commands.command("change")
def change(
    key_id: KeyArgument,
    name: Annotated[str | None, typer.Option(help="Another name for people.")] = None,
    scopes: Scopes = None,
    networks: Networks = None,
    any_network: Annotated[bool, typer.Option("--any-network", help="It may be used from anywhere.")] = False,
    expires: Expires = None,
    no_expiry: Annotated[bool, typer.Option("--no-expiry", help="It does not end by itself.")] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Change a key's name, scopes, networks or expiry. What is not named stays as it is.

    Example: cachegate keys change key_R4bDt3yWK8gu --networks 10.0.0.0/8 --expires 30d
    """
    parsed = parse_key_id(key_id)
    if (networks and any_network) or (expires and no_expiry):
        raise BadNameError("--any-network or --networks, --no-expiry or --expires: one of them")
    if (gateway := find_gateway()) is not None:
        ends = parse_moment(expires, SystemClock().now()) if expires else None
        patch: dict[str, Any] = {} if name is None else {"name": parse_name(name)}
        patch |= {"scopes": scopes} if scopes else {}
        patch |= {"networks": parse_networks(networks or ())} if networks or any_network else {}
        patch |= {"expires_at": None if ends is None else when(ends)} if expires or no_expiry else {}
        if not patch:
            raise BadNameError(NOTHING_TO_CHANGE)
        told = gateway.change("PATCH", f"/keys/{parsed}", patch, wait=not no_wait)
        show_change(told_change(told, is_waited_for=not no_wait), {"key_id": parsed}, as_json=as_json)
        return

    async def work(session: OperatorSession) -> Done[Effect]:
        now, known = session.clock.now(), await find_key(session, parsed)
        ends_at = parse_moment(expires, now) if expires else None
        wanted = KeyChange(
            name=UNSET if name is None else parse_name(name),
            scopes=parse_scopes(scopes, known.kind, known.role) if scopes else UNSET,
            networks=parse_networks(networks or ()) if networks or any_network else UNSET,
            expires_at=ends_at if expires or no_expiry else UNSET,
        )
        if not wanted.named:
            raise BadNameError(NOTHING_TO_CHANGE)
        edit = partial(edits.change_key, key_id=parsed, wanted=wanted, now=now)
        return await session.perform(
            "keys.change", edit, key_id=parsed, subject=wanted.named, wait=not no_wait
        )

    show_change(in_session(work), {"key_id": parsed}, as_json=as_json)


@commands.command("list")
def list_(
    tenant: OfTenant = None,
    state: Annotated[
        KeyFilter | None, typer.Option(help="Only keys in this state; rotating: the old ones of rotations.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    after: Annotated[str | None, typer.Option(metavar="KEY_ID", help="Those after this key.")] = None,
    as_json: AsJson = False,
) -> None:
    """List keys: of one tenant, or all, the admin keys first. The oldest come first.

    Example: cachegate keys list --tenant acme --state live --limit 100
    """
    only = parse_tenant_id(tenant) if tenant else None
    last = parse_key_id(after) if after else None
    if (gateway := find_gateway()) is not None:
        keys = remote_keys.list_keys(gateway, only, state=state, after=last, limit=limit)
    else:
        keys = in_session(lambda session: list_keys(session, only, state=state, after=last, limit=limit))
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
    if state is not None or last is not None:
        empty = "No such key."
    shown: list[Note | Line | Table] = [Table("Keys", columns, rows, empty)]
    if limit is not None and len(keys) == limit:
        shown.append(Note(f"There may be more: --after {keys[-1].key_id}"))
    show(keys, shown, as_json=as_json)


@commands.command("show")
def show_(key_id: KeyArgument, as_json: AsJson = False) -> None:
    """Show a key's record. The key itself is stored nowhere and cannot be shown.

    Example: cachegate keys show key_R4bDt3yWK8gu
    """
    parsed = parse_key_id(key_id)
    if (gateway := find_gateway()) is not None:
        key = remote.key_view(gateway.get(f"/keys/{parsed}"))
    else:
        key = in_session(lambda session: find_key(session, parsed))
    _show_key(key, as_json=as_json)


@commands.command("identify")
def identify_(as_json: AsJson = False) -> None:
    """Show whose key a found token is, which is read from standard input. Nothing is changed.

    Example: cachegate keys identify < found-token
    """
    token = sys.stdin.readline(MAX_OPAQUE_CHARACTERS + 2)
    if (gateway := find_gateway()) is not None:
        told = gateway.ask("/keys/identify", {"token": token.strip() or " "})
        _show_key(remote.key_view(told), as_json=as_json)
        return

    async def work(session: OperatorSession) -> KeyView:
        return await find_key(session, await identify(session, token))

    _show_key(in_session(work), as_json=as_json)


@commands.command("report")
def report(
    tenant: OfTenant = None,
    soon: Annotated[str, typer.Option(help="Until when a key ends to be ending soon.")] = "14d",
    new: Annotated[str, typer.Option(help="Since when a network is new.")] = "30d",
    as_json: AsJson = False,
) -> None:
    """Report keys that were never used, never end, end soon, or were used from a new network.

    Example: cachegate keys report --soon 30d
    """
    only = parse_tenant_id(tenant) if tenant else None
    soon_seconds, new_seconds = parse_duration(soon), parse_duration(new)
    if (gateway := find_gateway()) is not None:
        found = remote_keys.key_report(gateway, only, soon_seconds=soon_seconds, new_seconds=new_seconds)
    else:
        found = in_session(
            lambda session: key_report(session, only, soon_seconds=soon_seconds, new_seconds=new_seconds)
        )
    columns = ("concern", "key id", "tenant", "name", "expires", "last used", "from", "new networks")
    rows = (
        (
            concern,
            one.key_id,
            one.tenant or "(admin)",
            one.name,
            one.expires_at,
            one.last_used_at,
            one.last_used_network,
            " ".join(one.new_networks) or None,
        )
        for concern, keys in found.keys.items()
        for one in keys
    )
    shown: list[Note | Line | Table] = [
        Table("Keys to look at", columns, rows, "No key needs to be looked at.")
    ]
    for concern, keys in found.keys.items():
        if found.counts[concern] > len(keys):
            shown.append(Note(f"{concern}: {found.counts[concern] - len(keys)} more are not listed"))
    show(found, shown, as_json=as_json)


def _change(
    edit: Callable[..., Awaitable[Effect]], verb: str, key_id: str, *, no_wait: bool, as_json: bool
) -> None:
    """Make a change that needs nothing but the key and the time."""
    parsed = parse_key_id(key_id)
    made, through = (
        partial(edit, key_id=parsed, now=SystemClock().now()),
        Sent("POST", f"/keys/{parsed}/{verb}"),
    )
    details = {"key_id": parsed}
    perform(f"keys.{verb}", made, details, through, no_wait=no_wait, as_json=as_json, key_id=parsed)


def _read_found(path: str) -> bytes:
    """The list of found tokens: no more of it than is accepted."""
    if path == "-":
        return sys.stdin.buffer.read(MAX_LIST_BYTES + 1)
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise BadNameError(f"--found {path}: cannot be read ({error.strerror})") from error


def _show_revocations(made: Revocations, *, as_json: bool) -> None:
    document = {
        "revoked": made.keys,
        "generation": made.generation,
        "sure": made.is_sure,
        "barriers": [barrier_document(one) for one in made.barriers],
        "found": made.found,
    }

    def shown() -> Iterator[Note | Table]:
        yield from _shown_revocations(made.keys, made.found)
        for barrier in made.barriers:
            yield from barrier_notes(barrier)

    show(document, shown(), as_json=as_json, is_yes=made.is_sure)


def _shown_revocations(keys: Sequence[RevokedKey], found: Sequence[FoundToken]) -> Iterator[Note | Table]:
    yield from map(Note, (_revoked_line(one) for one in keys))
    ours = [one for one in found if one.key_id is not None]
    if found:
        rows = ((one.place, one.kind, one.key_id, one.tenant, WHY[one.kind]) for one in found)
        yield Table("Found tokens", ("place", "what", "key id", "tenant", "meaning"), rows)
        yield Note(f"{len(ours)} of {len(found)} are keys of ours.")
    elif not keys:
        yield Note("There was nothing to revoke.")


def _revoked_line(one: RevokedKey) -> str:
    return f"key {one.key_id} is revoked" if one.is_changed else f"key {one.key_id} was revoked already"


def _show_key(key: KeyView, *, as_json: bool) -> None:
    rows = ((name.replace("_", " "), _text(value)) for name, value in asdict(key).items())
    show(key, [Table(f"Key {key.key_id}", ("", ""), rows)], as_json=as_json)


def _text(value: object) -> object:
    return " ".join(value) or "-" if isinstance(value, list | tuple) else value


def _show_made(made: Made, *, as_json: bool, ends: dict[str, str | None] | None = None) -> None:
    """Show a new key that was made on the state folder."""
    new = made.new
    view = key_view(new.key, new.key.created_at, None)
    _show_new(view, made.done, new.token, ends or {}, as_json=as_json)


def _show_told(
    told: dict[str, Any], *, no_wait: bool, as_json: bool, ends: dict[str, str | None] | None = None
) -> None:
    """Show a new key that a gateway made."""
    done = told_change(told, is_waited_for=not no_wait)
    _show_new(remote.key_view(told["key"]), done, told["token"], ends or {}, as_json=as_json)


def _show_new(
    view: KeyView, done: Done[Effect], token: str | None, ends: dict[str, str | None], *, as_json: bool
) -> None:
    """Show a new key. The token goes to standard output alone, so that a pipe gets it."""
    document = {
        **asdict(view),
        "generation": done.generation,
        "changed": done.result.is_changed,
        "messages": done.result.sentences,
        **barrier_document(done.barrier),
        **ends,
        **({} if token is None else {"token": token}),
    }

    def shown() -> Iterator[Note | Line]:
        yield from map(Note, done.result.sentences)
        yield from barrier_notes(done.barrier)
        if token is not None:
            yield Note("This is the key. It is shown once and stored nowhere:", "bold")
            yield Line(token)

    with nullcontext() if token is None else showing_key(view.key_id):
        show(document, shown(), as_json=as_json, is_yes=is_sure(done.barrier))
