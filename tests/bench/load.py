"""Readers that never stop: kept connections, each with one request under way, in processes of their own.

A reader requests one target; its results are sent back as (target, key, sent at, answered at, status), on the
clock that all processes of a machine share. Which key of a target is in use is a shared number, so that keys
can be changed while readers run.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvloop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.sharedctypes import Synchronized

Seen = tuple[int, int, float, float, int]


@dataclass(frozen=True)
class Target:
    """What is asked for, and with which keys, one after the other."""

    name: str
    path: str
    tokens: tuple[str, ...]

    def requests(self) -> list[bytes]:
        """The bytes of a request with each of the keys."""
        return [
            f"GET {self.path} HTTP/1.1\r\nHost: models.example\r\nAuthorization: Bearer {token}\r\n"
            "User-Agent: bench\r\nAccept: */*\r\n\r\n".encode()
            for token in self.tokens
        ]


class _Reader(asyncio.Protocol):
    """One connection: the next request as soon as the last one is answered."""

    def __init__(self, crew: _Crew, target: int) -> None:
        self._crew = crew
        self._target = target
        self._requests = crew.requests[target]
        self._received = b""
        self._missing = 0
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end].lower()
        start = head.index(b"content-length: ") + 16
        length = int(head[start : head.find(b"\r\n", start) % (len(head) + 1)])
        if len(self._received) < end + 4 + length:
            return
        status = int(self._received[9:12])
        self._crew.seen.append((self._target, self._key, self._sent_at, time.monotonic(), status))
        self._received = self._received[end + 4 + length :]
        if b"connection: close" in head:
            self._transport.close()
        else:
            self._ask()

    def connection_lost(self, _error: Exception | None) -> None:
        self._crew.lost(self._target)

    def _ask(self) -> None:
        self._key = min(self._crew.key.value, len(self._requests) - 1) if len(self._requests) > 1 else 0
        self._sent_at = time.monotonic()
        self._transport.write(self._requests[self._key])


class _Crew:
    """The readers of one process."""

    def __init__(self, port: int, targets: list[Target], key: Synchronized[int]) -> None:
        self.requests = [target.requests() for target in targets]
        self.key = key
        self.seen: list[Seen] = []
        self._port = port
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_over = False

    async def run(self, connections: int, stop: Any) -> None:
        for number in range(connections):
            await self._connect(number % len(self.requests))
        while not stop.is_set():  # noqa: ASYNC110 -- another process sets it
            await asyncio.sleep(0.05)
        self._is_over = True

    def lost(self, target: int) -> None:
        if not self._is_over:
            task = asyncio.get_running_loop().create_task(self._connect(target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, target: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: _Reader(self, target), "127.0.0.1", self._port)


def _read(
    port: int, targets: list[Target], key: Synchronized[int], connections: int, stop: Any, results: Connection
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the benchmark tells us when it is over
    gc.disable()
    crew = _Crew(port, targets, key)
    uvloop.run(crew.run(connections, stop))
    results.send(crew.seen)
    results.close()


@dataclass
class Load:
    """The readers while they read; `seen` is there once they have stopped."""

    key: Synchronized[int]
    seen: list[Seen]
    seconds: float = 0.0


@contextmanager
def reading(port: int, targets: list[Target], *, processes: int, connections: int) -> Iterator[Load]:
    """Read with all of them for as long as this lasts."""
    context = multiprocessing.get_context("spawn")
    key, stop = context.Value("i", 0), context.Event()
    pipes, crew = [], []
    for _ in range(processes):
        receiver, sender = context.Pipe(duplex=False)
        one = context.Process(target=_read, args=(port, targets, key, connections, stop, sender), daemon=True)
        one.start()
        sender.close()
        pipes.append(receiver)
        crew.append(one)
    load = Load(key, [])
    started = time.monotonic()
    try:
        yield load
        load.seconds = time.monotonic() - started
        stop.set()
        for receiver in pipes:
            load.seen += receiver.recv()
    finally:
        stop.set()
        for one in crew:
            one.join(5)
            one.kill()
