"""Keys that are unknown here: cache of the platform's denials, and the rate limit of asking about them.

A key that is unknown here costs a request to the platform, and anyone can make keys up. So a denial of such a
key is no fact: it stays in the memory of the worker that asked, for as long as a denial counts, and Redis
holds nothing of it. An allow is a fact like others: it makes the key known.

A denial in memory ends as a fact would (I6). It was asked for at a generation of the facts, and each use
checks whether an ending of the key, of the model, or of everything is younger: the platform's webhook ends it
in every worker before the webhook is answered. The record of the last ending of everything, as it was read
when the request was sent, has to be still current in memory, so that no denial outlives a lost connection to
Redis or a restore of the facts.

Memory is bounded by size; the denials that were not used for the longest are dropped first.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.scrub import source_of
from gateway.directory.reading.rulings import is_overtaken
from gateway.directory.records import names
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from gateway.model.clocks import MonotonicClock
    from gateway.model.names import KeyId, ModelId
    from gateway.model.ports import FactSource
    from gateway.model.stamps import Leaf
    from gateway.platform.budget import Budget

MAX_BYTES = 8 << 20
LEAST_SECONDS = 1.0  # for which an answer is usable at least, however long the request took
DENIAL_BYTES = 500  # a denial and its key, without the text of the model: measured, rounded up


class RequestStart(msgspec.Struct, frozen=True):
    """The state when a request was sent: generation of the facts, last ending of everything, time."""

    asked: int
    last_ending: Leaf
    at: float


class _Denial(msgspec.Struct, frozen=True):
    reason: Reason
    until: float
    start: RequestStart


class UnknownKeys:
    """The unknown keys, as one worker knows them. For one event loop."""

    def __init__(
        self, *, source: FactSource, budget: Budget, clock: MonotonicClock, max_bytes: int = MAX_BYTES
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._source = source
        self._budget = budget
        self._clock = clock
        self.memory: BoundedMemory[tuple[KeyId, ModelId | None], _Denial] = BoundedMemory(
            max_bytes=max_bytes,
            weigh=lambda about, _: DENIAL_BYTES + (0 if about[1] is None else sys.getsizeof(about[1])),
            stands_on=lambda denial: (denial.start.last_ending,),
            is_over=lambda denial: clock.monotonic() >= denial.until,
        )

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

    async def take_start(self, asked: int) -> RequestStart:
        """To be taken before a request is sent, with the current generation."""
        _, [last_ending] = await self._source.read([names.ending_fact(None)])
        return RequestStart(asked, last_ending, self._clock.monotonic())

    def put(
        self, key_id: KeyId, model: ModelId | None, reason: Reason, start: RequestStart, seconds: float
    ) -> None:
        """Cache a denial for `seconds` from the request, and at least for a moment from now."""
        now = self._clock.monotonic()
        until = max(start.at + seconds, now + min(seconds, LEAST_SECONDS))
        self.memory.put((key_id, model), _Denial(reason, until, start))

    async def _find(self, key_id: KeyId, model: ModelId | None) -> Reason | None:
        denial = self.memory.find((key_id, model))
        if denial is None:
            return None
        if await self._stands(denial, key_id, model):
            return denial.reason
        if self.memory.peek((key_id, model)) is denial:
            self.memory.drop((key_id, model))
        return None

    async def _stands(self, denial: _Denial, key_id: KeyId, model: ModelId | None) -> bool:
        """Whether no ending is younger, as far as this worker has applied changes: all that have returned."""
        is_ended = await is_overtaken(self._source, key_id, model, denial.start.asked)
        return denial.start.last_ending.is_current and not is_ended
