"""How a command says that its change is true everywhere, or until when it may not be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.cli.console import say

if TYPE_CHECKING:
    from gateway.barrier import BarrierReport


def barrier_document(barrier: BarrierReport | None) -> dict[str, Any]:
    """For scripts; nothing when it was not waited for."""
    if barrier is None:
        return {}
    return {
        "workers": barrier.workers,
        "acknowledged": barrier.acknowledged,
        "milliseconds": barrier.milliseconds,
        "sure": barrier.is_sure,
        "sure_in_seconds": round(barrier.sure_in_seconds, 3),
    }


def say_barrier(barrier: BarrierReport | None) -> None:
    """For people."""
    if barrier is None:
        say(
            "Not waited for: workers hear of it within milliseconds, and at the latest when their lease ends."
        )
    elif not barrier.is_sure:
        say(
            f"Not sure yet: {barrier.workers - barrier.acknowledged} of {barrier.workers} workers did not "
            f"acknowledge generation {barrier.generation}; it is true everywhere in "
            f"{barrier.sure_in_seconds:.1f} s at the latest.",
            style="bold yellow",
        )
    elif barrier.workers:
        out = barrier.workers - barrier.acknowledged
        waited_out = f", {out} waited out" if out else ""
        say(
            f"True in all workers ({barrier.acknowledged} acknowledged{waited_out}) after "
            f"{barrier.milliseconds:.1f} ms, generation {barrier.generation}."
        )
