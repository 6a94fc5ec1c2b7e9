"""Check pins: a file is served only while it is what it was when it was first seen (I10).

    open file ─measure─▶ what it holds ─agree─▶ pin ─▶ the file with its SHA-256, or quarantine

`recall` answers almost every read: from memory, without awaiting. `determine` measures what is not known yet
and waits for it, within a limit; a longer measurement continues in the background and serves later requests.
`attest` accepts the digests of a delivery that hashed a file while it streamed it.

A measurement belongs to a stat identity and a pin to a blob's name, so a blob that is replaced, truncated or
rewritten counts as another file and is measured anew. A package file has no name that states its content: it
gets the SHA-256 that was measured, and is never quarantined.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.pins import Measured, identity_of
from gateway.model.singleflight import Singleflight, checked_by_callers
from gateway.model.stamps import Leaf, Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.directory.reading.pins import NearPins
    from gateway.model.names import Md5
    from gateway.model.pins import Pin, StatIdentity
    from gateway.model.verdicts import OpenFile
    from gateway.pinning.ledger import PinLedger
    from gateway.pinning.measuring import Measurer

WAIT_SECONDS = 4.0  # how long a read waits for its file's pin; the engine gives up after 5 s of silence
ATTEMPTS = 3  # a pin that is written, deleted and written again between two reads is no coincidence
MAX_RUNS = 128  # files being measured or queued: each keeps a descriptor open
# how long to wait for the notice of our own change, so that no answer is withdrawn because of it
ECHO_SECONDS = 0.1
_LOOK_SECONDS = 0.002


class PinChecks:
    """The pins as one worker knows them."""

    def __init__(
        self,
        *,
        reader: NearPins,
        ledger: PinLedger,
        measurer: Measurer,
        on_failure: Callable[[Unavailable], None],
    ) -> None:
        self._reader = reader
        self._ledger = ledger
        self._measurer = measurer
        self._on_failure = on_failure
        # What a run finds belongs to a stat identity; the pin is read after it, by each caller.
        self._runs: Singleflight[StatIdentity, tuple[Measured | None, int]] = Singleflight(checked_by_callers)

    def recall(self, file: OpenFile) -> OpenFile | None:
        """The file with its SHA-256, if memory shows that it matches its pin. Synchronous."""
        measured = self._measurer.recall(file.identity)
        if measured is None:
            return None
        if file.md5 is not None:
            found = self._reader.recall(file.md5)
            if found is None or found.pin is None or not found.pin.is_of(measured):
                return None
        return replace(file, sha256=measured.sha256)

    async def determine(self, file: OpenFile, *, wait_seconds: float = WAIT_SECONDS) -> OpenFile:
        """The file with its SHA-256; unchanged when that is not known within the wait.

        Raises `Refusal(QUARANTINED)` for a blob in quarantine, and for one that is put there now.
        """
        known = self.recall(file)
        if known is not None:
            return known
        if file.md5 is not None:
            _verified((await self._reader.find(file.md5)).pin)
        if file.identity not in self._runs and len(self._runs) >= MAX_RUNS:
            return file  # it is hashed while it is sent
        try:
            async with asyncio.timeout(wait_seconds):
                measured, generation = await self._runs.run(file.identity, partial(self._begin, file))
        except TimeoutError:
            return file
        except Unavailable as failure:
            if failure.reason is not Reason.NOT_PINNED:
                raise
            self._on_failure(failure)  # the file is served like one that could not be hashed in time
            return file
        return file if measured is None else await self._agreed(file, measured, generation)

    async def attest(self, file: OpenFile, *, md5: str, sha256: str) -> OpenFile:
        """Pin what a delivery read completely from this very descriptor. Raises as `determine` does.

        Called before the last byte is sent, so that no client has a complete file that was not agreed on.
        """
        if identity_of(os.fstat(file.descriptor)) != file.identity:
            raise Unavailable("cache", f"{file.handle} changed while it was read", Reason.CHANGED_ON_DISK)
        measured = Measured(identity=file.identity, md5=md5, sha256=sha256)
        try:
            await self._measurer.note(measured)
        except Unavailable as failure:
            self._on_failure(failure)
        return await self._agreed(file, measured, 0)

    def stamped(self, file: OpenFile, stamp: Stamp) -> Stamp:
        """The stamp of an answer with this file, which includes the pin's record.

        So a blob that is quarantined between this call and the first byte is withdrawn (I6).
        """
        if file.md5 is None:
            return stamp
        found = self._reader.recall(file.md5)
        # no longer in memory, so a change of it would not be noticed
        gone = Leaf(b"", None, is_current=False)
        return replace(stamp, leaves=(*stamp.leaves, gone if found is None else found.leaf))

    async def close(self) -> None:
        """End all measurements, each at its next step."""
        self._measurer.stop()
        await self._runs.finish()
        await asyncio.to_thread(self._measurer.close)

    def _begin(self, file: OpenFile) -> Coroutine[Any, Any, tuple[Measured | None, int]]:
        # The caller may close its descriptor at any time; the run keeps a duplicate.
        return self._measure(os.dup(file.descriptor), file.md5)

    async def _measure(self, descriptor: int, md5: Md5 | None) -> tuple[Measured | None, int]:
        try:
            measured = await self._measurer.measure(descriptor)
        finally:
            os.close(descriptor)
        if measured is None or md5 is None:
            return measured, 0
        # Agreed on here, also when every waiter timed out: a bad blob is then known to the whole fleet.
        return measured, await self._ledger.agree([(md5, measured)])

    async def _agreed(self, file: OpenFile, measured: Measured, generation: int) -> OpenFile:
        """The file with its SHA-256, once the fleet agrees that this content is that blob."""
        if file.md5 is None:
            return replace(file, sha256=measured.sha256)
        for _ in range(ATTEMPTS):
            pin = await self._await_pin(file.md5, generation)
            if pin is not None and pin.is_of(measured):
                return replace(file, sha256=measured.sha256)
            generation = await self._ledger.agree([(file.md5, measured)])
        raise Unavailable("redis", "the pin of a blob keeps changing", Reason.NOT_PINNED)

    async def _await_pin(self, md5: Md5, generation: int) -> Pin | None:
        """The pin, after waiting until this worker has applied this generation, or `ECHO_SECONDS`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ECHO_SECONDS
        while True:
            found = await self._reader.find(md5)
            if found.generation >= generation or loop.time() > deadline:
                return _verified(found.pin)
            await asyncio.sleep(_LOOK_SECONDS)


def _verified(pin: Pin | None) -> Pin | None:
    if pin is not None and pin.quarantine is not None:
        raise Refusal(Reason.QUARANTINED)
    return pin
