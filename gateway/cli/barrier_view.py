"""Print whether a change is true in every worker, or until when it may not be.

A change that is not sure is made all the same; exit status 1 keeps a script from treating it as done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.terminal.console import say

if TYPE_CHECKING:
    from gateway.barrier import BarrierReport

NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Return once it is written, without waiting for the workers.")
]


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


def say_barrier(barrier: BarrierReport | None) -> None:
    """For people."""
    if barrier is None:
        say(
            "Not waited for: workers hear of it within milliseconds, and at the latest when their lease ends."
        )
    elif not barrier.is_sure:
        say(f"Not sure yet: {_reason(barrier)}.", style="bold yellow")
    elif barrier.workers:
        out = barrier.workers - barrier.acknowledged
        waited_out = f", {out} waited out" if out else ""
        say(
            f"True in all workers ({barrier.acknowledged} acknowledged{waited_out}) after "
            f"{barrier.milliseconds:.1f} ms, generation {barrier.generation}."
        )


def _reason(barrier: BarrierReport) -> str:
    silent = barrier.workers - barrier.acknowledged
    why = barrier.why
    if barrier.sure_in_seconds is None:
        return why
    if silent:
        late = f"{silent} of {barrier.workers} workers did not acknowledge generation {barrier.generation}"
        why = f"{late}; {why}"
    return f"{why}; it is true everywhere in {barrier.sure_in_seconds:.1f} s at the latest"


def exit_unless_sure(barrier: BarrierReport | None) -> None:
    """Exit with status 1 when it was waited for and is not sure. To be called last in a command."""
    if barrier is not None and not barrier.is_sure:
        raise typer.Exit(1)
