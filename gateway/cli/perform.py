"""Run an operation in an open session; make a change and print what came of it.

A change is in force everywhere, or it is said until when it may not be. One that is not sure is made all the
same; exit status 1 keeps a script from treating it as done.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway.cli.remote import Sent, find_gateway, told_change
from gateway.configuration.sources import load_settings
from gateway.model.errors import UnknownName
from gateway.operations.known_names import find_nearest, with_nearest
from gateway.operations.session import OperatorSession, open_session
from gateway.terminal.console import Note, say, show

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from gateway.barrier import BarrierReport
    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.registrar import Done

T = TypeVar("T")

NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Return once it is written, without waiting for the workers.")
]
Force = Annotated[bool, typer.Option("--force", help="Also change what the policy folder says.")]


def in_session(work: Callable[[OperatorSession], Awaitable[T]]) -> T:
    """Open a session with the settings, run `work` in it, close it."""

    async def run() -> T:
        async with open_session(load_settings()) as session:
            try:
                result = await work(session)
            except UnknownName as unknown:
                raise await with_nearest(session, unknown) from unknown
            for sentinel in session.store.place.silent:
                say(f"the sentinel {sentinel} does not answer", style="yellow")
            for record in dict.fromkeys(session.unreadable):
                say(f"the record {record} does not parse; what it says is denied", style="yellow")
            return result

    return asyncio.run(run())


def perform(
    action: str,
    edit: Callable[[Changes], Awaitable[Effect]],
    details: Mapping[str, Any],
    through: Sent,
    *,
    no_wait: bool,
    as_json: bool,
    tenant: str | None = None,
    key_id: str | None = None,
    subject: tuple[str, ...] = (),
) -> None:
    """Make one change, and show it; `details` say to scripts of what.

    `through` is the same change as a running gateway is asked for it, where commands go through one.
    """
    if (gateway := find_gateway()) is not None:
        done = told_change(through.by(gateway, wait=not no_wait), is_waited_for=not no_wait)
    else:
        done = in_session(
            lambda session: session.perform(
                action, edit, tenant=tenant, key_id=key_id, subject=subject, wait=not no_wait
            )
        )
    show_change(done, details, as_json=as_json)


def show_change(done: Done[Effect], details: Mapping[str, Any], *, as_json: bool) -> None:
    """Show what a change did: its sentences to people, its generation to scripts.

    Exit status 1 when something that was to be removed did not exist.
    """
    effect = done.result

    def shown() -> Iterator[Note]:
        yield from map(Note, effect.sentences)
        yield from barrier_notes(done.barrier)

    show(
        {
            **details,
            "changed": effect.is_changed,
            "generation": done.generation,
            **barrier_document(done.barrier),
            "messages": effect.sentences,
            "missing": effect.missing,
        },
        shown(),
        as_json=as_json,
        notes=[Note(_not_there(name, effect.known), "red") for name in effect.missing],
        is_yes=is_sure(done.barrier) and not effect.missing,
    )


def barrier_document(barrier: BarrierReport | None) -> dict[str, Any]:
    """For scripts; empty when it was not waited for."""
    if barrier is None:
        return {}
    return {
        "workers": barrier.workers,
        "acknowledged": barrier.acknowledged,
        "milliseconds": barrier.milliseconds,
        "sure": barrier.is_sure,
        "sure_in_seconds": None if barrier.sure_in_seconds is None else round(barrier.sure_in_seconds, 3),
        "held_by": barrier.held,
        "servers": barrier.servers,
        "why": barrier.why,
    }


def barrier_notes(barrier: BarrierReport | None) -> Iterator[Note]:
    """For people."""
    if barrier is None:
        yield Note(
            "Not waited for: workers hear of it within milliseconds, and at the latest when their lease ends."
        )
    elif not barrier.is_sure:
        yield Note(f"Not sure yet: {_reason(barrier)}.", "bold yellow")
    elif barrier.workers:
        out = barrier.workers - barrier.acknowledged
        waited_out = f", {out} waited out" if out else ""
        yield Note(
            f"True in all workers ({barrier.acknowledged} acknowledged{waited_out}) after "
            f"{barrier.milliseconds:.1f} ms, generation {barrier.generation}."
        )


def is_sure(barrier: BarrierReport | None) -> bool:
    """Whether a command may exit with status 0: it was not waited for, or it is true everywhere."""
    return barrier is None or barrier.is_sure


def _reason(barrier: BarrierReport) -> str:
    silent = barrier.workers - barrier.acknowledged
    why = barrier.why
    if barrier.sure_in_seconds is None:
        return why
    if silent:
        late = f"{silent} of {barrier.workers} workers did not acknowledge generation {barrier.generation}"
        why = f"{late}; {why}"
    return f"{why}; it is true everywhere in {barrier.sure_in_seconds:.1f} s at the latest"


def _not_there(name: str, known: tuple[str, ...]) -> str:
    nearest = find_nearest(name, known)
    return f"not there: {name}" + ("" if nearest is None else f"; the nearest is {nearest}")
