"""Keeps the keys that sign and verify access tokens up to date in one worker.

The files of the state folder and the notes in Redis together say which key does what
(`identity/signing_keys.py`). Both are read at intervals, so that a key which was copied to this node is known
here without a restart. Then the worker reports the keys that it holds: `cachegate tokens rotate` has a new
one sign only once every worker has reported it.

A report expires: it says what a worker held a moment ago, and none is left of a worker that has ended.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.identity.signing_keys import arrange, key_numbers, load_signing_keys, role_of
from gateway.model.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gateway.adapters.redis_store import RedisStore
    from gateway.directory.reading.listing import Listing
    from gateway.identity.access_tokens import AccessTokens
    from gateway.identity.signing_keys import SigningKey
    from gateway.model.clocks import Clock

LOOK_SECONDS = 1.0
REPORT_SECONDS = 5.0
REPORT_LIVES_SECONDS = 60.0

NO_TOKENS = b"-"
"""The report of a worker that uses no keys: without a public URL it neither makes nor accepts tokens."""

_REPORTS = b"{cachegate}:token-keys:"


def report_name(worker: str) -> bytes:
    """The name of a worker's report in Redis. It is no fact."""
    return _REPORTS + worker.encode()


async def report_no_tokens(store: RedisStore, worker: str) -> None:
    """Report for ever that this worker uses no keys, so that no rotation waits for it."""
    while True:
        with suppress(Unavailable):  # the feed reports it
            await store.put_for({report_name(worker): NO_TOKENS}, REPORT_LIVES_SECONDS)
        await asyncio.sleep(REPORT_LIVES_SECONDS / 3)


class TokenKeyWatch:
    """The watch of one worker."""

    def __init__(
        self,
        *,
        tokens: AccessTokens,
        folder: Path,
        store: RedisStore,
        listing: Listing,
        worker: str,
        clock: Clock,
        on_failure: Callable[[Unavailable], None],
    ) -> None:
        self._tokens = tokens
        self._folder = folder
        self._store = store
        self._listing = listing
        self._worker = worker
        self._clock = clock
        self._on_failure = on_failure
        self._held: tuple[SigningKey, ...] = ()
        self._notes: Mapping[str, float] | None = None
        self._roles: list[tuple[str, str]] | None = None
        self._reported: tuple[str, ...] = ()
        self._reported_at = float("-inf")
        self._has_failed = False

    async def run(self) -> None:
        """Run for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.try_to_look()

    async def try_to_look(self) -> None:
        """Look once. A failure is reported once, not once a second while it lasts."""
        try:
            await self.look()
            self._has_failed = False
        except (Unavailable, Misconfigured) as failure:
            if not self._has_failed:
                unusable = failure if isinstance(failure, Unavailable) else _unusable(failure)
                self._on_failure(unusable)
            self._has_failed = True

    async def look(self) -> None:
        """Read files and notes, use the keys accordingly, and report them."""
        numbers = key_numbers(self._folder)
        # A key whose file was removed ends, whatever is wrong with the other files.
        self._held = tuple(key for key in self._held if key.number in numbers)
        try:
            self._held = load_signing_keys(self._folder)  # each time: a file may hold another node's key now
            self._notes = await self._listing.signing_notes()
        finally:
            self._arrange()  # keys end by time alone too
        await self._report()

    def _arrange(self) -> None:
        if self._notes is None:
            return
        now = self._clock.now()
        roles = [(key.kid, role_of(key.kid, self._notes, now).value) for key in self._held]
        if roles != self._roles:
            self._tokens.ring = arrange(self._held, self._notes, now)
            self._roles = roles

    async def _report(self) -> None:
        held, now = tuple(key.kid for key in self._held), self._clock.now()
        if held == self._reported and abs(now - self._reported_at) < REPORT_SECONDS:
            return
        await self._store.put_for({report_name(self._worker): " ".join(held).encode()}, REPORT_LIVES_SECONDS)
        self._reported, self._reported_at = held, now


def _unusable(failure: Misconfigured) -> Unavailable:
    return Unavailable("signing keys", str(failure))
