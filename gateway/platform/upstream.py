"""The provider's word about a model, asked for with the caller's own key.

An answer is about this caller and for nobody else: the provider may name other packages to another key,
and its URLs carry signatures. So it is remembered for one key and one question, for as long as an allow of
the provider is believed, and one flight serves all who ask the same with the same key meanwhile. Whoever
gets it was allowed just now, by the facts of now. What is no answer is never remembered (I7). No key
asks more than its share at once, and what is remembered is bounded, the questions included.

What it takes back counts for nothing from then on (`retractions.py`).

The provider may say that the model has another name. That name is authorised by our rules as well, each
time before anything of the answer is used (I2): an alias opens nothing by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from gateway.engine.answers import ProviderAnswer
from gateway.engine.faults import undecided
from gateway.engine.request_headers import headers_for_upstream
from gateway.model.access import Resource, ResourceKind
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason, Refusal
from gateway.model.verdicts import Denied
from gateway.platform.confirmation import reach_settled
from gateway.platform.retractions import Retractions
from gateway.platform.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.adapters.provider import Provider
    from gateway.decisions import Decisions
    from gateway.engine.questions import WeightsQuery
    from gateway.model.access import Credential, WireRequest
    from gateway.model.facts import Stamp
    from gateway.model.names import KeyId, ModelId
    from gateway.model.ports import MonotonicClock
    from gateway.model.verdicts import Allowed
    from gateway.platform.authority import Authority
    from gateway.platform.retractions import Standpoint

T = TypeVar("T")

REMEMBERED_BYTES = 64 << 20
"""Of bodies, some 20 kB each as a rule, what is parsed of them, their questions, and what they stand on."""

REMEMBERED_WORDS = 4096
WORD_BYTES = 4096  # what a word takes beside its body and its question
PART_BYTES = 256  # and each parameter of the question, beside its text
PARSED_HERE_BYTES = 32 * 1024  # of a body: what is larger is parsed off the event loop

QUESTIONS_OF_A_KEY = 16  # at once: a quarter of what one worker asks
ATTEMPTS = 2  # what was ended while it was said is asked for once more
PATIENCE_SECONDS = 1.0  # for what is over that; the engine waits five

_OK = 200
_REFUSALS = {
    401: Reason.UPSTREAM_UNAUTHORIZED,
    402: Reason.PAYMENT_REQUIRED,
    403: Reason.UPSTREAM_REFUSED,
    404: Reason.UPSTREAM_REFUSED,
    423: Reason.USAGE_PAUSED,
}
"""402 and 423 reveal nothing here: that the caller may know of the model was decided before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """Who asks what. The allow is ours; the credential is the caller's own."""

    request: WireRequest
    allowed: Allowed
    question: WeightsQuery
    credential: Credential

    @property
    def key_id(self) -> KeyId:
        """Whose answer it will be."""
        return self.allowed.access.principal.key_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Generic[T]):
    """What is known, who said it, and what it stands on beside the caller's allow."""

    what: T
    is_local: bool
    stamp: Stamp
    is_remembered: bool = False  # else it was said just now


@dataclass(frozen=True, slots=True)
class _Word(Generic[T]):
    """What was said of which model (None: it was not named), and until when it is remembered."""

    what: T
    canonical: ModelId | None
    size: int
    until: float
    standpoint: Standpoint


_Key = tuple[str, "KeyId", "WeightsQuery", tuple[tuple[bytes, bytes], ...]]


class Upstream:
    """The provider, as one worker knows it."""

    def __init__(
        self,
        *,
        provider: Provider,
        decisions: Decisions,
        authority: Authority | None,
        clock: MonotonicClock,
        remembered_seconds: float,
    ) -> None:
        self._provider = provider
        self._authority = authority
        self._retractions = Retractions(authority)
        self._decisions = decisions
        self._clock = clock
        self._remembered_seconds = remembered_seconds
        self.memory: BoundedMemory[_Key, _Word[Any]] = BoundedMemory(
            max_bytes=REMEMBERED_BYTES,
            max_entries=REMEMBERED_WORDS,
            weigh=lambda _, word: word.size,
            stands_on=attrgetter("standpoint.ground.leaves"),
            is_over=lambda word: clock.monotonic() >= word.until,
        )
        self._flights: dict[_Key, asyncio.Task[_Word[Any]]] = {}
        self._shares = Shares(QUESTIONS_OF_A_KEY, patience_seconds=PATIENCE_SECONDS)

    async def told(
        self, path: str, inquiry: Inquiry, parse: Callable[[bytes], tuple[T, ModelId | None]]
    ) -> Told[T]:
        """Its answer, remembered or asked for. Raises `Refusal` for its refusals, else `Unavailable`.

        `parse` gives what to keep of a body, and the name by which the provider calls the model.
        """
        headers = headers_for_upstream(inquiry.request.headers, (b"", b""))[:-1]
        key: _Key = (path, inquiry.key_id, inquiry.question, headers)
        for _ in range(ATTEMPTS):
            known = self.memory.find(key)
            word = known or await self._hear(key, inquiry, parse)
            if not await self._retractions.is_taken_back(inquiry, word.canonical, word.standpoint):
                break
            if self.memory.peek(key) is word:
                self.memory.drop(key)
        else:
            raise undecided("what it said was ended while it was said")
        stamp = inquiry.allowed.stamp
        if word.canonical is not None:
            stamp = stamp.joined(await self._authorised(inquiry, word.canonical))
        return Told(what=cast("T", word.what), is_local=False, stamp=stamp, is_remembered=known is not None)

    async def close(self) -> None:
        """Give up what is being asked: nobody waits for it any more."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _hear(
        self, key: _Key, inquiry: Inquiry, parse: Callable[[bytes], tuple[T, ModelId | None]]
    ) -> _Word[Any]:
        """What the provider says now, to all who wait for it."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fly(key, inquiry, parse))
            flight.add_done_callback(partial(self._land, key))
        return await asyncio.shield(flight)

    async def _fly(
        self, key: _Key, inquiry: Inquiry, parse: Callable[[bytes], tuple[T, ModelId | None]]
    ) -> _Word[T]:
        async with self._shares.taken(inquiry.key_id):
            standpoint = await self._retractions.take_standpoint(inquiry)
            until = self._clock.monotonic() + self._remembered_seconds
            body = await self._ask(key[0], inquiry, standpoint)
        if len(body) > PARSED_HERE_BYTES:
            what, canonical = await asyncio.to_thread(parse, body)
        else:
            what, canonical = parse(body)
        size = (
            len(body) + _size(key) + WORD_BYTES + (what.held_bytes if isinstance(what, ProviderAnswer) else 0)
        )
        word = _Word(what, canonical, size, until, standpoint)
        if standpoint.moment is not None:
            self.memory.put(key, word)
        return word

    async def _ask(self, path: str, inquiry: Inquiry, standpoint: Standpoint) -> bytes:
        credential = (b"authorization", b"Bearer " + inquiry.credential.secret.encode())
        headers = headers_for_upstream(inquiry.request.headers, credential)
        answer = await self._provider.ask(path, inquiry.question.upstream_query(), headers)
        reason = _REFUSALS.get(answer.status)
        if reason is not None:
            raise Refusal(await self._retractions.hear_denial(inquiry, standpoint, reason))
        if answer.status != _OK:
            raise undecided(f"the provider answered {answer.status}")
        return answer.body

    async def _authorised(self, inquiry: Inquiry, canonical: ModelId) -> Stamp:
        """What the right on the provider's name of the model stands on. Raises `Refusal` without one."""
        allowed = inquiry.allowed
        if canonical == allowed.model:  # it was authorised along with the name that was asked for
            return allowed.stamp
        access = replace(allowed.access, resource=Resource(kind=ResourceKind.MODEL, model=canonical))
        judgement = await reach_settled(self._decisions, self._authority, access, inquiry.credential)
        if isinstance(judgement.verdict, Denied):
            raise Refusal(judgement.verdict.reason)
        return judgement.facts.stamp

    def _land(self, key: _Key, flight: asyncio.Task[_Word[Any]]) -> None:
        """A flight is over. It may fail without anybody hearing of it, if everybody stopped waiting."""
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()


def _size(key: _Key) -> int:
    """What a question takes that is remembered, beside its many small parts."""
    path, _, question, headers = key
    pairs = [*question.extra, *((name, value) for name, value in headers), (path, question.start_after or "")]
    return sum(PART_BYTES + len(name) + len(value) for name, value in pairs)
