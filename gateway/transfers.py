"""Transfers under way: watched until their last byte, cut when their key or tenant ends.

What has begun stands on its key and its tenant alone: a grant that is taken away, or a link whose time
is over, stops the next request, not this one. Before each step the transfer looks whether these two
records are still the ones it was admitted on, and whether the key is within its own times; when either
is not so, the key is authenticated once more, as at the start (revoked, not-before, expiry, networks,
tenant). Because a slow reader may not come to its next step for minutes, a watch looks at all transfers
several times a second and breaks the connection off itself.

A client that takes in nothing for a while is cut as well: by the server, if that has a clock for it, as
ours has (`server/stall_clock.py`); else a step may take no longer than that.

When it cannot be found out whether the key still holds (no lease, Redis gone), nothing more is
handed to the server, and after a while the transfer is cut as undecided.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.verdicts import Ending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import Message, Send

    from gateway.model.access import Principal
    from gateway.model.facts import Stamp
    from gateway.model.ports import Clock, Directory, Reauthenticate
    from gateway.model.verdicts import Receipt

WATCH_SECONDS = 0.2  # a fifth of the second within which a transfer has to stop
PATIENCE_SECONDS = 5.0  # how long a transfer waits, sending nothing, for its key to be known again
STALL_SECONDS = 60.0  # how long a step may take, where the server has no clock of its own for that

_ENDINGS = {
    Reason.EXPIRED_KEY: Ending.EXPIRED,
    Reason.NOT_YET_VALID: Ending.NOT_YET_VALID,
    Reason.OUTSIDE_NETWORKS: Ending.OUTSIDE_NETWORKS,
}
"""Why a key that was valid is not any more; for every other reason it, or its tenant, was revoked."""


class TransferCutError(Exception):
    """Leaves the app from within `send`."""


async def _at_once() -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientEnd:
    """What the server can tell of a client's connection and do to it; a server that cannot leaves it so."""

    drained: Callable[[], Awaitable[None]] = _at_once  # once earlier bytes left room for more
    abort: Callable[[], None] = lambda: None  # break it off and drop what is buffered
    has_gone: Callable[[], bool] = lambda: False  # before its answer was all handed over
    has_stall_clock: bool = False  # it cuts a client that takes in nothing, whatever was written


class Transfer:
    """One response under way."""

    def __init__(self, watch: Transfers, receipt: Receipt, client: ClientEnd) -> None:
        self.cut: Ending | None = None
        self.task = asyncio.current_task()
        self._watch = watch
        self._receipt = receipt
        self._client = client
        self._principal = receipt.admission.allowed.access.principal
        self._stamp = receipt.admission.key_stamp
        self._unsure_since: float | None = None

    @property
    def is_certain(self) -> bool:
        """Whether the key and its tenant are known to be as they were, and the key is within its times."""
        return self._stamp.is_current and self._watch.is_valid(self._principal)

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
            self._watch.verify_fresh(self._principal.degraded_seconds)
            self._principal, self._stamp = await self._watch.recheck(
                admission.key_stamp, admission.request.client
            )
            self._unsure_since = None
        except Refusal as refusal:
            self.cut = _ENDINGS.get(refusal.reason, Ending.REVOKED)
        except Unavailable:
            self._unsure_since = self._unsure_since or loop.time()
            if loop.time() - self._unsure_since > PATIENCE_SECONDS:
                self.cut = Ending.UNDECIDED

    async def hand_over(self, message: Message, send: Send) -> None:
        """Send one message; meanwhile it is for the client to take in what it is sent.

        After the last one there has to be room again: what was handed over to nobody is not complete.
        """
        if self._client.has_stall_clock:
            await self._hand_over(message, send)
            return
        limit = asyncio.timeout(self._watch.stall_seconds)
        try:
            async with limit:
                await self._hand_over(message, send)
        except TimeoutError:
            if not limit.expired():
                raise
            self.cut = Ending.CLIENT_GONE
            raise TransferCutError from None

    async def _hand_over(self, message: Message, send: Send) -> None:
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last:
            self._verify_present()
        await send(message)
        if is_last:
            await self._client.drained()
            self._verify_present()

    def disconnect(self) -> None:
        """Break the connection off, so that no byte that is buffered follows."""
        self._client.abort()

    def break_off(self) -> None:
        """End it from outside, wherever it waits."""
        self.disconnect()
        if self.task is not None:
            self.task.cancel()

    def _verify_present(self) -> None:
        if self._client.has_gone():
            self.cut = Ending.CLIENT_GONE
            raise TransferCutError


class Transfers:
    """All transfers of this worker."""

    def __init__(
        self,
        *,
        identity: Reauthenticate,
        directory: Directory,
        clock: Clock,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self.stall_seconds = stall_seconds
        self._identity = identity
        self._directory = directory
        self._clock = clock
        self._under_way: set[Transfer] = set()

    def __len__(self) -> int:
        return len(self._under_way)

    def is_valid(self, principal: Principal) -> bool:
        """Whether what is remembered may be trusted now, and by it the key is within its times."""
        return self._directory.is_fresh(principal.degraded_seconds) and self._identity.is_in_time(
            principal, self._clock.now()
        )

    def verify_fresh(self, degraded_seconds: float) -> None:
        """Raises `Unavailable` when it may not."""
        self._directory.verify_fresh(degraded_seconds)

    async def recheck(self, stamp: Stamp, client: str) -> tuple[Principal, Stamp]:
        """Authenticate the key of a stamp once more, on facts of now. Raises as `authenticate` does."""
        return await self._identity.reauthenticate(stamp, client, self._clock.now())

    @asynccontextmanager
    async def under_way(self, receipt: Receipt, client: ClientEnd) -> AsyncIterator[Transfer]:
        """Watch a transfer for as long as this context lasts. A cut ends it without an error."""
        transfer = Transfer(self, receipt, client)
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
