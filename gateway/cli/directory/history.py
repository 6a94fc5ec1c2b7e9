"""`cachegate directory show`, `accept` and `group`: which facts these are, and how many servers hold them.

A server that was restored from a back-up, or failed over to a replica that lagged, may have lost revocations.
Workers and commands refuse it until an operator has checked it and accepts it with this command. `show` and
`accept` work without a session, which would refuse as well.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.adapters.history_file import HistoryFile
from gateway.adapters.redis_diagnosis import diagnosed
from gateway.adapters.redis_store import RedisStore
from gateway.cli.barrier_view import barrier_document, exit_unless_sure, say_barrier
from gateway.cli.perform import in_session
from gateway.configuration.sources import load_settings
from gateway.model.errors import Misconfigured, Unavailable, UnknownHistory
from gateway.model.groups import MAX_GROUP
from gateway.model.stores import GroupSize
from gateway.operations.session import accept_history, fact_server
from gateway.terminal.console import AsJson, print_json, print_table, say

if TYPE_CHECKING:
    from gateway.configuration.settings import Settings
    from gateway.model.stores import Moment
    from gateway.operations.session import OperatorSession
    from gateway.registrar import Done


class HistoryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the server holds now, and what this node saw last."""

    where: str
    present: Moment  # an empty history: no fact was ever written there
    seen: Moment | None
    is_known: bool


async def load_report(settings: Settings) -> HistoryReport:
    """Read the server's history and this node's file."""
    async with fact_server(settings) as url:
        memory = HistoryFile(settings.history_file)
        store = RedisStore(url, history=memory)
        try:
            async with diagnosed(url):
                present = await store.moment()
            is_known = True
            try:
                await store.verify_history()
            except UnknownHistory:
                is_known = False
        finally:
            with suppress(Unavailable):
                await store.close()
        return HistoryReport(where=store.display, present=present, seen=memory.load(), is_known=is_known)


def show(as_json: AsJson = False) -> None:
    """Show which facts these are: history and generation, present and last seen. Status 1 when not known."""
    report = asyncio.run(load_report(load_settings()))
    _print(report, as_json=as_json)
    raise typer.Exit(0 if report.is_known else 1)


def accept(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, as_json: AsJson = False
) -> None:
    """Accept the facts that the server holds now, though this node saw others, or newer ones, before.

    Look first at what may be missing: revocations that were made after the back-up was taken.
    """
    settings = load_settings()
    report = asyncio.run(load_report(settings))
    if report.is_known:
        _print(report, as_json=as_json, accepted=False)
        return
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise Misconfigured("directory accept", "there is nobody to ask; say --yes if that is meant")
        _print(report, as_json=False)
        if not typer.confirm("Accept the facts that are there now?", err=True):
            raise typer.Exit(1)
    accept_history(settings, report.present)
    _print(report, as_json=as_json, accepted=True)


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
    if as_json:
        document = {"group": servers, "set": known is not None and known.is_set, "seen": seen}
        print_json({**document, **barrier_document(None if done is None else done.barrier)})
    else:
        how = "set by an operator" if known is not None and known.is_set else "learned"
        say(f"The group has {servers} servers ({how}); {seen} are seen now.")
        if seen > servers:
            say(
                f"More are seen than the group has. One of them could be promoted without a revocation: run "
                f"`cachegate directory group {seen}`, or have the Sentinels forget it.",
                "bold yellow",
            )
        if done is not None:
            say_barrier(done.barrier)
    exit_unless_sure(None if done is None else done.barrier)


def _print(report: HistoryReport, *, as_json: bool, accepted: bool | None = None) -> None:
    """Print the report. `accepted` is None where nothing was to be accepted yet."""
    if as_json:
        document: dict[str, Any] = {
            "server": report.where,
            "present": _plain(report.present),
            "seen": None if report.seen is None else _plain(report.seen),
            "known": report.is_known or accepted is True,
        }
        print_json(document if accepted is None else {**document, "accepted": accepted})
        return
    if accepted:
        say(f"Accepted: generation {report.present.generation} of history {_name(report.present)}.", "bold")
        return
    rows = [
        ("there now", _name(report.present), report.present.generation),
        ("seen last", *(("-", "-") if report.seen is None else (_name(report.seen), report.seen.generation))),
    ]
    print_table(f"The facts in {report.where}", ("", "history", "generation"), rows, "")
    if report.is_known:
        say("These are the facts that this node knows.")
    else:
        say(
            "These are not the facts that this node saw last, or an older state of them: revocations may "
            "be missing, and nothing is served on them.",
            "bold yellow",
        )


def _plain(seen: Moment) -> dict[str, Any]:
    return {"history": seen.history or None, "generation": seen.generation}


def _name(seen: Moment) -> str:
    return seen.history or "(none)"
