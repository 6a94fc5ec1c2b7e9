"""A reader process: sends requests all the time and writes down what it saw.

    python reader.py HOST PORT CONNECTIONS PAUSE_SECONDS OUTPUT

Standard input says what to request, one JSON object a line: name -> request in hex. The latest line counts;
the reader ends at the end of the input. The output is one JSON array for each answer: when the request was
sent, when the first byte of the answer arrived (both on CLOCK_MONOTONIC, which all processes of a machine
share), status, name and audit record. Status 0 is a connection that ended before an answer.

The time of sending is taken before the call that sends, that of arrival after the call that receives: so an
answer is never taken for younger, or for earlier, than it was.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

REQUESTS_PER_CONNECTION = 60  # then a new one, so that all workers get requests
PATIENCE_SECONDS = 20.0  # a worker may be stopped for a while


class Reader:
    """The state that all connections of this process share."""

    def __init__(self, host: str, port: int, pause_seconds: float) -> None:
        self.host, self.port, self.pause_seconds = host, port, pause_seconds
        self.things: list[tuple[str, bytes]] = []
        self.is_over = threading.Event()
        self.seen: list[tuple[float, float, int, str, str]] = []

    def listen(self) -> None:
        for line in sys.stdin:
            self.things = [(thing, bytes.fromhex(raw)) for thing, raw in json.loads(line).items()]
        self.is_over.set()

    def ask(self) -> None:
        """Use one connection after another, until the reader ends."""
        while not self.is_over.is_set():
            if not self.things:
                time.sleep(0.005)
                continue
            with suppress(OSError), socket.create_connection((self.host, self.port), PATIENCE_SECONDS) as one:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(REQUESTS_PER_CONNECTION):
                    if self.is_over.is_set() or not self._exchange(one):
                        break
                    time.sleep(random.uniform(0, 2 * self.pause_seconds))

    def _exchange(self, connection: socket.socket) -> bool:
        thing, request = random.choice(self.things)
        sent_at = time.monotonic()
        arrived_at, status, record = sent_at, 0, ""
        try:
            connection.sendall(request)
            received = connection.recv(1 << 16)
            arrived_at = time.monotonic()
            if received:
                status, record, is_kept = _finish(connection, received)
                return is_kept
        except OSError:
            arrived_at = time.monotonic()
            return False
        else:
            return False
        finally:
            self.seen.append((sent_at, arrived_at, status, thing, record))


def _finish(connection: socket.socket, received: bytes) -> tuple[int, str, bool]:
    """Read the rest of the answer: its status, its record, and whether the connection goes on."""
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += _receive(connection)
    status_line, *lines = received[:end].decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    missing = int(headers.get("content-length", 0)) - (len(received) - end - 4)
    while missing > 0:
        missing -= len(_receive(connection))
    status = int(status_line.split()[1])
    return status, headers.get("cachegate-record", ""), headers.get("connection") != "close"


def _receive(connection: socket.socket) -> bytes:
    piece = connection.recv(1 << 16)
    if not piece:
        raise ConnectionError("the answer broke off")
    return piece


def main() -> None:
    host, port, connections, pause_seconds, output = sys.argv[1:]
    reader = Reader(host, int(port), float(pause_seconds))
    threads = [threading.Thread(target=reader.ask) for _ in range(int(connections))]
    for thread in threads:
        thread.start()
    reader.listen()
    for thread in threads:
        thread.join()
    with Path(output).open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in reader.seen)


if __name__ == "__main__":
    main()
