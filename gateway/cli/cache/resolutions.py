"""`cachegate cache resolutions`: which entries engines would still load models by, and for whose keys.

An engine caches each answer for up to a day and loads by it without asking the gateway, even after the key
was revoked. The gateway cannot change that, so an operator has to be able to see it. Entries of a key that is
not valid now and that engines still honour are listed first.

An entry is assigned to a key by its mark (`credential_marks`). A key that this gateway has never seen in use,
and that was not made by it, has none: its entries are shown without a key.

`--purge` removes one tenant's entries from the engine's own volume. It is the one command that writes there,
so it requires the tenant, the volume and `--yes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.assembly.credential_marks import find_keys
from gateway.cli.cache.resolutions_purge import purge_entries
from gateway.cli.perform import in_session
from gateway.engine.credential_hash import credential_hash
from gateway.engine.resolutions import DEFAULT_CLIENT_MINUTES, honoured_until
from gateway.identity.new_keys import KeyState, key_state
from gateway.model.errors import BadNameError
from gateway.model.names import parse_tenant_id
from gateway.operations.cache.resolutions import local_zone, read_entries
from gateway.operations.known_names import unknown_tenant
from gateway.terminal.console import AsJson, print_json, print_table, say, when
from gateway.terminal.escaping import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.engine.credential_hash import CredentialHash
    from gateway.model.facts import Key
    from gateway.model.names import KeyId, TenantId
    from gateway.operations.cache.resolutions import Entry
    from gateway.operations.session import OperatorSession

# enough to find the file; the whole name is a hash of a request, key included (I8)
SHOWN_NAME_CHARACTERS = 12

ANONYMOUS = frozenset({credential_hash(None), credential_hash(""), credential_hash("local")})

NO_KEY, UNKNOWN, SUSPENDED, UNREADABLE = "no-key", "unknown", "suspended", "unreadable"


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One entry and what is known of its key."""

    entry: Entry
    key: Key | None
    state: str
    is_honoured: bool

    @property
    def outlives(self) -> bool:
        """Whether engines still load by it although its key is not valid now."""
        return self.is_honoured and self.key is not None and self.state != KeyState.LIVE

    def plain(self, now: float) -> dict[str, Any]:
        """The JSON form."""
        found = self.entry.resolution
        return {
            "entry": self.entry.name[:SHOWN_NAME_CHARACTERS],
            "tenant": self.key.tenant if self.key else None,
            "key_id": self.key.key_id if self.key else None,
            "key_state": self.state,
            "model": found.model if found else None,
            "canonical_model": found.canonical_model if found else None,
            "package": found.package if found else None,
            "created_at": when(found.created_at) if found else None,
            "age_seconds": round(now - found.created_at) if found else None,
            "honoured": self.is_honoured,
            "outlives_its_key": self.outlives,
            "fault": self.entry.fault,
        }


def resolutions(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only entries of this tenant.")] = None,
    client_minutes: Annotated[
        int,
        typer.Option(min=0, help="The AUTO_LOADER_CACHE_EXPIRATION_MINUTES that clients run with."),
    ] = DEFAULT_CLIENT_MINUTES,
    volume: Annotated[
        Path | None, typer.Option(help="The engine's INFERENCE_HOME; the cache root, if none is named.")
    ] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove the tenant's entries from the volume that is named.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --purge: really.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what engines would still load without asking, by key; or remove one tenant's entries."""
    owner = parse_tenant_id(tenant) if tenant else None
    if purge:
        if owner is None or volume is None:
            raise BadNameError("--purge wants to be told whose and where: --tenant T --volume PATH")
        if not yes:
            raise BadNameError(f"--purge removes files below {volume}; add --yes if that is meant")
        purge_entries(owner, volume, as_json=as_json)
        return

    async def work(session: OperatorSession) -> dict[str, Any]:
        return await _survey(session, owner, volume, client_minutes)

    document = in_session(work)
    if as_json:
        print_json(document)
    else:
        _print(document)


async def _survey(
    session: OperatorSession, owner: TenantId | None, volume: Path | None, client_minutes: int
) -> dict[str, Any]:
    if owner is not None and await session.listing.find_tenant(owner) is None:
        raise unknown_tenant(owner)
    now, root = session.clock.now(), volume or session.settings.cache_root
    read = read_entries(root, local_zone(now))
    hashes = [
        one.resolution.credential_hash
        for one in read.entries
        if one.resolution and one.resolution.credential_hash
    ]
    known = await find_keys(session.store, session.peppers, hashes)
    keys = {key_id: await session.listing.find_key(key_id) for key_id in set(known.values())}
    suspended = await _suspended(session, {key.tenant for key in keys.values() if key is not None})
    shown = [_judge(one, known, keys, suspended, now, client_minutes) for one in read.entries]
    if owner is not None:
        shown = [one for one in shown if one.key is not None and one.key.tenant == owner]
    shown.sort(key=_first_what_matters)
    return {
        "root": str(root),
        "client_minutes": client_minutes,
        "entries": [one.plain(now) for one in shown],
        "left_out": read.left_out,
    }


async def _suspended(session: OperatorSession, owners: Iterable[TenantId | None]) -> set[TenantId]:
    """The owners whose keys are refused: suspended tenants, and tenants that no longer exist."""
    found = set()
    for owner in owners:
        tenant = await session.listing.find_tenant(owner) if owner is not None else None
        if owner is not None and (tenant is None or tenant.is_suspended):
            found.add(owner)
    return found


def _judge(
    entry: Entry,
    known: dict[CredentialHash, KeyId],
    keys: dict[KeyId, Key | None],
    suspended: set[TenantId],
    now: float,
    client_minutes: int,
) -> Shown:
    found = entry.resolution
    if found is None:
        return Shown(entry=entry, key=None, state=UNREADABLE, is_honoured=False)
    is_honoured = now <= honoured_until(found, client_minutes)
    key_id = known.get(found.credential_hash) if found.credential_hash else None
    key = keys.get(key_id) if key_id else None
    if key is None:
        state = NO_KEY if found.credential_hash in ANONYMOUS else UNKNOWN
    elif key.tenant in suspended:
        state = SUSPENDED
    else:
        state = key_state(key, now).value
    return Shown(entry=entry, key=key, state=state, is_honoured=is_honoured)


def _first_what_matters(one: Shown) -> tuple[bool, bool, float]:
    created = one.entry.resolution.created_at if one.entry.resolution else 0.0
    return not one.outlives, not one.is_honoured, -created


def _print(document: dict[str, Any]) -> None:
    rows = [
        (
            one["entry"],
            one["tenant"] or "-",
            one["key_id"] or "-",
            one["key_state"],
            escape_controls(one["model"] or "-"),
            one["package"] or "-",
            _age(one["age_seconds"]),
            _verdict(one),
        )
        for one in document["entries"]
    ]
    columns = ("entry", "tenant", "key id", "key", "model", "package", "age", "engines")
    root = escape_controls(document["root"])
    print_table(f"Auto-resolution entries below {root}", columns, rows, f"No entry below {root}.")
    outliving = sum(one["outlives_its_key"] for one in document["entries"])
    if document["left_out"]:
        say(f"{document['left_out']} more entries were not looked at.", style="yellow")
    if outliving:
        say(
            f"{outliving} would still be honoured although their key is not valid now. Engines with "
            "AUTO_LOADER_CACHE_EXPIRATION_MINUTES=0 honour none; --purge removes a tenant's entries.",
            style="bold red",
        )


def _verdict(one: dict[str, Any]) -> str:
    if one["fault"]:
        return f"unreadable: {escape_controls(one['fault'])}"
    if one["outlives_its_key"]:
        return "STILL LOAD BY IT"
    return "load by it" if one["honoured"] else "ask again"


def _age(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    hours, minutes = divmod(max(0, seconds) // 60, 60)
    return f"{hours} h {minutes:02} min"
