"""Have the index of the audit log kept up to date, beside requests: by a process that follows the log.

One worker of a folder has it, the one that has the lock, and starts it again when it ends. The event loop
starts the process and reads what it tells; it touches no file of the log itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.index.lag import IndexingOrder, IndexLag
from gateway.model.errors import Reason, Unavailable
from gateway.model.file_lock import open_lock_file, try_lock

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable

    from gateway.configuration.settings import Settings

LOCK_NAME = "indexer.lock"
FIRST_SECONDS = 1.0  # a worker's start comes first, and one that ends at once starts no process
AGAIN_SECONDS = 2.0  # until another worker takes over, and until a process that ended is started again
SILENT_SECONDS = 10.0  # twice as long as it takes to tell
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from gateway.operations.audit_indexing import main; main()"
)


class AuditIndexing:
    """The chore of one worker. `on_lag` gets what the process tells, `on_failure` what failed."""

    def __init__(
        self,
        settings: Settings,
        on_lag: Callable[[IndexLag], None],
        on_failure: Callable[[Unavailable], None],
        *,
        first_seconds: float = FIRST_SECONDS,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self._folder = settings.audit_folder
        order = IndexingOrder(folder=str(settings.audit_folder.absolute()), node=settings.node)
        self._order = msgspec.json.encode(order) + b"\n"
        self._on_lag = on_lag
        self._on_failure = on_failure
        self._first_seconds = first_seconds
        self._again_seconds = again_seconds
        self._lock: int | None = None

    async def prepare(self) -> None:
        """Open the lock, before the first request: later the loop opens no file of this disk."""
        try:
            self._lock = open_lock_file(self._folder / LOCK_NAME)
        except OSError as error:
            self._fail(f"{self._folder / LOCK_NAME} cannot be opened ({error.strerror})")

    async def run(self) -> None:
        """Have the process, for ever, while this worker has the lock."""
        await asyncio.sleep(self._first_seconds)
        while True:
            if self.leads():
                await self._follow()
            await asyncio.sleep(self._again_seconds)

    def leads(self) -> bool:
        """Whether this worker has the lock, or can have it."""
        return self._lock is not None and try_lock(self._lock)

    async def close(self) -> None:
        """Give the lock to another worker."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    async def _follow(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)), stdin=PIPE, stdout=PIPE
        )
        try:
            await self._listen(process)
        finally:
            if process.returncode is None:
                process.kill()  # it may be killed at any step
            if process.stdin is not None:
                process.stdin.close()
            status = await process.wait()
        self._fail(f"indexing the audit log ended with status {status}; it is started again")

    async def _listen(self, process: Process) -> None:
        if process.stdin is None or process.stdout is None:
            return
        process.stdin.write(self._order)  # and left open: the process ends when it is closed
        last = IndexLag()
        while True:
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    line = await process.stdout.readline()
            except TimeoutError:  # it hangs: on the disk, or stopped
                last = msgspec.structs.replace(last, seconds=last.seconds + SILENT_SECONDS)
                self._on_lag(last)
                continue
            if not line:
                return
            try:
                last = msgspec.json.decode(line, type=IndexLag)
            except msgspec.DecodeError:
                return
            self._on_lag(last)
            if last.failed is not None:
                self._fail(last.failed)

    def _fail(self, why: str) -> None:
        self._on_failure(Unavailable("audit-index", why, Reason.NO_AUDIT))
