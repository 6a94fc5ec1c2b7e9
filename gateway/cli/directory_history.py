"""`cachegate directory show` and `accept`: whether these are the facts that this node knew.

A server that was restored from a back-up, or failed over to a replica that lagged, may have lost
revocations. Workers and commands refuse it until an operator has looked and accepts it here. These
two work without an office, which would refuse as well.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.adapters.history_file import HistoryFile, Seen
from gateway.adapters.redis_diagnosis import diagnosed
from gateway.adapters.redis_store import RedisStore
from gateway.cli.console import AsJson, print_json, print_table, say
from gateway.configuration.sources import load_settings
from gateway.model.errors import Misconfigured, Unavailable
from gateway.office.office import accept_history, fact_server

if TYPE_CHECKING:
    from gateway.configuration.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryReport:
    """What the server holds now, beside what this node saw last."""

    where: str
    present: Seen  # an empty history: no fact was ever written there
    seen: Seen | None
    is_known: bool


async def load_report(settings: Settings) -> HistoryReport:
    """Look at the server and at the file."""
    async with fact_server(settings) as url:
        store = RedisStore(url)
        try:
            async with diagnosed(url):
                present = Seen(history=await store.history() or "", generation=await store.generation())
        finally:
            with suppress(Unavailable):
                await store.close()
        memory = HistoryFile(settings.history_file)
        return HistoryReport(
            where=store.display,
            present=present,
            seen=memory.load(),
            is_known=memory.accepts(present.history, present.generation),
        )


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


def _print(report: HistoryReport, *, as_json: bool, accepted: bool | None = None) -> None:
    """`accepted` is None where nothing was to be accepted yet."""
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


def _plain(seen: Seen) -> dict[str, Any]:
    return {"history": seen.history or None, "generation": seen.generation}


def _name(seen: Seen) -> str:
    return seen.history or "(none)"
