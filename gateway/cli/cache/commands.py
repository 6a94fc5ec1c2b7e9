"""`cachegate cache`: verify and pin all files, show the cache's state, release blobs from quarantine."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from gateway.cli.cache import attest, resolutions
from gateway.cli.perform import in_session, perform
from gateway.directory.edits.pins import release_blob
from gateway.model.names import parse_md5
from gateway.operations.cache.status import CacheStatus, load_status
from gateway.operations.cache.verify import Verification, verify_cache
from gateway.terminal.console import AsJson, print_json, print_table, say, when
from gateway.terminal.escaping import escape_controls
from gateway.terminal.progress import readable_size, reading

commands = typer.Typer(
    help="The cache's content: verify, status, release, resolutions, attest.",
    no_args_is_help=True,
)

MAX_SHOWN = 20  # rows of a table for people; --json has all

commands.command("resolutions")(resolutions.resolutions)
commands.command("attest")(attest.attest)


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
    if as_json:
        print_json(_plain_verification(found))
    else:
        _print_verification(found)
    raise typer.Exit(0 if found.is_good else 1)


@commands.command("status")
def status(as_json: AsJson = False) -> None:
    """Show how much of the cache is pinned, what is in quarantine, and which links cross owners."""
    found = in_session(load_status)
    if as_json:
        print_json(_plain_status(found))
    else:
        _print_status(found)


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
        lambda changes, _now: release_blob(changes, md5=blob, forget=forget),
        as_json=as_json,
        subject=(blob, *(["forget the pin"] if forget else [])),
        details={"md5": blob},
    )


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
        "quarantined": list(found.quarantined),
        "unreadable": list(found.unreadable),
        "why": {where: found.whys.get(where, "") for where in found.unreadable},
        "seconds": round(found.seconds, 3),
        "bytes_per_second": round(found.bytes_per_second),
    }


def _print_verification(found: Verification) -> None:
    say(f"{found.blobs} blobs and {found.package_files} package files, {readable_size(found.bytes)}")
    if found.hashed:
        say(
            f"hashed {found.hashed} ({readable_size(found.hashed_bytes)}) in {found.seconds:.1f} s, "
            f"{readable_size(round(found.bytes_per_second))}/s"
        )
    say(f"{found.unchanged} had been hashed before and did not change; {found.pinned} were pinned now")
    for md5 in found.quarantined:
        say(f"blob {md5} is in quarantine: cachegate cache status", style="red")
    for where in found.unreadable:
        say(f"{where} is left aside: {escape_controls(found.whys.get(where, 'unknown'))}", style="yellow")


def _plain_status(found: CacheStatus) -> dict[str, Any]:
    return {
        "models": found.models,
        "packages": found.packages,
        "links": found.links,
        "package_files": {"count": found.package_files.count, "bytes": found.package_files.bytes},
        "blobs": {
            name: {"count": share.count, "bytes": share.bytes} for name, share in found.shares().items()
        },
        "quarantined": [
            {
                "md5": pin.md5,
                "cause": pin.quarantine.cause if pin.quarantine else None,
                "since": when(pin.quarantine.since if pin.quarantine else None),
                "pinned_sha256": pin.sha256,
                "found_sha256": pin.quarantine.found_sha256 if pin.quarantine else None,
            }
            for pin in found.quarantined_pins
        ],
        "crossing_links": [
            {"md5": one.md5, "bytes": one.size, "owners": list(one.owners), "models": list(one.models)}
            for one in found.crossing
        ],
    }


def _print_status(found: CacheStatus) -> None:
    say(f"{found.models} models, {found.packages} packages, {found.links} links to blobs")
    shares = {**found.shares(), "package files": found.package_files}
    rows = [(name, share.count, readable_size(share.bytes)) for name, share in shares.items()]
    print_table("Files", ("what", "number", "size"), rows, "no files")
    if found.quarantined_pins:
        held = [
            (pin.md5, pin.quarantine.cause, when(pin.quarantine.since))
            for pin in found.quarantined_pins
            if pin.quarantine
        ]
        print_table("In quarantine", ("blob", "cause", "since"), held[:MAX_SHOWN], "none")
    crossing = [
        (one.md5, readable_size(one.size), ", ".join(one.owners), len(one.models)) for one in found.crossing
    ]
    if crossing:
        title = f"Links that cross owners ({len(crossing)})"
        print_table(title, ("blob", "size", "owners", "models"), crossing[:MAX_SHOWN], "none")
