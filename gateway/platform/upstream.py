"""Ask the provider about a model, with the caller's own key, and cache the answer for that key.

An answer is for one caller only: the provider may name other packages to another key, and its URLs carry
signatures. So it is cached for one key and one request, for as long as an allow of the provider counts, and
one task serves all requests that ask the same with the same key meanwhile (singleflight). Every caller was
allowed by the current facts just before. An undecided answer is never cached (I7). No key has more than its
share of requests under way, and the cache is bounded, its keys included.

An answer that the provider takes back no longer counts (`retractions.py`).

The provider may say that the model has another name. That name is authorised by our rules as well, each time
before anything of the answer is used (I2): an alias grants nothing by itself.
"""

from __future__ import annotations

import asyncio
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec
from msgspec.structs import replace

from gateway.engine.answers import MetadataPage
from gateway.engine.faults import undecided
from gateway.engine.request_headers import headers_for_upstream
from gateway.model.access import Resource, ResourceKind
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason, Refusal
from gateway.model.singleflight import Singleflight
from gateway.model.verdicts import Denied
from gateway.platform.confirmation import reach_confirmed
from gateway.platform.retractions import Retractions
from gateway.platform.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.adapters.provider import Provider
    from gateway.decisions import Decisions
    from gateway.engine.questions import WeightsQuery
    from gateway.model.clocks import MonotonicClock
    from gateway.model.names import KeyId, ModelId
    from gateway.model.stamps import Stamp
    from gateway.platform.authority import Authority
    from gateway.platform.inquiry import ProviderRequest
    from gateway.platform.retractions import StateBeforeRequest

T = TypeVar("T")

REMEMBERED_BYTES = 64 << 20
"""Of bodies, some 20 kB each as a rule, what is parsed of them, their requests, and the stamps that they
depend on.
"""

REMEMBERED_WORDS = 4096
WORD_BYTES = 4096  # what a cached answer takes beside its body and its request
PART_BYTES = 256  # and each parameter of the request, beside its text
PARSED_HERE_BYTES = 32 * 1024  # of a body: a larger one is parsed off the event loop

QUESTIONS_OF_A_KEY = 16  # at once: a quarter of the requests of one worker
ATTEMPTS = 2  # an answer that was ended while it came is asked for once more
PATIENCE_SECONDS = 1.0  # for a request over that limit; the engine waits five

_OK = 200
_REFUSALS = {
    401: Reason.UPSTREAM_UNAUTHORIZED,
    402: Reason.PAYMENT_REQUIRED,
    403: Reason.UPSTREAM_REFUSED,
    404: Reason.UPSTREAM_REFUSED,
    423: Reason.USAGE_PAUSED,
}
"""402 and 423 reveal nothing here: it was decided before that the caller may know of the model."""


class ProviderReply(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """An answer, where it is from, and the stamp of the facts it depends on beside the caller's allow."""

    what: T
    is_local: bool
    stamp: Stamp
    is_remembered: bool = False  # else it was asked for just now


class _CachedAnswer(msgspec.Struct, Generic[T], frozen=True):
    """A cached answer: the model's name in it (None: it was not named), and until when it is kept."""

    what: T
    canonical: ModelId | None
    size: int
    until: float
    standpoint: StateBeforeRequest


class _Denial(msgspec.Struct, frozen=True):
    """What the provider refused to a request. It is never cached."""

    reason: Reason
    standpoint: StateBeforeRequest


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
        self.memory: BoundedMemory[_Key, _CachedAnswer[Any]] = BoundedMemory(
            max_bytes=REMEMBERED_BYTES,
            max_entries=REMEMBERED_WORDS,
            weigh=lambda _, cached: cached.size,
            stands_on=attrgetter("standpoint.ground.leaves"),
            is_over=lambda cached: clock.monotonic() >= cached.until,
        )
        self._tasks: Singleflight[_Key, _CachedAnswer[Any] | _Denial] = Singleflight(
            lambda _, heard: heard.standpoint.ground.is_current
        )
        self._shares = Shares(QUESTIONS_OF_A_KEY, patience_seconds=PATIENCE_SECONDS)

    async def reply_to(
        self, path: str, inquiry: ProviderRequest, parse: Callable[[bytes], tuple[T, ModelId | None]]
    ) -> ProviderReply[T]:
        """Its answer, cached or asked for. Raises `Refusal` for its refusals, else `Unavailable`.

        `parse` returns what to keep of a body, and the name by which the provider calls the model.
        """
        key = _key(path, inquiry)
        for _ in range(ATTEMPTS):
            known = self.memory.find(key)
            cached = known or await self._tasks.run(key, partial(self._fetch, key, inquiry, parse))
            if isinstance(cached, _Denial):
                raise Refusal(cached.reason)
            if not await self._retractions.is_taken_back(inquiry, cached.canonical, cached.standpoint):
                break
            if self.memory.peek(key) is cached:
                self.memory.drop(key)
        else:
            raise undecided("what it said was ended while it was said")
        stamp = inquiry.allowed.stamp
        if cached.canonical is not None:
            stamp = stamp.joined(await self._authorised(inquiry, cached.canonical))
        return ProviderReply(
            what=cast("T", cached.what), is_local=False, stamp=stamp, is_remembered=known is not None
        )

    def reply_now(self, path: str, inquiry: ProviderRequest) -> ProviderReply[Any] | None:
        """As `reply_to`, from memory alone; None where that has to be asked.

        An answer in which the model has another name needs a decision about that name: it is asked.
        """
        cached = self.memory.find(_key(path, inquiry))
        if cached is None or cached.canonical not in {None, inquiry.allowed.model}:
            return None
        if not self._retractions.stands_now(inquiry, cached.canonical, cached.standpoint):
            return None
        return ProviderReply(
            what=cached.what, is_local=False, stamp=inquiry.allowed.stamp, is_remembered=True
        )

    async def close(self) -> None:
        """Cancel the requests under way."""
        await self._tasks.close()

    async def _fetch(
        self, key: _Key, inquiry: ProviderRequest, parse: Callable[[bytes], tuple[T, ModelId | None]]
    ) -> _CachedAnswer[T] | _Denial:
        async with self._shares.taken(inquiry.key_id):
            standpoint = await self._retractions.take_standpoint(inquiry)
            until = self._clock.monotonic() + self._remembered_seconds
            body = await self._ask(key[0], inquiry, standpoint)
        if isinstance(body, Reason):
            return _Denial(body, standpoint)
        if len(body) > PARSED_HERE_BYTES:
            what, canonical = await asyncio.to_thread(parse, body)
        else:
            what, canonical = parse(body)
        size = (
            len(body) + _size(key) + WORD_BYTES + (what.held_bytes if isinstance(what, MetadataPage) else 0)
        )
        cached = _CachedAnswer(what, canonical, size, until, standpoint)
        if standpoint.moment is not None:
            self.memory.put(key, cached)
        return cached

    async def _ask(
        self, path: str, inquiry: ProviderRequest, standpoint: StateBeforeRequest
    ) -> bytes | Reason:
        credential = (b"authorization", b"Bearer " + inquiry.credential.secret.encode())
        headers = headers_for_upstream(inquiry.request.headers, credential)
        answer = await self._provider.ask(path, inquiry.question.upstream_query(), headers)
        reason = _REFUSALS.get(answer.status)
        if reason is not None:
            return await self._retractions.hear_denial(inquiry, standpoint, reason)
        if answer.status != _OK:
            raise undecided(f"the provider answered {answer.status}")
        return answer.body

    async def _authorised(self, inquiry: ProviderRequest, canonical: ModelId) -> Stamp:
        """The stamp of the caller's right on the provider's name of the model.

        Raises `Refusal` without one.
        """
        allowed = inquiry.allowed
        if canonical == allowed.model:  # it was authorised along with the requested name
            return allowed.stamp
        access = replace(allowed.access, resource=Resource(kind=ResourceKind.MODEL, model=canonical))
        judgement = await reach_confirmed(self._decisions, self._authority, access, inquiry.credential)
        if isinstance(judgement.verdict, Denied):
            raise Refusal(judgement.verdict.reason)
        return judgement.facts.stamp


def _key(path: str, inquiry: ProviderRequest) -> _Key:
    headers = headers_for_upstream(inquiry.request.headers, (b"", b""))[:-1]
    return path, inquiry.key_id, inquiry.question, headers


def _size(key: _Key) -> int:
    """The size of a cache key, including the overhead of its small objects."""
    path, _, question, headers = key
    pairs = [*question.extra, *((name, value) for name, value in headers), (path, question.start_after or "")]
    return sum(PART_BYTES + len(name) + len(value) for name, value in pairs)
