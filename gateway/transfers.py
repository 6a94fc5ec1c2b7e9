"""Watches responses being sent, and cuts them when their key or tenant is revoked or their client stalls.

Once begun, a transfer depends on its key and tenant only: a removed grant or an expired link stops the next
request, not this one. Before each step the transfer checks whether these two records are still the ones it
was admitted on, and whether the key is within its own validity period. If not, the key is authenticated once
more, as at the start (revoked, not-before, expiry, networks, tenant). A slow reader may not get to its next
step for minutes, so a background task checks all transfers several times a second and aborts connections.

A client that takes nothing for a while is cut as well: by the server, if it has a clock for that, as ours has
(`server/stall_clock.py`); else a step may take no longer than `STALL_SECONDS`.

While it is unknown whether the key is still valid (no lease, Redis gone), nothing more is given to the
server, and after `PATIENCE_SECONDS` the transfer is cut as undecided.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.verdicts import Ending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import Message, Send

    from gateway.model.access import Principal
    from gateway.model.clocks import Clock
    from gateway.model.ports import Directory, Reauthenticate
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Receipt

WATCH_SECONDS = 0.2  # a fifth of the second within which a transfer has to stop
PATIENCE_SECONDS = 5.0  # how long a transfer waits, sending nothing, until the state of its key is known
STALL_SECONDS = 60.0  # how long a step may take, where the server has no stall clock

_ENDINGS = {
    Reason.EXPIRED_KEY: Ending.EXPIRED,
    Reason.NOT_YET_VALID: Ending.NOT_YET_VALID,
    Reason.OUTSIDE_NETWORKS: Ending.OUTSIDE_NETWORKS,
}
"""The endings for a key that is no longer valid; any other reason means that it or its tenant was revoked."""


class TransferCutError(Exception):
    """Aborts the app from within `send`."""


class ClientGoneError(TransferCutError):
    """Ends a request whose client left before its answer began."""


async def _at_once() -> None:
    return


def _nothing() -> None:
    """What a server does that cannot abort a connection."""


class ClientEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What the server can tell about a client's connection, and do to it; defaults for other servers."""

    drained: Callable[[], Awaitable[None]] = _at_once  # returns once there is room in the write buffer
    abort: Callable[[], None] = _nothing  # resets the connection and drops what is buffered
    has_gone: Callable[[], bool] = lambda: False  # whether the client left before its answer was written
    has_stall_clock: bool = False  # whether the server cuts a client that takes nothing, whatever was written

    @property
    def can_abort(self) -> bool:
        """Whether the server can abort the connection: after a cut, nothing more is sent to it."""
        return self.abort is not _nothing


class Transfer:
    """One response being sent."""

    def __init__(self, watch: Transfers, receipt: Receipt, client: ClientEnd) -> None:
        self.cut: Ending | None = None
        self.is_watched = True
        self.task = asyncio.current_task()
        self._watch = watch
        self._receipt = receipt
        self._client = client
        self._principal = receipt.admission.allowed.access.principal
        self._stamp = receipt.admission.key_stamp
        self._unsure_since: float | None = None

    @property
    def is_certain(self) -> bool:
        """Whether the key and its tenant are unchanged, and the key is within its validity period."""
        return self._stamp.is_current and self._watch.is_valid(self._principal)

    async def verify(self) -> None:
        """Before a step: return to go on, wait while that is unknown, or raise to end."""
        while self.is_watched and not self.is_certain:
            await self.look()
            if self.cut is not None:
                raise TransferCutError
            if self._unsure_since is not None:
                await asyncio.sleep(WATCH_SECONDS)

    async def look(self) -> None:
        """Check whether the key is still valid; set `cut` if it is not."""
        admission = self._receipt.admission
        loop = asyncio.get_running_loop()
        try:
            # Memory would answer without a lease as well, and the transfer would never end.
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
        """Send one message, within the time limit that the client has for it.

        After the last one, the write buffer must drain: an answer that nobody received is not complete.
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
        """Abort the connection, so that nothing that is buffered follows."""
        self._client.abort()

    def break_off(self) -> None:
        """End the transfer from the outside, whatever it is waiting for."""
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
        """Whether memory may be trusted now, and the key is within its validity period."""
        return self._directory.is_fresh(principal.degraded_seconds) and self._identity.is_in_time(
            principal, self._clock.now()
        )

    def verify_fresh(self, degraded_seconds: float) -> None:
        """Raises `Unavailable` when memory may not be trusted now."""
        self._directory.verify_fresh(degraded_seconds)

    async def recheck(self, stamp: Stamp, client: str) -> tuple[Principal, Stamp]:
        """Authenticate the key of a stamp again, on current facts. Raises as `authenticate` does."""
        return await self._identity.reauthenticate(stamp, client, self._clock.now())

    def begin(self, receipt: Receipt, client: ClientEnd) -> Transfer:
        """Watch a transfer until `end` is called. A cut aborts its connection and cancels this task."""
        transfer = Transfer(self, receipt, client)
        self._under_way.add(transfer)
        return transfer

    def end(self, transfer: Transfer) -> None:
        """Watch it no longer."""
        self._under_way.discard(transfer)

    @asynccontextmanager
    async def under_way(
        self, receipt: Receipt, client: ClientEnd, *, is_watched: bool = True
    ) -> AsyncIterator[Transfer]:
        """Watch a transfer for as long as this context lasts. A cut ends the context without an error.

        The answer to a change is not watched: its caller has to hear of it, even where it ended its own key.
        """
        transfer = self.begin(receipt, client)
        if not is_watched:
            transfer.is_watched = False
            self.end(transfer)
        try:
            yield transfer
        except TransferCutError:
            transfer.disconnect()
        except asyncio.CancelledError:
            if transfer.cut is None or transfer.task is None:
                raise
            transfer.task.uncancel()  # the watch cancelled it: the request is over, the task is not
        finally:
            self.end(transfer)

    async def watch(self) -> None:
        """Check all transfers at intervals, for ever."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            # Concurrently: while Redis is silent each check takes its time, and there may be thousands.
            await asyncio.gather(*(self._inspect(one) for one in self._under_way if not one.is_certain))

    async def _inspect(self, transfer: Transfer) -> None:
        await transfer.look()
        if transfer.cut is not None and transfer in self._under_way:
            transfer.break_off()
