"""`cachegate directory`: which facts these are, how many servers hold them, and all of them in a file."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.perform import barrier_document, barrier_notes, in_session, is_sure
from gateway.configuration.sources import load_settings
from gateway.model.errors import Misconfigured
from gateway.model.groups import MAX_GROUP
from gateway.model.stores import GroupSize
from gateway.operations.history import accept_history, load_report
from gateway.operations.transfer import export_facts, import_facts
from gateway.terminal.console import AsJson, Note, Table, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.model.stores import Moment
    from gateway.operations.history import HistoryReport
    from gateway.operations.session import OperatorSession
    from gateway.registrar import Done

commands = typer.Typer(
    help="The facts as a whole: show, accept, group, export, import.", no_args_is_help=True
)

ExportFile = Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; it must not be there.")]
ImportFile = Annotated[Path, typer.Argument(metavar="FILE", help="What `directory export` wrote.")]
Merge = Annotated[
    bool,
    typer.Option(
        "--merge", help="Replace facts that are there and differ; what was revoked or suspended stays so."
    ),
]


@commands.command("show")
def show_(as_json: AsJson = False) -> None:
    """Show which facts these are: history and generation, present and last seen. Status 1 when not known."""
    report = asyncio.run(load_report(load_settings()))
    _show(report, as_json=as_json, is_yes=report.is_known)


@commands.command("accept")
def accept(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, as_json: AsJson = False
) -> None:
    """Accept the facts that the server holds now, though this node saw others, or newer ones, before.

    Look first at what may be missing: revocations that were made after the back-up was taken.
    """
    settings = load_settings()
    report = asyncio.run(load_report(settings))
    if report.is_known:
        _show(report, as_json=as_json, accepted=False)
        return
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise Misconfigured("directory accept", "there is nobody to ask; say --yes if that is meant")
        _show(report, as_json=False)
        if not typer.confirm("Accept the facts that are there now?", err=True):
            raise typer.Exit(1)
    accept_history(settings, report.present)
    _show(report, as_json=as_json, accepted=True)


@commands.command("group")
def group(
    size: Annotated[
        int | None,
        typer.Argument(min=1, max=MAX_GROUP, help="Servers: the primary and all that replicate it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show or set how many servers hold the facts: a revocation is sure once all of them have it.

    It is learned from the server and its Sentinels, and grows with them. Set it lower only when a server is
    gone for good, and no Sentinel knows it any more.
    """

    async def work(session: OperatorSession) -> tuple[GroupSize | None, int, Done[None] | None]:
        done = (
            None if size is None else await session.set_group(GroupSize(servers=size, is_set=True), wait=True)
        )
        return await session.store.group(), await session.store.count_servers(), done

    known, seen, done = in_session(work)
    servers = 1 if known is None else known.servers
    is_set = known is not None and known.is_set
    barrier = None if done is None else done.barrier

    def shown() -> Iterator[Note]:
        how = "set by an operator" if is_set else "learned"
        yield Note(f"The group has {servers} servers ({how}); {seen} are seen now.")
        if seen > servers:
            yield Note(
                f"More are seen than the group has. One of them could be promoted without a revocation: run "
                f"`cachegate directory group {seen}`, or have the Sentinels forget it.",
                "bold yellow",
            )
        if done is not None:
            yield from barrier_notes(barrier)

    document = {"group": servers, "set": is_set, "seen": seen, **barrier_document(barrier)}
    show(document, shown(), as_json=as_json, is_yes=is_sure(barrier))


@commands.command("export")
def export(file: ExportFile, as_json: AsJson = False) -> None:
    """Write the facts into a file: the policy, tenants, rules, aliases, grants, keys by digest.

    Left out are pins, quarantines, attestations and the origins of files.
    """
    done = in_session(lambda session: export_facts(session, file))
    note = f"{done.facts} facts written to {file}. Keep the pepper folder with it: without it no key works."
    show(done, [Note(note)], as_json=as_json)


@commands.command("import")
def import_(file: ImportFile, merge: Merge = False, as_json: AsJson = False) -> None:
    """Write the facts of a file into this server. Facts that exist and differ are not overwritten."""
    done = in_session(lambda session: import_facts(session, file, merge=merge))
    counts = {"new": done.compared.new, "same": done.compared.same, "replaced": len(done.compared.other)}
    show(
        {"file": str(file), **counts, "generation": done.generation, **barrier_document(done.barrier)},
        [Note(", ".join(f"{count} {name}" for name, count in counts.items())), *barrier_notes(done.barrier)],
        as_json=as_json,
        is_yes=is_sure(done.barrier),
    )


def _show(report: HistoryReport, *, as_json: bool, accepted: bool | None = None, is_yes: bool = True) -> None:
    """Show the report. `accepted` is None where nothing was to be accepted yet."""
    document: dict[str, Any] = {
        "server": report.where,
        "present": _plain(report.present),
        "seen": None if report.seen is None else _plain(report.seen),
        "known": report.is_known or accepted is True,
    }
    if accepted is not None:
        document["accepted"] = accepted
    show(document, _shown(report, is_accepted=accepted is True), as_json=as_json, is_yes=is_yes)


def _shown(report: HistoryReport, *, is_accepted: bool) -> Iterator[Note | Table]:
    if is_accepted:
        now = report.present
        yield Note(f"Accepted: generation {now.generation} of history {_name(now)}.", "bold")
        return
    rows = [
        ("there now", _name(report.present), report.present.generation),
        ("seen last", *(("-", "-") if report.seen is None else (_name(report.seen), report.seen.generation))),
    ]
    yield Table(f"The facts in {report.where}", ("", "history", "generation"), rows)
    if report.is_known:
        yield Note("These are the facts that this node knows.")
    else:
        yield Note(
            "These are not the facts that this node saw last, or an older state of them: revocations may "
            "be missing, and nothing is served on them.",
            "bold yellow",
        )


def _plain(seen: Moment) -> dict[str, Any]:
    return {"history": seen.history or None, "generation": seen.generation}


def _name(seen: Moment) -> str:
    return seen.history or "(none)"
