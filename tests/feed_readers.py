"""Readers of the audit feed as clients have them: a stream, and threads that read until they are ended."""

from __future__ import annotations

import json
import threading
import time

from tests.conftest import request_bytes

EVENTS = "/audit/v1/events"
STREAM = (("Accept", "text/event-stream"),)
FAILURES = OSError, EOFError, ValueError, AssertionError, IndexError, KeyError


class Stream:
    """A client of the stream: the events as they come."""

    def __init__(self, wire, key, query="", headers=()):
        self.connection = wire.connect(timeout=30)
        raw = request_bytes("GET", f"{EVENTS}?{query}", key, (*STREAM, *headers))
        self.connection.sendall(raw)
        self.file = self.connection.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = {}
        while (line := self.file.readline().rstrip()) != b"":
            name, _, value = line.partition(b": ")
            self.headers[name.lower()] = value
        self.left = b""

    def lines(self):
        """Lines of the body, of which each comes in chunks."""
        while True:
            size = self.file.readline()
            if not size or int(size, 16) == 0:
                return
            self.left += self.file.read(int(size, 16))
            self.file.readline()
            *whole, self.left = self.left.split(b"\n")
            yield from whole

    def events(self):
        fields = {}
        for line in self.lines():
            if line == b"":
                if "data" in fields:
                    yield fields.get("id"), json.loads(fields["data"])
                fields = {}
                continue
            name, _, value = line.partition(b": ")
            fields[name.decode()] = value.decode()

    def close(self):
        self.file.close()
        self.connection.close()


class Reading:
    """Reads for ever, from the cursor that it had last, over whatever ends its connections."""

    def __init__(self, wire, key):
        self.ids: list[str] = []
        self.requests = 0
        self._wire, self._key = wire, key
        self._cursor: str | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._is_over.is_set():
            try:
                self._read_on()
            except FAILURES:
                time.sleep(0.02)  # its worker was killed

    def end(self):
        self._is_over.set()
        self._thread.join()

    def _take(self, cursor, record):
        self._cursor = cursor
        self.ids.append(record["id"])


class Polling(Reading):
    """By long polls."""

    seconds = 1

    def _read_on(self):
        with self._wire.talk(timeout=30) as talk:
            while not self._is_over.is_set():
                after = "" if self._cursor is None else f"&after={self._cursor}"
                self.requests += 1
                page = talk.get(f"{EVENTS}?limit=1000&wait={self.seconds}{after}", self._key).json()
                for one in page["events"]:
                    self._take(one["cursor"], one["record"])
                self._cursor = page["next"]


class Streaming(Reading):
    """By server-sent events, which come at least as heart-beats."""

    def _read_on(self):
        resumed = () if self._cursor is None else (("Last-Event-ID", self._cursor),)
        self.requests += 1
        stream = Stream(self._wire, self._key, headers=resumed)
        try:
            for cursor, record in stream.events():
                self._take(cursor, record)
                if self._is_over.is_set():
                    return
        finally:
            stream.close()
