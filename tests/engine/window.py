"""A proxy between clients and a server: it records every request, and can act at a chosen moment.

The engine opens a connection for every request, so the first head on a connection is the request. A test can
run something just before a request is passed on, or hold all bodies back after so many bytes: an event in the
middle of a load is then made to happen there and does not depend on timing.
"""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WRAPPED = "/proxy?url="
PATIENCE_SECONDS = 4.0
"""Shorter than the engine's patience between two bytes, which is five."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as a client sent it."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def url(self) -> str:
        """What it asks for, in whichever way: the wrapped URL, unwrapped."""
        if not self.target.startswith(WRAPPED):
            return self.target
        inner, _, outer = self.target.removeprefix(WRAPPED).partition("&")
        return "?".join(filter(None, (unquote(inner), outer)))

    @property
    def is_download(self) -> bool:
        return urlsplit(self.url).path.startswith("/d/")

    @property
    def is_metadata(self) -> bool:
        return urlsplit(self.url).path == "/models/v1/external/weights"


def changed(target: str, *, path: Callable[[str], str] = str, query: Callable[[str], str] = str) -> str:
    """The target with the path, or the signature, of the URL that it asks for changed; wrapped as it was."""
    wrap = target.startswith(WRAPPED)
    inner, _, outer = target.removeprefix(WRAPPED).partition("&") if wrap else (target, "", "")
    asked, _, own = (unquote(inner) if wrap else inner).partition("?")
    url = "?".join(filter(None, (path(asked), own if outer else query(own))))
    return "&".join(filter(None, (WRAPPED + quote(url, safe=""), outer and query(outer)))) if wrap else url


class Window:
    """Listens at once; passes on to `port` once it is told one."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.port: int | None = None
        self.caught = threading.Event()
        self._before: Callable[[Request], None] | None = None
        self._after_bytes: int | None = None
        self._released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def before(self, act: Callable[[Request], None]) -> Iterator[None]:
        """Within it, this is called before any request is passed on."""
        self._before = act
        try:
            yield
        finally:
            self._before = None

    @contextmanager
    def holding(self, after_bytes: int) -> Iterator[None]:
        """Within it, no answer gets further than this until `release`."""
        self.caught.clear()
        self._released.clear()
        self._after_bytes = after_bytes
        try:
            yield
        finally:
            self._after_bytes = None
            self._released.set()

    def release(self) -> None:
        self._released.set()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._released.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._start(self._pass_on, client)

    def _pass_on(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(1 << 16)
                if not piece:
                    return
                head += piece
            request = _parse(head)
            self.requests.append(request)
            if self._before is not None:
                self._before(request)
            with socket.create_connection(("127.0.0.1", self.port or 0)) as server:
                server.sendall(head)
                self._start(_pump, client, server)
                self._answer(server, client)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        try:
            while piece := server.recv(1 << 18):
                passed += len(piece)
                limit = self._after_bytes
                if limit is not None and passed > limit:
                    self.caught.set()
                    self._released.wait(PATIENCE_SECONDS)
                client.sendall(piece)
        finally:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Whatever else the client sends; and its going away, so that the server learns of it."""
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)


def _parse(head: bytes) -> Request:
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Request(method=method, target=target, headers=headers)
