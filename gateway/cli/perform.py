"""Run one operation in an open session, and print what a change did."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from gateway.cli.barrier_view import barrier_document, exit_unless_sure, say_barrier
from gateway.configuration.sources import load_settings
from gateway.model.errors import UnknownName
from gateway.operations.known_names import find_nearest, with_nearest
from gateway.operations.session import OperatorSession, open_session
from gateway.terminal.console import print_json, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.registrar import Done

T = TypeVar("T")


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
    operation: Callable[[Changes, float], Awaitable[Effect]],
    *,
    as_json: bool,
    tenant: str | None = None,
    key_id: str | None = None,
    subject: tuple[str, ...] = (),
    details: dict[str, Any] | None = None,
    wait: bool = True,
) -> Done[Effect]:
    """Make one change, dated now, and report it."""

    async def work(session: OperatorSession) -> Done[Effect]:
        now = session.clock.now()
        return await session.perform(
            action,
            lambda changes: operation(changes, now),
            tenant=tenant,
            key_id=key_id,
            subject=subject,
            wait=wait,
        )

    done = in_session(work)
    report(done, as_json=as_json, details=details or {})
    return done


def report(done: Done[Effect], *, as_json: bool, details: dict[str, Any]) -> None:
    """Print what a change did: its sentences for people, its generation for scripts.

    Exit status 1 when something that was to be removed did not exist.
    """
    effect = done.result
    hints = [_hint(name, effect.known) for name in effect.missing]
    if as_json:
        changed = {"changed": done.result.is_changed, "generation": done.generation}
        missing = {"messages": list(effect.sentences), "missing": list(effect.missing)}
        print_json({**details, **changed, **barrier_document(done.barrier), **missing})
    else:
        for sentence in effect.sentences:
            say(sentence)
        say_barrier(done.barrier)
    for hint in hints:
        say(hint, style="red")
    exit_unless_sure(done.barrier)
    if effect.missing:
        raise typer.Exit(1)


def _hint(name: str, known: tuple[str, ...]) -> str:
    nearest = find_nearest(name, known)
    return f"not there: {name}" + ("" if nearest is None else f"; the nearest is {nearest}")
