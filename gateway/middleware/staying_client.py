"""Waits for an answer while its client stays: work that nobody waits for any more ends, and is no load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.transfers import ClientGoneError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")

WATCH_AFTER_SECONDS = 0.02  # how soon a client that left is noticed, while its request is under way


async def while_client_stays(work: Awaitable[T], client_leaves: Callable[[], Coroutine[Any, Any, None]]) -> T:
    """What this work returns. Raises `ClientGoneError`, and ends the work, once `client_leaves` returns.

    Whether the client leaves is watched by a task of its own, which most predictions are too short to need.
    The work stays in the task of its request, where it takes fewer turns of the event loop than in another.
    """
    task, has_left, is_over = asyncio.current_task(), False, False
    if task is None:
        raise RuntimeError("there is no task that could wait")
    before = task.cancelling()
    leaving: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal leaving
        leaving = asyncio.ensure_future(client_leaves())
        leaving.add_done_callback(leave)

    def leave(waiting: asyncio.Task[None]) -> None:
        nonlocal has_left
        if waiting.cancelled():
            return
        waiting.exception()  # an error says the same, and is retrieved, so that asyncio does not warn
        if is_over:  # both ended in one turn of the event loop, and the task does something else by now
            return
        has_left = True
        task.cancel()

    watching = asyncio.get_running_loop().call_later(WATCH_AFTER_SECONDS, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and task.uncancel() <= before:
            raise ClientGoneError from None
        raise  # cancelled by somebody else, too
    finally:
        is_over = True
        watching.cancel()
        if leaving is not None:
            leaving.remove_done_callback(leave)
            leaving.cancel()
