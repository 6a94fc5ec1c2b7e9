"""Large reads: sockets that are read into one buffer; the data is discarded.

One thread reads all connections as data arrives, so that the reader costs the same for every server. The
digest of what they serve was checked before; here status and length are.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from processes import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from contender import Contender
    from workload import Ask

BUFFER_BYTES = 512 << 10
SILENCE_SECONDS = 30.0
_HEAD_ENDS = b"\r\n\r\n"


class NotServingError(RuntimeError):
    """A 503: a worker that could not run for a second has to get its lease again."""


@dataclass(frozen=True)
class Pulled:
    """What came, how long it took, and what it cost the server."""

    count: int
    seconds: float
    cpu_seconds: float

    @property
    def cpu_seconds_per_gb(self) -> float:
        return self.cpu_seconds / self.count * 1e9

    @property
    def gb_per_second(self) -> float:
        return self.count / self.seconds / 1e9


class Download:
    """One answer on a connection of its own, taken as fast as it comes."""

    def __init__(self, port: int, ask: Ask, *, receive_buffer: int | None = None) -> None:
        self.connection = socket.socket()
        if receive_buffer is not None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.connection.connect(("127.0.0.1", port))
        self.connection.sendall(ask.raw)
        self.connection.setblocking(False)
        self.head = b""
        self.count = 0  # of the body, so far
        self.length: int | None = None  # not known before the head is here
        self._expected = ask.length

    def take(self, buffer: memoryview) -> bool:
        """Take what is there; true when that was all of it."""
        received = self.connection.recv_into(buffer)
        if not received:
            raise ConnectionError(f"the server hung up after {self.count:,} of {self.length} bytes")
        if self.length is not None:
            self.count += received
        else:
            self._read_head(bytes(buffer[:received]))
        return self.count == self.length

    def field(self, name: str) -> str:
        """A header of the answer."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}[name]

    def close(self) -> None:
        self.connection.close()

    def _read_head(self, received: bytes) -> None:
        head, end, body = (self.head + received).partition(_HEAD_ENDS)
        self.head = head
        if not end:
            return
        if head.split(b" ", 2)[1] == b"503":
            raise NotServingError(f"not served: {head[:200]!r}")
        if head.split(b" ", 2)[1] not in (b"200", b"206"):
            raise RuntimeError(f"not the file: {head[:200]!r}")
        self.length = int(self.field("content-length"))
        if self.length != self._expected:
            raise RuntimeError(f"{self.length:,} bytes were announced, not {self._expected:,}")
        self.count = len(body)


def pull(contender: Contender, asks: Sequence[Ask]) -> Pulled:
    """All of these at once, each on a new connection, until the last one is here."""
    before, started = cpu_seconds(contender.roots), time.monotonic()
    count = _pull(contender.port, asks, lambda: False)
    seconds = time.monotonic() - started
    return Pulled(count, seconds, cpu_seconds(contender.roots) - before)


@contextmanager
def pulling(contender: Contender, asks: Sequence[Ask]) -> Iterator[Callable[[], float]]:
    """The same in the background, again and again; what it gives tells how many bytes came so far.

    It gets what the load's core has left: the reader must not be what the small reads wait for.
    """
    stop, counts = threading.Event(), [0]
    failures: list[Exception] = []

    def work() -> None:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
        try:
            _pull(contender.port, asks, stop.is_set, counts)
        except (OSError, RuntimeError) as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda: counts[0]
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


def _pull(
    port: int, asks: Sequence[Ask], is_over: Callable[[], bool], counts: list[int] | None = None
) -> int:
    """Pull all; with `counts`, begin each one again when it is here, until it is over."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    total, under_way = 0, 0
    with selectors.DefaultSelector() as selector:

        def begin(ask: Ask) -> None:
            download = Download(port, ask)
            selector.register(download.connection, selectors.EVENT_READ, (download, ask))

        for ask in asks:
            begin(ask)
            under_way += 1
        while under_way and not is_over():
            events = selector.select(SILENCE_SECONDS)
            if not events:
                raise TimeoutError("the server sends nothing any more")
            for key, _ in events:
                download, ask = key.data
                before = download.count
                has_all = download.take(buffer)
                total += download.count - before
                if counts is not None:
                    counts[0] = total
                if not has_all:
                    continue
                selector.unregister(download.connection)
                download.close()
                if counts is None:
                    under_way -= 1
                else:
                    begin(ask)
        for key in list(selector.get_map().values()):
            key.data[0].close()
    return total
