"""Limit how many requests each key has under way at once, so that no key takes the capacity of all.

A worker has a bounded number of connections to the provider and to its storage. A key that uses up its share
waits for a moment, if `patience_seconds` allows it, and then gets an undecided answer (I7); other keys are
not affected. A key that has nothing under way is not remembered.
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
    """The shares of all keys of one resource. Belongs to one event loop."""

    def __init__(self, size: int, *, patience_seconds: float) -> None:
        self._size = size
        self._patience_seconds = patience_seconds
        self._slots: WeakValueDictionary[KeyId, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def taken(self, key_id: KeyId) -> AsyncIterator[None]:
        """Take one slot of the key's share. Raises `Unavailable` when none is free within the patience."""
        slots = self._slots.get(key_id)
        if slots is None:  # it lives as long as a caller in here references it
            slots = self._slots[key_id] = asyncio.Semaphore(self._size)
        try:
            async with asyncio.timeout(self._patience_seconds):
                await slots.acquire()
        except TimeoutError as error:
            raise undecided("this key has too much under way at once") from error
        try:
            yield
        finally:
            slots.release()
