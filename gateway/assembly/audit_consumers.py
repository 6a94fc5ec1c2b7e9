"""Have the log delivered to its consumers, beside requests: by a process of its own, for all of a node.

One worker of a folder starts it, the one that has the lock, once there is a consumer. The process says every
second how each consumer is doing, and ends when its standard input does, so that it does not outlive its
worker, even one that is killed. One that says nothing for a while is killed and started again. The event loop
touches no file of the log but in a thread: a disk that hangs stops only this chore.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.consumers.registry import ConsumerRegistry
from gateway.audit.consumers.runner import ConsumerStatus  # noqa: TC001 -- msgspec reads annotations
from gateway.model.errors import Reason, Unavailable
from gateway.model.file_lock import open_lock_file, try_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.configuration.settings import Settings

LOCK_NAME = "consumers.lock"
LOOK_SECONDS = 1.0
SILENT_SECONDS = 30.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
END_SECONDS = 8.0
MOST_LINE_BYTES = 256 << 10
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from gateway.operations.audit_consumers import main; main()"
)


class ConsumersOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the process needs to know. The Redis URL may hold a password: it goes by standard input."""

    folder: str
    node: str
    signing_key_file: str
    redis_url: str
    has_stream: bool
    stream_bytes: int

    def __repr__(self) -> str:
        return f"ConsumersOrder(folder={self.folder!r}, node={self.node!r})"


class ConsumersReport(msgspec.Struct, frozen=True, kw_only=True):
    """How all consumers are doing, or what failed."""

    consumers: list[ConsumerStatus] = []
    damaged: list[str] = []  # registrations that do not parse
    failed: str | None = None


_decode = msgspec.json.Decoder(ConsumersReport).decode


def consumers_order(settings: Settings, redis_url: str) -> ConsumersOrder:
    """The order of an installation."""
    return ConsumersOrder(
        folder=str(settings.audit_folder.absolute()),
        node=settings.node,
        signing_key_file=str(settings.signing_key_file.absolute()),
        redis_url=redis_url,
        has_stream=settings.audit_stream,
        stream_bytes=settings.audit_stream_megabytes << 20,
    )


class AuditConsumers:
    """The chore of one worker. `on_report` gets each report, `on_failure` what failed."""

    def __init__(
        self,
        settings: Settings,
        redis_url: str,
        on_report: Callable[[ConsumersReport], None],
        on_failure: Callable[[Unavailable], None],
    ) -> None:
        self._folder = settings.audit_folder
        self._has_stream = settings.audit_stream
        self._order = msgspec.json.encode(consumers_order(settings, redis_url)) + b"\n"
        self._on_report = on_report
        self._on_failure = on_failure
        self._lock: int | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._process: Process | None = None

    async def prepare(self) -> None:
        """Open the lock, before the first request: later the loop opens no file of this disk."""
        try:
            self._lock = open_lock_file(self._folder / LOCK_NAME)
        except OSError as error:
            why = f"{self._folder / LOCK_NAME} cannot be opened ({error.strerror})"
            self._on_failure(Unavailable("audit", why, Reason.NO_AUDIT))

    async def run(self) -> None:
        """Run the process for ever, while this worker has the lock and there are consumers."""
        while True:
            if self.leads() and await self._has_work():
                await self._run_process()
                await asyncio.sleep(self._pause)
                self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            else:
                await asyncio.sleep(LOOK_SECONDS)

    def leads(self) -> bool:
        """Whether this worker has the lock, or can have it."""
        return self._lock is not None and try_lock(self._lock)

    async def close(self) -> None:
        """End the process, and give the lock to another worker."""
        await self._end_process()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    async def _has_work(self) -> bool:
        """Whether there is a consumer, or a registration that does not parse and has to be reported."""
        if self._has_stream:
            return True
        with suppress(Unavailable):
            return await asyncio.to_thread(ConsumerRegistry(self._folder).has_any)
        return False

    async def _run_process(self) -> None:
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)),
            stdin=PIPE,
            stdout=PIPE,
            limit=MOST_LINE_BYTES,
        )
        try:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("a process without pipes")
            with suppress(OSError):  # it has ended already: its status says so below
                process.stdin.write(self._order)
                await process.stdin.drain()
            await self._follow(process.stdout)
        finally:
            await self._end_process()
        self._on_report(ConsumersReport())
        why = f"delivering the log to its consumers ended with status {process.returncode}"
        self._on_failure(Unavailable("audit", why, Reason.NO_AUDIT))

    async def _follow(self, output: asyncio.StreamReader) -> None:
        """Pass on what the process says, until it ends or is silent for too long."""
        while True:
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    line = await output.readline()
                report = _decode(line)
            except (TimeoutError, ValueError):
                return
            if report.failed is not None:
                self._on_failure(Unavailable("audit", report.failed, Reason.NO_AUDIT))
                continue
            self._pause = FIRST_PAUSE_SECONDS
            self._on_report(report)

    async def _end_process(self) -> None:
        """End the process in order, so that it notes how far it is; kill it when it takes too long."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
