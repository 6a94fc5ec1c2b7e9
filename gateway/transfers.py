"""Transfers under way: watched until their last byte, cut when their key or tenant ends.

What has begun stands on its key and its tenant alone: a grant that is taken away stops the next
request, not this one. Before each step the transfer looks whether these two records are still the
ones it was admitted on; and because a slow reader may not come to its next step for minutes, a
watch looks at all transfers several times a second and breaks the connection off itself.

When it cannot be found out whether the key still holds (no lease, Redis gone), nothing more is
handed to the server, and after a while the transfer is cut as undecided.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.model.errors import Refusal, Unavailable
from gateway.model.verdicts import Ending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.model.facts import Stamp
    from gateway.model.ports import Clock, Directory, Reauthenticate
    from gateway.model.verdicts import Receipt

WATCH_SECONDS = 0.2  # a fifth of the second within which a transfer has to stop
PATIENCE_SECONDS = 5.0  # how long a transfer waits, sending nothing, for its key to be known again


class TransferCutError(Exception):
    """Leaves the app from within `send`."""


class Transfer:
    """One response under way."""

    def __init__(self, watch: Transfers, receipt: Receipt, abort: Callable[[], None] | None) -> None:
        self.cut: Ending | None = None
        self.task = asyncio.current_task()
        self._watch = watch
        self._receipt = receipt
        self._abort = abort
        self._stamp = receipt.admission.key_stamp
        self._unsure_since: float | None = None

    @property
    def is_certain(self) -> bool:
        """Whether the key and its tenant are known to be as they were."""
        principal = self._receipt.admission.allowed.access.principal
        return self._stamp.is_current and self._watch.is_fresh(principal.degraded_seconds)

    async def verify(self) -> None:
        """Before a step: go on, wait until it is known whether to go on, or end."""
        while not self.is_certain:
            await self.look()
            if self.cut is not None:
                raise TransferCutError
            if self._unsure_since is not None:
                await asyncio.sleep(WATCH_SECONDS)

    async def look(self) -> None:
        """Find out whether the key still holds; cut the transfer if it does not."""
        admission = self._receipt.admission
        loop = asyncio.get_running_loop()
        try:
            # What is remembered answers without a lease, too, and would be asked for ever.
            self._watch.verify_fresh(admission.allowed.access.principal.degraded_seconds)
            self._stamp = await self._watch.recheck(admission.key_stamp, admission.request.client)
            self._unsure_since = None
        except Refusal:
            self.cut = Ending.REVOKED
        except Unavailable:
            self._unsure_since = self._unsure_since or loop.time()
            if loop.time() - self._unsure_since > PATIENCE_SECONDS:
                self.cut = Ending.UNDECIDED

    def disconnect(self) -> None:
        """Break the connection off, so that no byte that is buffered follows."""
        if self._abort is not None:
            self._abort()

    def break_off(self) -> None:
        """End it from outside, wherever it waits."""
        self.disconnect()
        if self.task is not None:
            self.task.cancel()


class Transfers:
    """All transfers of this worker."""

    def __init__(self, *, identity: Reauthenticate, directory: Directory, clock: Clock) -> None:
        self._identity = identity
        self._directory = directory
        self._clock = clock
        self._under_way: set[Transfer] = set()

    def __len__(self) -> int:
        return len(self._under_way)

    def is_fresh(self, degraded_seconds: float) -> bool:
        """Whether what is remembered may be trusted now."""
        return self._directory.is_fresh(degraded_seconds)

    def verify_fresh(self, degraded_seconds: float) -> None:
        """Raises `Unavailable` when it may not."""
        self._directory.verify_fresh(degraded_seconds)

    async def recheck(self, stamp: Stamp, client: str) -> Stamp:
        """Authenticate the key of a stamp once more, on facts of now. Raises as `authenticate` does."""
        return await self._identity.reauthenticate(stamp, client, self._clock.now())

    @asynccontextmanager
    async def under_way(self, receipt: Receipt, abort: Callable[[], None] | None) -> AsyncIterator[Transfer]:
        """Watch a transfer for as long as this context lasts. A cut ends it without an error."""
        transfer = Transfer(self, receipt, abort)
        self._under_way.add(transfer)
        try:
            yield transfer
        except TransferCutError:
            transfer.disconnect()
        except asyncio.CancelledError:
            if transfer.cut is None or transfer.task is None:
                raise
            transfer.task.uncancel()  # it was the watch that cancelled; the request is over, the task is not
        finally:
            self._under_way.discard(transfer)

    async def watch(self) -> None:
        """Look at all transfers for ever."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            # All at once: while Redis is silent each look takes its time, and there may be thousands.
            await asyncio.gather(*(self._inspect(one) for one in self._under_way if not one.is_certain))

    async def _inspect(self, transfer: Transfer) -> None:
        await transfer.look()
        if transfer.cut is not None and transfer in self._under_way:
            transfer.break_off()
