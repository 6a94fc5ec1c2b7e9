"""The supervisor's handle on one worker process: start, ask for its status, stop, learn how it ended."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from itertools import count
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.model.errors import Misconfigured, Reason, Unavailable
from gateway.server.status import WorkerStatus  # noqa: TC001 -- msgspec reads the annotations of _Line
from gateway.server.worker import LENGTH_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.server.worker import WorkerOrder

ANSWER_SECONDS = 1.0  # a worker whose event loop is blocked for longer is not ready, whatever it would answer
MAX_LINE_BYTES = 4 * 1024 * 1024  # room for thousands of counters

# `-P` and an explicit path: the worker imports from where its parent did, and never from the
# working directory that it happens to be started in.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from gateway.server.worker import main; main()"
)


class _Failed(msgspec.Struct):
    why: str
    where: str | None = None
    dependency: str | None = None
    reason: Reason = Reason.NO_FACTS


class _Line(msgspec.Struct):
    serving: bool = False
    failed: _Failed | None = None
    id: int = 0
    status: WorkerStatus | None = None


class WorkerProcess:
    """One worker process, from its start to its end. Made by `start`."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._ids = count(1)
        self._pending: dict[int, asyncio.Future[WorkerStatus]] = {}
        self.is_serving = asyncio.Event()
        self.failure: Misconfigured | Unavailable | None = None
        self.last_status: WorkerStatus | None = None
        self.unanswered = 0  # how many questions in a row had no answer
        self.answered_at = time.monotonic()
        self.hangs = False  # it was killed because it did not answer

    @classmethod
    async def start(
        cls,
        order: WorkerOrder,
        listeners: Sequence[socket.socket],
        *,
        after_hang_seconds: float | None = None,
    ) -> WorkerProcess:
        """Start a new process and send it the order. The first listener is the public one.

        `after_hang_seconds`: how long ago the worker answered last that it replaces.
        """
        raw_order = msgspec.json.encode(replace(order, after_hang_seconds=after_hang_seconds))
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [one.fileno() for one in (theirs, *listeners)]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)),
                *map(str, descriptors),
                pass_fds=descriptors,
                stdin=DEVNULL,
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
        writer.write(len(raw_order).to_bytes(LENGTH_BYTES, "big") + raw_order)
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    async def run(self) -> int:
        """Read its messages until it ends; return its exit status, or minus the signal that killed it."""
        try:
            async for raw_line in self._reader:
                self._receive(raw_line)
        except (ConnectionError, ValueError):
            self.kill()  # a broken channel or an endless line: it can no longer be supervised
        finally:
            self._writer.close()
        return await self._process.wait()

    async def ask(self) -> WorkerStatus | None:
        """Its status; None when it does not answer in time."""
        request_id = next(self._ids)
        answer = self._pending[request_id] = asyncio.get_running_loop().create_future()
        self._send(b"status? %d\n" % request_id)
        try:
            status: WorkerStatus = await asyncio.wait_for(answer, ANSWER_SECONDS)
        except TimeoutError:
            return None
        else:
            self.unanswered = 0
            self.answered_at = time.monotonic()
            return status
        finally:
            del self._pending[request_id]

    def stop(self) -> None:
        """Tell it to finish the answers in progress and to end."""
        self._send(b"stop\n")

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        if self._process.returncode is None:
            self._process.kill()

    def _send(self, line: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(line)

    def _receive(self, raw_line: bytes) -> None:
        try:
            line = msgspec.json.decode(raw_line, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # not a valid message: counts as no answer
        if line.serving:
            self.is_serving.set()
        if line.failed is not None:
            self.failure = _failure(line.failed)
        if line.status is not None:
            self.last_status = line.status
            pending = self._pending.get(line.id)
            if pending is not None and not pending.done():
                pending.set_result(line.status)


def _failure(failed: _Failed) -> Misconfigured | Unavailable:
    if failed.dependency is not None:
        return Unavailable(failed.dependency, failed.why, failed.reason)
    return Misconfigured(failed.where or "worker", failed.why)
