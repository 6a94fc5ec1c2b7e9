"""Have the keys of an issuer fetched: by one worker for all, not too often, whatever comes in tokens.

Anybody can write a token with a made-up `kid`, so what such a token causes has to be bounded. A lock in Redis
lets one worker fetch. The others wait until the new keys are a fact, or a mark says that the fetch failed.
Keys are asked for anew only once those that are known are `REFRESH_APART_SECONDS` old, and after a failure
the mark stays for as long: the whole fleet asks an issuer no more often. Within a worker, all requests share
one task. A task belongs to no request.

The keys that were fetched become a fact, so that all workers have the same ones, also after a restart, and
what was decided with a key ends when that key is gone. They are public. Whoever can write to Redis could put
keys of their own there; they could as well write a document that names an issuer of their own.

Keys that are empty or do not parse are a failure: the ones before stay, for as long as they count.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING

from gateway.adapters.key_set_client import undecided
from gateway.directory.edits.changes import change as run_change
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.identity.json_web_tokens import parse_key_set
from gateway.identity.outside_tokens import REFRESH_APART_SECONDS
from gateway.model.errors import BadNameError, Conflict, Unavailable
from gateway.model.issuers import IssuerKeySet, issuer_digest
from gateway.model.singleflight import Singleflight, checked_by_callers
from gateway.model.verdicts import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.adapters.clock import SystemClock
    from gateway.adapters.key_set_client import KeySetClient
    from gateway.adapters.redis_store import RedisStore
    from gateway.directory.edits.changes import Changes
    from gateway.model.issuers import Issuer
    from gateway.pinning.ledger import Perform

PATIENCE_SECONDS = 6.0  # longer than a fetch takes
LOOK_SECONDS = 0.02  # how often a worker checks whether another one has the keys; less often each time
LONGEST_LOOK_SECONDS = 0.2


class KeySets:
    """Fetches in one worker."""

    def __init__(
        self,
        *,
        client: KeySetClient,
        store: RedisStore,
        perform: Perform,
        forget: Callable[[Iterable[bytes]], None],
        clock: SystemClock,
        worker: str,
        on_failure: Callable[[Unavailable], None],
    ) -> None:
        self._client = client
        self._store = store
        self._stored = Listing(PlainFacts(store))
        self._perform = perform
        self._forget = forget
        self._clock = clock
        self._worker = worker
        self._on_failure = on_failure
        self._serials = count()
        self._outcomes: Counter[str] = Counter()
        self._tasks: Singleflight[bytes, None] = Singleflight(checked_by_callers)
        self._behind: set[asyncio.Task[None]] = set()

    @property
    def outcomes(self) -> Counter[str]:
        """How often keys were fetched, and how often that failed."""
        return self._outcomes

    async def refresh(self, issuer: Issuer, known_at: float | None) -> None:
        """Return once keys that were fetched after `known_at` are a fact. Raises `Unavailable`."""
        digest = issuer_digest(issuer.url)
        await self._tasks.run(digest, lambda: self._run(issuer, digest, known_at))
        self._forget([names.key_set_fact(digest)])  # what is in memory may be older

    def refresh_soon(self, issuer: Issuer, known_at: float) -> None:
        """The same in the background. A failure is counted: the keys that are known still count."""
        if issuer_digest(issuer.url) in self._tasks:
            return
        task = asyncio.create_task(self._refresh_behind(issuer, known_at))
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def close(self) -> None:
        """Cancel what is under way."""
        for task in self._behind:
            task.cancel()
        await asyncio.gather(*self._behind, return_exceptions=True)
        await self._tasks.close()
        await self._client.close()

    async def _refresh_behind(self, issuer: Issuer, known_at: float) -> None:
        try:
            await self.refresh(issuer, known_at)
        except Unavailable as failure:
            self._on_failure(failure)

    async def _run(self, issuer: Issuer, digest: bytes, known_at: float | None) -> None:
        lock, holder = names.asking_for_keys(digest), f"{self._worker}:{next(self._serials)}"
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                pause = LOOK_SECONDS
                while not await self._store.hold(lock, holder, seconds=PATIENCE_SECONDS):
                    await asyncio.sleep(pause)
                    if await self._is_known(issuer, known_at):
                        return
                    pause = min(1.5 * pause, LONGEST_LOOK_SECONDS)
                try:
                    if not await self._is_known(issuer, known_at):
                        await self._fetch(issuer)
                finally:
                    with suppress(Unavailable):  # the lock expires by itself
                        await self._store.release(lock, holder)
        except TimeoutError as error:
            raise undecided("its keys did not come in time") from error

    async def _is_known(self, issuer: Issuer, known_at: float | None) -> bool:
        """Whether another worker has fetched the keys since. Raises `Unavailable` if it failed just now."""
        _, [mark] = await self._store.read([_mark_of(issuer)])
        if mark is not None:
            raise undecided("it was asked a moment ago, and did not answer as it should")
        try:
            key_set = await self._stored.find_key_set(issuer.url)
        except Conflict:  # it does not parse, and is about to be replaced
            return False
        if key_set is None or key_set.key_set_url != issuer.key_set_url:
            return False
        return known_at is None or key_set.fetched_at > known_at

    async def _fetch(self, issuer: Issuer) -> None:
        try:
            await self._fetch_and_write(issuer)
            self._outcomes["fetched"] += 1
        except Unavailable:
            self._outcomes["failed"] += 1
            with suppress(Unavailable):
                await self._store.put_for({_mark_of(issuer): b"1"}, REFRESH_APART_SECONDS)
            raise

    async def _fetch_and_write(self, issuer: Issuer) -> None:
        document = await self._client.fetch(issuer.key_set_url)
        try:
            keys = await asyncio.to_thread(parse_key_set, document)
        except BadNameError as error:
            raise undecided(f"what it sent is no key set: {error}") from error
        if not keys:
            raise undecided("none of its keys verifies tokens here")
        key_set = IssuerKeySet(
            url=issuer.url, key_set_url=issuer.key_set_url, document=document, fetched_at=self._clock.now()
        )
        await self._write(issuer, key_set, len(keys))

    async def _write(self, issuer: Issuer, key_set: IssuerKeySet, keys: int) -> None:
        """Write the keys. Other keys than before are a recorded change; the same, a later time."""

        async def put(changes: Changes) -> None:
            known = await changes.leniently().find_issuer(issuer.url)
            if known is not None and known.key_set_url == key_set.key_set_url:
                await changes.put_fact(names.key_set_fact(issuer_digest(issuer.url)), key_set)

        try:
            before = await self._stored.find_key_set(issuer.url)
            is_same = before is not None and before.document == key_set.document
        except Conflict:
            is_same = False
        if is_same:
            await run_change(self._store, put)
            return
        change = Change(
            actor=f"worker:{self._worker}",
            action="issuers.keys",
            subject=(issuer.name, f"{keys} keys", f"sha256 {sha256(key_set.document).hexdigest()}"),
            received_at=self._clock.now(),
        )
        await self._perform(change, put)


def _mark_of(issuer: Issuer) -> bytes:
    """The mark of a failure. It names the place of the keys: a document with another is not affected."""
    return names.failed_for_keys(issuer_digest(f"{issuer.url} {issuer.key_set_url}"))
