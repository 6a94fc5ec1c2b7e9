"""A small server in the place of an inference server, for what the real one cannot be made to do.

It answers what a test tells it to, byte for byte, keeps every request, and says when a client has left. The
real server is in `tests/server`. Standard library only.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Seen:
    """A request as it came in."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name):
        return next((value for key, value in self.headers if key == name), None)

    def json(self):
        return json.loads(self.body)


@dataclass
class Reply:
    """An answer: its head and pieces. After each piece but the last one, it waits for `go_on`."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    pieces: tuple[bytes, ...] = (b"{}",)
    length: int | None = None  # None: that of the pieces; -1: chunked
    breaks_off: bool = False
    drops: bool = False  # closes the connection instead of an answer
    waits: bool = False


@dataclass
class StandIn:
    """The server. `replies` maps a path to an answer; `busy` is set once a request waits for `go_on`."""

    replies: dict = field(default_factory=dict)
    seen: list = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    busy: threading.Event = field(default_factory=threading.Event)
    client_left: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def name(self):
        return self.url.removeprefix("http://")

    def reset(self):
        self.replies.clear()
        self.seen.clear()
        for event in (self.go_on, self.busy, self.client_left):
            event.clear()

    def asked(self):
        """What came in, but for the health checks."""
        return [one for one in self.seen if one.target != "/readiness"]

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self):
        self.go_on.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, suppress(OSError, ValueError):
            stream = connection.makefile("rb")
            while (seen := _read(stream)) is not None:
                self.seen.append(seen)
                path = seen.target.partition("?")[0]
                if path == "/readiness":
                    reply = Reply(pieces=(b'{"status":"ready"}',))
                else:
                    reply = self.replies.get(path, Reply(status=404, pieces=(b'{"message":"no"}',)))
                if not self._answer(connection, reply):
                    return

    def _answer(self, connection, reply):
        if reply.drops:
            return False
        if reply.waits:
            self._wait(connection)
        length = sum(map(len, reply.pieces)) if reply.length is None else reply.length
        framing = "transfer-encoding: chunked" if length < 0 else f"content-length: {length}"
        lines = [f"HTTP/1.1 {reply.status} Reason", framing, *(f"{n}: {v}" for n, v in reply.headers)]
        connection.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        for index, piece in enumerate(reply.pieces):
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if length < 0 else piece)
            if index < len(reply.pieces) - 1 and not self._wait(connection):
                return False
        if reply.breaks_off:
            return False
        if length < 0:
            connection.sendall(b"0\r\n\r\n")
        return True

    def _wait(self, connection):
        """Wait until the test says so; false where the client leaves before."""
        self.busy.set()
        connection.settimeout(0.02)
        try:
            while not self.go_on.is_set():
                with suppress(TimeoutError):
                    if connection.recv(1, socket.MSG_PEEK) == b"":
                        self.client_left.set()
                        return False
        except ConnectionError:
            self.client_left.set()
            return False
        finally:
            connection.settimeout(None)
        return True


def _read(stream):
    first = stream.readline().decode("latin-1").split()
    if not first:
        return None
    headers = []
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name.lower(), value.strip()))
    fields = dict(headers)
    body = b""
    if fields.get("transfer-encoding") == "chunked":
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    elif "content-length" in fields:
        body = stream.read(int(fields["content-length"]))
    return Seen(first[0], first[1], headers, body)
