"""`cachegate cache`: verify and pin all files, show the cache's state, release blobs from quarantine.

`resolutions --purge` is the one command that writes below a volume of the engine, so it requires the tenant,
the volume and `--yes`.

With `shared_links = "attested"`, a link to a blob that other owners link as well counts only where the
provider's metadata of that model named the digest, or an operator did, with `attest`. Without digests, it
covers all that the model's manifests list now, so check them first: anyone who can write to the volume can
list what is not theirs. Leaving a digest out later does not withdraw it.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.perform import NoWait, in_session, perform, show_change
from gateway.cli.remote import Sent
from gateway.directory.edits.pins import release_blob
from gateway.directory.edits.provenance import attest as attest_digests
from gateway.engine.resolutions import DEFAULT_CLIENT_MINUTES
from gateway.model.errors import BadNameError
from gateway.model.names import parse_md5, parse_model_id, parse_tenant_id
from gateway.model.records import SOURCE_CLI
from gateway.operations.cache.files import load_listed_digests
from gateway.operations.cache.resolutions import list_entries, purge_entries
from gateway.operations.cache.status import load_status
from gateway.operations.cache.verify import verify_cache
from gateway.terminal.console import AsJson, Note, Table, show
from gateway.terminal.escaping import escape_controls
from gateway.terminal.progress import readable_size, reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.directory.edits.effect import Effect
    from gateway.model.names import TenantId
    from gateway.operations.cache.resolutions import EntriesView, EntryView
    from gateway.operations.cache.status import CacheStatus
    from gateway.operations.cache.verify import Verification
    from gateway.operations.session import OperatorSession
    from gateway.registrar import Done

commands = typer.Typer(
    help="The cache's content: verify, status, release, resolutions, attest.",
    no_args_is_help=True,
)

MAX_SHOWN = 20  # rows of a table for people; --json has all
MAX_NAMED = 100  # digests that the audit record names, beside their number


@commands.command("verify")
def verify(
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=256, help="How many files are hashed at once.")
    ] = min(4, os.cpu_count() or 1),
    again: Annotated[
        bool,
        typer.Option("--again", help="Hash also what was hashed before and did not change since."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hash every file of the cache and pin every blob. What was hashed before and did not change is not read.

    With --again it is: a store through a mapping of a file may change content and no time, and disks rot.

    Exit status 1 when a blob is in quarantine or a file could not be read.
    """
    with reading("hashing") as progress:
        found = in_session(lambda session: verify_cache(session, jobs=jobs, progress=progress, again=again))
    document = _plain_verification(found)
    show(document, _shown_verification(found), as_json=as_json, is_yes=found.is_good)


@commands.command("status")
def status(as_json: AsJson = False) -> None:
    """Show how much of the cache is pinned, what is in quarantine, and which links cross owners."""
    found = in_session(load_status)
    show(found, _shown_status(found), as_json=as_json)


@commands.command("release")
def release(
    md5: Annotated[str, typer.Argument(metavar="MD5", help="The blob's name.")],
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="Also forget the SHA-256 that was pinned: the next content that fits the name is trusted.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let a blob out of quarantine, after it was repaired. It is judged again at its next read."""
    blob = parse_md5(md5)
    perform(
        "cache.release",
        partial(release_blob, md5=blob, forget=forget),
        {"md5": blob},
        Sent("POST", f"/quarantine/{blob}/release", {"forget": forget}),
        no_wait=False,
        as_json=as_json,
        subject=(blob, *(["forget the pin"] if forget else [])),
    )


@commands.command("resolutions")
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
        _purge(owner, volume, as_json=as_json)
        return
    found = in_session(lambda session: list_entries(session, owner, volume, client_minutes))
    show(found, _shown_entries(found), as_json=as_json)


@commands.command("attest")
def attest(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's own id, no alias.")],
    digests: Annotated[
        list[str] | None, typer.Option(help="MD5 digests; all that its manifests list now, if none is named.")
    ] = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Let a model's links to shared blobs count, where `shared_links` requires an attestation."""
    model_id = parse_model_id(model)
    named = frozenset(map(parse_md5, digests or ()))

    async def work(session: OperatorSession) -> Done[Effect]:
        attested = named or await load_listed_digests(session, model_id)
        subject = (model_id, f"{len(attested)} digests", *sorted(attested)[:MAX_NAMED])
        operation = partial(attest_digests, model=model_id, digests=attested, source=SOURCE_CLI)
        return await session.perform("cache.attest", operation, subject=subject, wait=not no_wait)

    show_change(in_session(work), {"model": model_id}, as_json=as_json)


def _purge(owner: TenantId, volume: Path, *, as_json: bool) -> None:
    done = in_session(lambda session: purge_entries(session, owner, volume))
    removed, failed = len(done.removed), len(done.failed)
    shown = [Note(f"{removed} entries of {owner} were removed below {escape_controls(volume)}.")]
    if failed:
        shown.append(Note(f"{failed} could not be: run this as the engine's user.", "red"))
    document = {"tenant": owner, "volume": str(volume), "removed": removed, "failed": failed}
    show(document, shown, as_json=as_json, is_yes=not failed)


def _plain_verification(found: Verification) -> dict[str, Any]:
    return {
        "good": found.is_good,
        "blobs": found.blobs,
        "package_files": found.package_files,
        "bytes": found.bytes,
        "hashed": found.hashed,
        "hashed_bytes": found.hashed_bytes,
        "unchanged": found.unchanged,
        "pinned": found.pinned,
        "quarantined": found.quarantined,
        "unreadable": found.unreadable,
        "why": {where: found.whys.get(where, "") for where in found.unreadable},
        "seconds": round(found.seconds, 3),
        "bytes_per_second": round(found.bytes_per_second),
    }


def _shown_verification(found: Verification) -> Iterator[Note]:
    yield Note(f"{found.blobs} blobs and {found.package_files} package files, {readable_size(found.bytes)}")
    if found.hashed:
        yield Note(
            f"hashed {found.hashed} ({readable_size(found.hashed_bytes)}) in {found.seconds:.1f} s, "
            f"{readable_size(round(found.bytes_per_second))}/s"
        )
    yield Note(f"{found.unchanged} had been hashed before and did not change; {found.pinned} were pinned now")
    for md5 in found.quarantined:
        yield Note(f"blob {md5} is in quarantine: cachegate cache status", "red")
    for where in found.unreadable:
        why = escape_controls(found.whys.get(where, "unknown"))
        yield Note(f"{where} is left aside: {why}", "yellow")


def _shown_status(found: CacheStatus) -> Iterator[Note | Table]:
    yield Note(f"{found.models} models, {found.packages} packages, {found.links} links to blobs")
    shares = {**found.blobs, "package files": found.package_files}
    rows = [(name, share.count, readable_size(share.bytes)) for name, share in shares.items()]
    yield Table("Files", ("what", "number", "size"), rows)
    held = [(one.md5, one.cause, one.since) for one in found.quarantined if one.cause]
    if held:
        yield Table("In quarantine", ("blob", "cause", "since"), held[:MAX_SHOWN])
    crossing = [
        (one.md5, readable_size(one.bytes), ", ".join(one.owners), len(one.models))
        for one in found.crossing_links
    ]
    if crossing:
        title = f"Links that cross owners ({len(crossing)})"
        yield Table(title, ("blob", "size", "owners", "models"), crossing[:MAX_SHOWN])


def _shown_entries(found: EntriesView) -> Iterator[Note | Table]:
    rows = [
        (
            one.entry,
            one.tenant,
            one.key_id,
            one.key_state,
            escape_controls(one.model or "-"),
            one.package or "-",
            _age(one.age_seconds),
            _verdict(one),
        )
        for one in found.entries
    ]
    columns = ("entry", "tenant", "key id", "key", "model", "package", "age", "engines")
    root = escape_controls(found.root)
    yield Table(f"Auto-resolution entries below {root}", columns, rows, f"No entry below {root}.")
    if found.left_out:
        yield Note(f"{found.left_out} more entries were not read.", "yellow")
    outliving = sum(one.outlives_its_key for one in found.entries)
    if outliving:
        yield Note(
            f"{outliving} would still be honoured although their key is not valid now. Engines with "
            "AUTO_LOADER_CACHE_EXPIRATION_MINUTES=0 honour none; --purge removes a tenant's entries.",
            "bold red",
        )


def _verdict(one: EntryView) -> str:
    if one.fault:
        return f"unreadable: {escape_controls(one.fault)}"
    if one.outlives_its_key:
        return "STILL LOAD BY IT"
    return "load by it" if one.honoured else "ask again"


def _age(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    hours, minutes = divmod(max(0, seconds) // 60, 60)
    return f"{hours} h {minutes:02} min"
