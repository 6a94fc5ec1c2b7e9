"""Keys that are unknown here: cache of the platform's denials, and the rate limit of asking about them.

A key that is unknown here costs a request to the platform, and anyone can make keys up. So a denial of such a
key is no fact: it stays in the memory of the worker that asked, for as long as a denial counts, and Redis
holds nothing of it. An allow is a fact like others: it makes the key known.

A denial in memory ends as a fact would (I6). It was asked for at a generation of the facts, and each use
checks whether an ending of the key, of the model, or of everything is younger: the platform's webhook ends it
in every worker before the webhook is answered. The record of the last ending of everything has to be the same
object as when the request was sent, so that no denial outlives a lost connection to Redis or a restore of the
facts.

Memory is bounded by size; the oldest denials are dropped first, which are also those that end first.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.scrub import source_of
from gateway.directory.records import names
from gateway.directory.records.codec import UnreadableRecordError, decode_ending
from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from gateway.model.clocks import MonotonicClock
    from gateway.model.names import KeyId, ModelId
    from gateway.model.ports import FactSource
    from gateway.model.stamps import Leaf
    from gateway.platform.budget import Budget

MAX_BYTES = 8 << 20
LEAST_SECONDS = 1.0  # for which an answer is usable at least, however long the request took
DENIAL_BYTES = 800  # a denial, its key and its table entry: measured, rounded up


class Standpoint(msgspec.Struct, frozen=True):
    """The state when a request was sent: generation of the facts, last ending of everything, time."""

    asked: int
    ground: Leaf
    at: float


class _Denial(msgspec.Struct, frozen=True):
    reason: Reason
    until: float
    standpoint: Standpoint
    size: int


class UnknownKeys:
    """The unknown keys, as one worker knows them. For one event loop."""

    def __init__(
        self, *, source: FactSource, budget: Budget, clock: MonotonicClock, max_bytes: int = MAX_BYTES
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._source = source
        self._budget = budget
        self._clock = clock
        self._max_bytes = max_bytes
        self._bytes = 0
        self._denials: OrderedDict[tuple[KeyId, ModelId | None], _Denial] = OrderedDict()

    def __len__(self) -> int:
        """How many denials are cached."""
        return len(self._denials)

    @property
    def bytes(self) -> int:
        """Their charged size."""
        return self._bytes

    def admit(self, client: str) -> None:
        """Take one token for a client's source. Raises `Refusal` when none is left for it, or in all."""
        if not self._budget.take(source_of(client)):
            self.counts["limited"] += 1
            raise Refusal(Reason.UNKNOWN_KEY_LIMIT)
        self.counts["asked"] += 1

    async def find(self, key_id: KeyId, model: ModelId) -> Reason | None:
        """Why this key may not have this model, if an answer said so and still counts."""
        reason = await self.find_standing(key_id)
        if reason is not Reason.UPSTREAM_UNAUTHORIZED:
            reason = await self._find(key_id, model)
        return reason

    async def find_standing(self, key_id: KeyId) -> Reason | None:
        """The denial that applies to the key for every model: unknown, paused, or owing."""
        return await self._find(key_id, None)

    async def take_standpoint(self, asked: int) -> Standpoint:
        """To be taken before a request is sent, with the current generation."""
        _, [ground] = await self._source.read([names.ending_fact(None)])
        return Standpoint(asked, ground, self._clock.monotonic())

    def put(
        self, key_id: KeyId, model: ModelId | None, reason: Reason, standpoint: Standpoint, seconds: float
    ) -> None:
        """Cache a denial for `seconds` from the request, and at least for a moment from now."""
        now = self._clock.monotonic()
        until = max(standpoint.at + seconds, now + min(seconds, LEAST_SECONDS))
        size = DENIAL_BYTES + (0 if model is None else sys.getsizeof(model))
        self._drop((key_id, model))
        self._denials[key_id, model] = _Denial(reason, until, standpoint, size)
        self._bytes += size
        while self._denials:
            oldest, denial = next(iter(self._denials.items()))
            if self._bytes <= self._max_bytes and now < denial.until:
                break
            self._drop(oldest)

    async def _find(self, key_id: KeyId, model: ModelId | None) -> Reason | None:
        denial = self._denials.get((key_id, model))
        if denial is None:
            return None
        if self._clock.monotonic() < denial.until and await self._stands(denial, key_id, model):
            return denial.reason
        if self._denials.get((key_id, model)) is denial:
            self._drop((key_id, model))
        return None

    async def _stands(self, denial: _Denial, key_id: KeyId, model: ModelId | None) -> bool:
        """Whether no ending is younger, as far as this worker has applied changes: all that have returned."""
        about = [names.ending_fact(None), names.ending_fact(key_id, is_key=True)]
        about += [] if model is None else [names.ending_fact(model)]
        _, leaves = await self._source.read(about)
        if leaves[0] is not denial.standpoint.ground:
            return False
        try:
            endings = [decode_ending(leaf.value) for leaf in leaves if leaf.value is not None]
        except UnreadableRecordError:
            return False
        return max(endings, default=0) <= denial.standpoint.asked

    def _drop(self, key: tuple[KeyId, ModelId | None]) -> None:
        denial = self._denials.pop(key, None)
        if denial is not None:
            self._bytes -= denial.size
