"""Requests whose answers have no body: HEAD, and If-None-Match that matches.

wrk waits for the body that the answer's length announces. This does the same as wrk, connections that are
kept and the next request after each answer, and takes for an answer what ends with an empty line.
"""

from __future__ import annotations

import gc
import itertools
import selectors
import socket
import time
from typing import TYPE_CHECKING

from client_requests import FRESH_TRACE, refresh

if TYPE_CHECKING:
    from client_requests import RequestSet
    from contender import Contender

BUFFER_BYTES = 64 << 10
SILENCE_SECONDS = 10.0
_END = b"\r\n\r\n"


def send_for(
    contender: Contender, sent: RequestSet, seconds: float, connections: int
) -> tuple[int, float, float, float]:
    """How many were answered, in how many seconds, and the median and the p99 of the milliseconds."""
    raws = [request.raw for request in sent.requests]
    turns = itertools.cycle([(raw.encode(), raw if FRESH_TRACE in raw else None) for raw in raws])
    wanted = b"HTTP/1.1 %d" % sent.expected.status
    opened = [socket.create_connection(("127.0.0.1", contender.port)) for _ in range(connections)]
    began: dict[int, float] = {}
    taken: list[float] = []
    clock = time.perf_counter

    def send_next(connection: socket.socket) -> None:
        raw, fresh = next(turns)
        began[connection.fileno()] = clock()
        connection.send(raw if fresh is None else refresh(fresh).encode())

    gc.disable()  # or a collection would be one of the longest answers
    try:
        with selectors.EpollSelector() as selector:
            for connection in opened:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ)
            started = clock()
            for connection in opened:
                send_next(connection)
            end = started + seconds
            while (now := clock()) < end or not taken:
                events = selector.select(SILENCE_SECONDS)
                if not events:
                    raise TimeoutError(f"{contender.title} does not answer any more")
                for key, _ in events:
                    connection = key.fileobj
                    answer = connection.recv(BUFFER_BYTES)
                    if not (answer.startswith(wanted) and answer.find(_END) == len(answer) - len(_END)):
                        begin = answer[:200]
                        raise RuntimeError(
                            f"{contender.title} gave an answer that is not one of {sent.name!r}: {begin!r}"
                        )
                    taken.append(clock() - began[key.fd])
                    send_next(connection)
    finally:
        gc.enable()
        for connection in opened:
            connection.close()
    taken.sort()
    count = len(taken)
    return count, now - started, taken[count // 2] * 1e3, taken[min(count - 1, count * 99 // 100)] * 1e3
