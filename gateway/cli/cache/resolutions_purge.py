"""Remove one tenant's entries from the engine's own volume, with an audit record before and after.

Removing an entry only makes an engine ask again. The models and files themselves stay, and so does what an
engine already has in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from gateway.assembly.components import build_recorder
from gateway.assembly.credential_marks import find_keys
from gateway.cli.perform import in_session
from gateway.model.verdicts import Change
from gateway.operations.cache.resolutions import (
    Removal,
    local_zone,
    read_entries,
    remove_entries,
    verify_removable,
)
from gateway.operations.known_names import unknown_tenant
from gateway.terminal.console import print_json, say
from gateway.terminal.escaping import escape_controls

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.engine.resolutions import Resolution
    from gateway.model.names import TenantId
    from gateway.operations.session import OperatorSession

ACTION = "cache.purge-resolutions"


def purge_entries(owner: TenantId, volume: Path, *, as_json: bool) -> None:
    """Remove the tenant's entries below this volume and print the result. Exits 1 if some failed."""

    async def work(session: OperatorSession) -> Removal:
        return await _purge(session, owner, volume)

    done = in_session(work)
    if as_json:
        document: dict[str, Any] = {"tenant": owner, "volume": str(volume)}
        print_json(document | {"removed": len(done.removed), "failed": len(done.failed)})
    else:
        say(f"{len(done.removed)} entries of {owner} were removed below {escape_controls(volume)}.")
        if done.failed:
            say(f"{len(done.failed)} could not be: run this as the engine's user.", style="red")
    if done.failed:
        raise typer.Exit(1)


async def _purge(session: OperatorSession, owner: TenantId, volume: Path) -> Removal:
    if await session.listing.find_tenant(owner) is None:
        raise unknown_tenant(owner)
    verify_removable(volume)
    zone = local_zone(session.clock.now())
    entries = read_entries(volume, zone).entries
    found = [one.resolution.credential_hash for one in entries if one.resolution is not None]
    theirs = set()
    for credential, key_id in (await find_keys(session.store, session.peppers, filter(None, found))).items():
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
            action=ACTION,
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


def _result(done: Removal | None) -> str:
    if done is None:
        return "interrupted, some may have been removed"
    return f"removed {len(done.removed)}, failed {len(done.failed)}"
