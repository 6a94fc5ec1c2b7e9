"""Have the audit folder kept within bounds, beside requests: by a process of its own, every few minutes.

One worker of a folder does it, the one that has the lock. The event loop starts the process and waits for
what it says; it touches no file of the log itself, so that a disk that hangs stops only this chore.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.keeping.keeper import Bounds, Kept
from gateway.model.errors import Reason, Unavailable
from gateway.model.file_lock import open_lock_file, try_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.configuration.settings import Settings

LOCK_NAME = "keeper.lock"
FIRST_SECONDS, ROUND_SECONDS = 60.0, 300.0
DAY = 86_400.0
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from gateway.operations.audit_keeping import main; main()"
)


class KeepingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to keep, and to what bounds. It holds no secret."""

    folder: str
    node: str
    signing_key_file: str
    bounds: Bounds


class _Said(msgspec.Struct):
    kept: Kept | None = None
    failed: str | None = None


def keeping_order(settings: Settings) -> KeepingOrder:
    """The order of an installation."""
    return KeepingOrder(
        folder=str(settings.audit_folder.absolute()),
        node=settings.node,
        signing_key_file=str(settings.signing_key_file.absolute()),
        bounds=Bounds(
            pack_seconds=settings.audit_pack_minutes * 60.0 if settings.audit_pack_minutes else None,
            keep_seconds=settings.audit_keep_days * DAY,
            keep_bytes=settings.audit_keep_gigabytes << 30,
            wait_seconds=settings.audit_wait_days * DAY,
        ),
    )


class AuditKeeping:
    """The chore of one worker. `on_kept` gets the result of each round, `on_failure` what failed."""

    def __init__(
        self,
        settings: Settings,
        on_kept: Callable[[Kept], None],
        on_failure: Callable[[Unavailable], None],
        *,
        first_seconds: float = FIRST_SECONDS,
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        self._folder = settings.audit_folder
        self._order = msgspec.json.encode(keeping_order(settings))
        self._on_kept = on_kept
        self._on_failure = on_failure
        self._first_seconds = first_seconds
        self._round_seconds = round_seconds
        self._lock: int | None = None

    async def prepare(self) -> None:
        """Open the lock, before the first request: later the loop opens no file of this disk."""
        try:
            self._lock = open_lock_file(self._folder / LOCK_NAME)
        except OSError as error:
            why = f"{self._folder / LOCK_NAME} cannot be opened ({error.strerror})"
            self._on_failure(Unavailable("audit", why, Reason.NO_AUDIT))

    async def run(self) -> None:
        """Make rounds for ever, while this worker has the lock."""
        await asyncio.sleep(self._first_seconds)
        while True:
            if self.leads():
                await self._make_round()
            await asyncio.sleep(self._round_seconds)

    def leads(self) -> bool:
        """Whether this worker has the lock, or can have it."""
        return self._lock is not None and try_lock(self._lock)

    async def close(self) -> None:
        """Give the lock to another worker."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    async def _make_round(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)), stdin=PIPE, stdout=PIPE
        )
        try:
            raw, _ = await process.communicate(self._order)
        except asyncio.CancelledError:
            if process.returncode is None:
                process.kill()  # a round may be killed at any step
            raise
        try:
            said = msgspec.json.decode(raw, type=_Said)
        except msgspec.DecodeError:
            said = _Said(failed=f"keeping the audit folder ended with status {process.returncode}")
        if said.kept is not None:
            self._on_kept(said.kept)
        if said.failed is not None:
            self._on_failure(Unavailable("audit", said.failed, Reason.NO_AUDIT))
