"""The result of a call that records: there already, or a future of it.

A log that is written on the event loop has the result when the call returns. One that waits for a disk
elsewhere returns a future, which has the result once the records are as durable as promised.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
R = TypeVar("R")


async def recorded(
    result: T | asyncio.Future[T], *, if_left: Callable[[asyncio.Future[T]], object] | None = None
) -> T:
    """The result, waited for if it has to be.

    When the caller is cancelled meanwhile, the records are written all the same. `if_left` is then called
    with the future once it is done, as somebody has to close what was admitted.
    """
    if not isinstance(result, asyncio.Future):
        return result
    try:
        return await asyncio.shield(result)
    except asyncio.CancelledError:
        if if_left is not None:
            result.add_done_callback(if_left)
        raise


def then(
    result: asyncio.Future[T], make: Callable[[T], R], if_failed: Callable[[], object]
) -> asyncio.Future[R]:
    """A future of what `make` makes of the result. `if_failed` is called where there is none."""
    made: asyncio.Future[R] = result.get_loop().create_future()

    def finish(done: asyncio.Future[T]) -> None:
        failure = done.exception()
        if failure is None:
            made.set_result(make(done.result()))
            return
        if_failed()
        made.set_exception(failure)

    result.add_done_callback(finish)
    return made
