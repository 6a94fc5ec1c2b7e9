"""The entries of an engine's auto-resolution cache: read them, tell whose they are, remove one tenant's.

An engine caches each answer for up to a day and loads by it without asking the gateway, even after the key
was revoked. The gateway cannot change that, so an operator has to be able to see it. Entries of a key that is
not valid now and that engines still honour are listed first. An entry is assigned to a key by its mark
(`credential_marks`). A key that this gateway has never seen in use, and that was not made by it, has none:
its entries are listed without a key.

Files are read by descriptor, without following links, and in bounded number: anyone who can write there may
write anything. An entry that does not parse is reported as such, because that we cannot parse it does not
prove that no engine would.

The gateway itself never removes an entry: it never writes below the cache root (I9). Removal is for an
operator who names the engine's own volume, and it removes only entries that were just read as that tenant's.
It is recorded before and after. Removing an entry only makes an engine ask again: the models and files stay,
and so does what an engine already has in memory.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from gateway.assembly.components import build_recorder
from gateway.assembly.credential_marks import find_keys
from gateway.engine.credential_hash import credential_hash
from gateway.engine.resolutions import (
    MAX_RESOLUTION_BYTES,
    RESOLUTIONS,
    honoured_until,
    is_resolution_name,
    parse_resolution,
)
from gateway.identity.new_keys import KeyState, key_state
from gateway.model.errors import Conflict, Refusal, Unavailable
from gateway.model.moments import when
from gateway.model.verdicts import Change
from gateway.operations.known_names import unknown_tenant
from gateway.resource.safe_open import names_in, open_regular, opened_directory, opened_root
from gateway.resource.unservable import finding_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import tzinfo
    from pathlib import Path

    from gateway.engine.credential_hash import CredentialHash
    from gateway.engine.resolutions import Resolution
    from gateway.model.facts import Key
    from gateway.model.names import KeyId, TenantId
    from gateway.operations.session import OperatorSession

MAX_ENTRIES = 20_000  # some 20 MB to read; an engine writes one for each key, model and machine

# enough to find the file; the whole name is a hash of a request, key included (I8)
SHOWN_NAME_CHARACTERS = 12

ANONYMOUS = frozenset({credential_hash(None), credential_hash(""), credential_hash("local")})

NO_KEY, UNKNOWN, SUSPENDED, UNREADABLE = "no-key", "unknown", "suspended", "unreadable"


class ResolutionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of that cache: its content, or why it could not be read."""

    name: str
    resolution: Resolution | None
    fault: str | None = None


class Entries(msgspec.Struct, frozen=True, kw_only=True):
    """The entries that were read; `left_out` more were not."""

    entries: tuple[ResolutionEntry, ...]
    left_out: int


class EntryView(msgspec.Struct, frozen=True, kw_only=True):
    """An entry and its key, as operators see them. `outlives_its_key`: engines load by it, not by the key."""

    entry: str
    tenant: TenantId | None
    key_id: KeyId | None
    key_state: str
    model: str | None
    canonical_model: str | None
    package: str | None
    created_at: str | None
    age_seconds: int | None
    honoured: bool
    outlives_its_key: bool
    fault: str | None


class EntriesView(msgspec.Struct, frozen=True, kw_only=True):
    """The entries below a folder; `left_out` more were not read."""

    root: str
    client_minutes: int
    entries: list[EntryView]
    left_out: int


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a removal."""

    removed: tuple[str, ...]
    failed: tuple[str, ...]


async def list_entries(
    session: OperatorSession, owner: TenantId | None, volume: Path | None, client_minutes: int
) -> EntriesView:
    """All entries, or those of one tenant, of clients that are set to honour them for so long."""
    if owner is not None and await session.listing.find_tenant(owner) is None:
        raise unknown_tenant(owner)
    now, root = session.clock.now(), volume or session.settings.cache_root
    read = read_entries(root, local_zone(now))
    known = await find_keys(session.store, session.peppers, _hashes(read.entries))
    keys = {key_id: await session.listing.find_key(key_id) for key_id in set(known.values())}
    suspended = await _suspended(session, {key.tenant for key in keys.values() if key is not None})
    entries = [
        _judge(one, known, keys, suspended, now, client_minutes)
        for one in sorted(read.entries, key=_newest_first)
    ]
    if owner is not None:
        entries = [one for one in entries if one.tenant == owner]
    entries.sort(key=lambda one: (not one.outlives_its_key, not one.honoured))
    return EntriesView(root=str(root), client_minutes=client_minutes, entries=entries, left_out=read.left_out)


async def purge_entries(session: OperatorSession, owner: TenantId, volume: Path) -> Removal:
    """Remove a tenant's entries from an engine's own volume. Raises `Conflict` where nothing can be."""
    if await session.listing.find_tenant(owner) is None:
        raise unknown_tenant(owner)
    verify_removable(volume)
    zone = local_zone(session.clock.now())
    entries = read_entries(volume, zone).entries
    theirs = set()
    for credential, key_id in (await find_keys(session.store, session.peppers, _hashes(entries))).items():
        key = await session.listing.find_key(key_id)
        if key is not None and key.tenant == owner:
            theirs.add(credential)

    def is_theirs(resolution: Resolution) -> bool:
        return resolution.credential_hash in theirs

    names = [one.name for one in entries if one.resolution is not None and is_theirs(one.resolution)]
    recorder = build_recorder(session.settings, session.clock)
    try:
        change = Change(
            actor=session.actor,
            action="cache.purge-resolutions",
            tenant=owner,
            subject=(f"volume {volume}", f"{len(names)} entries"),
            received_at=session.clock.now(),
        )
        receipt = recorder.change(change)
        done = None
        try:
            done = remove_entries(volume, names, zone, is_theirs)
        finally:
            receipt.close(generation=None, result=_result(done))
    finally:
        recorder.close()
    return done


def _hashes(entries: Iterable[ResolutionEntry]) -> list[CredentialHash]:
    found = [one.resolution.credential_hash for one in entries if one.resolution is not None]
    return [one for one in found if one]


def _newest_first(entry: ResolutionEntry) -> float:
    return -(entry.resolution.created_at if entry.resolution else 0.0)


def _result(done: Removal | None) -> str:
    if done is None:
        return "interrupted, some may have been removed"
    return f"removed {len(done.removed)}, failed {len(done.failed)}"


async def _suspended(session: OperatorSession, owners: Iterable[TenantId | None]) -> set[TenantId]:
    """The owners whose keys are refused: suspended tenants, and tenants that no longer exist."""
    found = set()
    for owner in owners:
        tenant = await session.listing.find_tenant(owner) if owner is not None else None
        if owner is not None and (tenant is None or tenant.is_suspended):
            found.add(owner)
    return found


def _judge(
    entry: ResolutionEntry,
    known: dict[CredentialHash, KeyId],
    keys: dict[KeyId, Key | None],
    suspended: set[TenantId],
    now: float,
    client_minutes: int,
) -> EntryView:
    found = entry.resolution
    key_id = known.get(found.credential_hash) if found and found.credential_hash else None
    key = keys.get(key_id) if key_id else None
    if found is None:
        state = UNREADABLE
    elif key is None:
        state = NO_KEY if found.credential_hash in ANONYMOUS else UNKNOWN
    elif key.tenant in suspended:
        state = SUSPENDED
    else:
        state = key_state(key, now).value
    is_honoured = found is not None and now <= honoured_until(found, client_minutes)
    return EntryView(
        entry=entry.name[:SHOWN_NAME_CHARACTERS],
        tenant=key.tenant if key else None,
        key_id=key.key_id if key else None,
        key_state=state,
        model=found.model if found else None,
        canonical_model=found.canonical_model if found else None,
        package=found.package if found else None,
        created_at=when(found.created_at) if found else None,
        age_seconds=round(now - found.created_at) if found else None,
        honoured=is_honoured,
        outlives_its_key=is_honoured and key is not None and state != KeyState.LIVE,
        fault=entry.fault,
    )


def local_zone(now: float) -> tzinfo | None:
    """This machine's zone. The engine dates entries by its machine's local time, without a zone."""
    return datetime.fromtimestamp(now, UTC).astimezone().tzinfo


def read_entries(root: Path, zone: tzinfo | None) -> Entries:
    """The entries below an engine's folder, with times in this zone."""
    try:
        with (
            opened_root(root) as root_descriptor,
            opened_directory(RESOLUTIONS, below=root_descriptor, is_listable=True) as directory,
        ):
            if directory is None:
                return Entries(entries=(), left_out=0)
            names = sorted(filter(is_resolution_name, names_in(directory)))
            entries = tuple(_read(name, directory, zone) for name in names[:MAX_ENTRIES])
            return Entries(entries=entries, left_out=max(0, len(names) - MAX_ENTRIES))
    except Refusal as error:
        raise Conflict(f"{root}: {finding_of(error)}; an engine does not leave that there") from error


def remove_entries(
    root: Path, names: Iterable[str], zone: tzinfo | None, is_theirs: Callable[[Resolution], bool]
) -> Removal:
    """Read these entries again, and remove those that are still theirs."""
    removed: list[str] = []
    failed: list[str] = []
    with (
        opened_root(root) as root_descriptor,
        opened_directory(RESOLUTIONS, below=root_descriptor, is_listable=True) as directory,
    ):
        if directory is None:
            return Removal(removed=(), failed=())
        for name in names:
            entry = _read(name, directory, zone)
            if entry.resolution is None or not is_theirs(entry.resolution):
                continue
            try:
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                continue
            except OSError:
                failed.append(name)
            else:
                removed.append(name)
    return Removal(removed=tuple(removed), failed=tuple(failed))


def verify_removable(root: Path) -> None:
    """Raises `Conflict` where nothing could be removed: no such folder, or a read-only mount."""
    try:
        flags = os.statvfs(root / RESOLUTIONS).f_flag
    except OSError as error:
        raise Conflict(f"{root / RESOLUTIONS} cannot be accessed ({error.strerror}); name the folder that "
                       "the engine has as its INFERENCE_HOME") from error  # fmt: skip
    if flags & os.ST_RDONLY:
        raise Conflict(
            f"{root} is mounted read-only here, as it should be for a gateway (I9); run this where the "
            "engine's own volume is mounted for writing"
        )


def _read(name: str, directory: int, zone: tzinfo | None) -> ResolutionEntry:
    try:
        found = open_regular(name, below=directory, may_have_other_names=False)
        if found is None:
            return ResolutionEntry(name=name, resolution=None, fault="it was removed while it was read")
        descriptor, _ = found
        with os.fdopen(descriptor, "rb") as file:
            raw = file.read(MAX_RESOLUTION_BYTES + 1)
        return ResolutionEntry(name=name, resolution=parse_resolution(raw, zone or UTC))
    except Refusal as error:
        # The full name is a hash of a request, its key included: it is not repeated (I8).
        return ResolutionEntry(name=name, resolution=None, fault=finding_of(error).removeprefix(f"{name}: "))
    except Unavailable as error:
        return ResolutionEntry(name=name, resolution=None, fault=error.why.removeprefix(f"{name}: "))
    except OSError as error:
        return ResolutionEntry(name=name, resolution=None, fault=error.strerror)
