"""Reads the bodies of requests that are forwarded, and bounds what all of them hold in a worker's memory.

A body may hold the caller's key, so it is read before the caller is known, unless the head has a key that is
refused. Therefore the memory of all bodies together is bounded, and so is the time that a sender may take:
for the whole, and between two pieces. No address has more than a quarter of that memory: a stranger with few
addresses cannot fill it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive

HELD_BODIES = 8  # of the largest size, in a worker: 256 MiB by default
LEAST_HELD_BYTES = 32 << 20
"""Where all bodies are short: with eight of them, a caller could have two questions under way."""

SHARES = 4  # an address has one of them
WHOLE_SECONDS = 60.0
IDLE_SECONDS = 10.0  # without a byte, as for the head of a request


def held_bytes(largest: int) -> int:
    """How much all bodies of a worker may hold, if the largest may have so many bytes."""
    return max(HELD_BODIES * largest, LEAST_HELD_BYTES)


class BodyShare:
    """What one request of a client holds of the memory for bodies."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.bytes = 0


class Bodies:
    """The bodies that a worker holds now."""

    def __init__(self, max_held_bytes: int) -> None:
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0
        self._of_client: defaultdict[str, int] = defaultdict(int)

    @contextmanager
    def holding(self, client: str) -> Iterator[BodyShare]:
        """Hold a body of a client, named by its address, for as long as this context lasts."""
        held = BodyShare(client)
        try:
            yield held
        finally:
            self._held_bytes -= held.bytes
            self._of_client[client] -= held.bytes
            if not self._of_client[client]:
                del self._of_client[client]

    async def read(self, receive: Receive, max_bytes: int, held: BodyShare) -> bytes:
        """The whole body. Raises `Refusal` for one that is too long, too slow or incomplete, or with BUSY."""
        body = bytearray()
        loop = asyncio.get_running_loop()
        end = loop.time() + WHOLE_SECONDS
        try:
            async with asyncio.timeout(IDLE_SECONDS) as limit:
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refusal(Reason.MALFORMED_REQUEST)
                    piece = message.get("body", b"")
                    body += piece
                    if len(body) > max_bytes:
                        raise Refusal(Reason.BODY_TOO_LARGE)
                    self._take(len(piece), held)
                    if not message.get("more_body", False):
                        return bytes(body)
                    limit.reschedule(min(end, loop.time() + IDLE_SECONDS))
        except TimeoutError as error:
            raise Refusal(Reason.SLOW_REQUEST) from error

    def _take(self, count: int, held: BodyShare) -> None:
        is_full = self._held_bytes + count > self._max_held_bytes
        if is_full or self._of_client[held.client] + count > self._max_held_bytes // SHARES:
            raise Refusal(Reason.BUSY)
        held.bytes += count
        self._held_bytes += count
        self._of_client[held.client] += count
