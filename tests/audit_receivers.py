"""Receivers of the audit log for tests: HTTP push, syslog over TLS, a reader of the stream. Each speaks its
real protocol over a socket, keeps the ids of the records that it got, and can be ended and begun again on the
same port."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import redis

from gateway.adapters.redis_stream import STREAM
from gateway.audit.index.indexer import LOCK_NAME, Indexer
from gateway.model.file_lock import FileLock
from tests.certificates import write_certificate
from tests.ports import free_port

SECRET = b"0123456789abcdef0123456789abcdef"
GROUP = "siem"
_ID = re.compile(rb'"id":"([0-9a-f-]{36})"')
_WRITTEN_INDEX = (
    "import sys; from pathlib import Path; from tests.audit_receivers import follow_index; "
    "follow_index(Path(sys.argv[1]), sys.argv[2])"
)


class Received:
    """The ids of records that arrived, and how often one came again."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.again = 0
        self.changed = threading.Condition()

    def add(self, ids) -> None:
        with self.changed:
            for one in ids:
                self.again += one in self.ids
                self.ids.add(one)
            self.changed.notify_all()

    def await_all(self, ids, seconds: float = 120.0) -> None:
        """Wait until all of these are there."""
        missing: set[str] = set()

        def has_all() -> bool:
            missing.clear()
            missing.update(ids - self.ids)
            return not missing

        with self.changed:
            assert self.changed.wait_for(has_all, seconds), f"{len(missing)} of {len(ids)} are missing"


class PushReceiver(Received):
    """A target of push. It checks each signature; `failing` is the share of posts that it answers by 503.

    While `hangs` is set, it answers nothing.
    """

    def __init__(self, *, failing: float = 0.0) -> None:
        super().__init__()
        self.port = free_port()
        self.failing = failing
        self.hangs = threading.Event()
        self.freed = threading.Event()
        self.bad_signatures = 0
        self.deliveries: list[str] = []
        self._server: ThreadingHTTPServer | None = None
        self.begin()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in"

    def begin(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(receiver.take(body, self.headers))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # a sender that was killed

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, body: bytes, headers) -> int:
        if self.hangs.is_set():
            self.freed.wait()
        if random.random() < self.failing:
            return 503
        delivery, timestamp = headers["cachegate-delivery"], headers["cachegate-timestamp"]
        signature = hmac.new(SECRET, f"{timestamp}.{delivery}.".encode() + body, hashlib.sha256).hexdigest()
        self.bad_signatures += f"v1={signature}" != headers["cachegate-signature"]
        self.deliveries.append(delivery)
        self.add(json.loads(line)["id"] for line in body.splitlines())
        return 204

    def end(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class SyslogReceiver(Received):
    """A receiver of RFC 5425: TLS, each message with its length in front."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.certificate, self._key = folder / "syslog.pem", folder / "syslog.key"
        write_certificate(self.certificate, self._key)
        self.port = free_port()
        self.messages: list[bytes] = []
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.begin()

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def begin(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self._key)
        with suppress(OSError):
            while True:
                raw, _ = listener.accept()
                threading.Thread(target=self._serve, args=(context, raw), daemon=True).start()

    def _serve(self, context: ssl.SSLContext, raw: socket.socket) -> None:
        with suppress(OSError, ValueError), context.wrap_socket(raw, server_side=True) as connection:
            self._open.append(connection)
            with connection.makefile("rb") as file:
                while length := _until_blank(file):
                    message = file.read(int(length))
                    if len(message) < int(length):
                        return
                    self.messages = [*self.messages[-20:], message]
                    self.add(
                        [
                            found[1].decode()
                            for found in [re.search(rb'id="([0-9a-f-]{36})"', message)]
                            if found
                        ]
                    )

    def end(self) -> None:
        """End as a program that is asked to: what it has taken is kept."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        while self._open:
            with suppress(OSError, ValueError):
                self._open.pop().shutdown(socket.SHUT_RDWR)


def _until_blank(file) -> bytes:
    text = b""
    while (one := file.read(1)) not in {b" ", b""}:
        text += one
    return text


class StreamReader(Received):
    """A consumer of a group of the stream; it keeps the marks of what the group lost."""

    def __init__(self, url: str, group: str = GROUP) -> None:
        super().__init__()
        self._url = url
        self.group = group
        self.marks: list[dict[str, str]] = []
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        with self._client() as client:
            client.xgroup_create(STREAM, group, "0", mkstream=True)
        self.begin()

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(self._url, socket_timeout=30)

    def begin(self) -> None:
        self._is_over.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._client() as client:
            start: str = "0"  # what was taken and not acknowledged
            while not self._is_over.is_set():
                found = client.xreadgroup(self.group, "one", {STREAM: start}, count=500, block=200)
                entries = (
                    next(iter(found.values()))[0]
                    if isinstance(found, dict) and found
                    else found[0][1]
                    if found
                    else []
                )
                if not entries:
                    start = ">"
                    continue
                self.marks += [
                    json.loads(one[b"from"]) for _, one in entries if one.get(b"lost") == self.group.encode()
                ]
                self.add(one[b"id"].decode() for _, one in entries if b"id" in one)
                client.xack(STREAM, self.group, *[key for key, _ in entries])

    def end(self) -> None:
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()


def follow_index(folder: Path, node: str) -> None:
    """Put the log in order, for ever, where no other process does."""
    with FileLock(folder / LOCK_NAME) as lock:
        while not lock.is_taken_alone():
            time.sleep(0.1)
        indexer = Indexer(folder, node)
        while True:
            if not indexer.step():
                time.sleep(0.005)


def start_index(folder: Path, node: str) -> subprocess.Popen[bytes]:
    """A process that puts the log in order."""
    root = Path(__file__).parent.parent
    return subprocess.Popen([sys.executable, "-c", _WRITTEN_INDEX, str(folder), node], cwd=root)


def order_bytes(order: msgspec.Struct) -> bytes:
    """An order for the process of the consumers, as a line."""
    return msgspec.json.encode(order) + b"\n"
