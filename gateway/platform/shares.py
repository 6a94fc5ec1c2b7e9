"""Shares: so many things at once for each key, so that no key takes what is there for all.

A worker has so many connections to the provider and to its storage. Whoever uses up its share waits for a
moment, if it is given one, and is told then that nobody can say. That is undecided (I7), and nobody
else's trouble. A key that has nothing under way is not remembered.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from gateway.engine.faults import undecided

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.model.names import KeyId


class Shares:
    """The shares of all keys in one thing. Belongs to one event loop."""

    def __init__(self, size: int, *, patience_seconds: float) -> None:
        self._size = size
        self._patience_seconds = patience_seconds
        self._turns: WeakValueDictionary[KeyId, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def taken(self, key_id: KeyId) -> AsyncIterator[None]:
        """One part of the key's share. Raises `Unavailable` when there is none within the patience."""
        turns = self._turns.get(key_id)
        if turns is None:  # it lives as long as somebody in here has it
            turns = self._turns[key_id] = asyncio.Semaphore(self._size)
        try:
            async with asyncio.timeout(self._patience_seconds):
                await turns.acquire()
        except TimeoutError as error:
            raise undecided("this key has too much under way at once") from error
        try:
            yield
        finally:
            turns.release()
