"""The provider's word about a model, asked for with the caller's own key.

An answer is about this caller and for nobody else: the provider may name other packages to another key,
and its URLs carry signatures. So it is remembered for one key and one question, for as long as an allow of
the provider is believed, and one flight serves all who ask the same with the same key meanwhile. Whoever
gets it was allowed just now, by the facts of now. What is no answer is never remembered (I7).

The provider may say that the model has another name. That name is authorised by our rules as well, each
time before anything of the answer is used (I2): an alias opens nothing by itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from gateway.engine.faults import undecided
from gateway.engine.request_headers import headers_for_upstream
from gateway.model.access import Resource, ResourceKind
from gateway.model.errors import Reason, Refusal
from gateway.model.verdicts import Denied
from gateway.settling import reach_settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.adapters.provider import Provider
    from gateway.authority import Authority
    from gateway.decisions import Decisions
    from gateway.engine.questions import Question
    from gateway.model.access import Credential, WireRequest
    from gateway.model.facts import Stamp
    from gateway.model.names import KeyId, ModelId
    from gateway.model.ports import MonotonicClock
    from gateway.model.verdicts import Allowed

T = TypeVar("T")

REMEMBERED_BYTES = 32 << 20  # of bodies, some 20 kB each as a rule; what is parsed of one takes as much again

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
    question: Question
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


@dataclass(frozen=True, slots=True)
class _Word(Generic[T]):
    """What was said of which model (None: it was not named), and until when it is remembered."""

    what: T
    canonical: ModelId | None
    size: int
    until: float


_Key = tuple[str, "KeyId", "Question", tuple[tuple[bytes, bytes], ...]]


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
        self._decisions = decisions
        self._clock = clock
        self._remembered_seconds = remembered_seconds
        self._remembered: OrderedDict[_Key, _Word[Any]] = OrderedDict()
        self._bytes = 0
        self._flights: dict[_Key, asyncio.Task[_Word[Any]]] = {}

    async def told(
        self, path: str, inquiry: Inquiry, parse: Callable[[bytes], tuple[T, ModelId | None]]
    ) -> Told[T]:
        """Its answer, remembered or asked for. Raises `Refusal` for its refusals, else `Unavailable`.

        `parse` gives what to keep of a body, and the name by which the provider calls the model.
        """
        headers = headers_for_upstream(inquiry.request.headers, (b"", b""))[:-1]
        key: _Key = (path, inquiry.key_id, inquiry.question, headers)
        word = self._find(key) or await self._hear(key, inquiry, parse)
        stamp = inquiry.allowed.stamp
        if word.canonical is not None:
            stamp = stamp.joined(await self._authorised(inquiry, word.canonical))
        return Told(what=cast("T", word.what), is_local=False, stamp=stamp)

    async def _hear(
        self, key: _Key, inquiry: Inquiry, parse: Callable[[bytes], tuple[T, ModelId | None]]
    ) -> _Word[Any]:
        """What the provider says now, to all who wait for it."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fly(key, inquiry, parse))
            flight.add_done_callback(_retrieve)
        return await asyncio.shield(flight)

    async def _fly(
        self, key: _Key, inquiry: Inquiry, parse: Callable[[bytes], tuple[T, ModelId | None]]
    ) -> _Word[T]:
        try:
            asked_at = self._clock.monotonic()
            body = await self._ask(key[0], inquiry)
            what, canonical = parse(body)
            word = _Word(what, canonical, len(body), asked_at + self._remembered_seconds)
            self._put(key, word)
            return word
        finally:
            del self._flights[key]

    async def _ask(self, path: str, inquiry: Inquiry) -> bytes:
        credential = (b"authorization", b"Bearer " + inquiry.credential.secret.encode())
        headers = headers_for_upstream(inquiry.request.headers, credential)
        answer = await self._provider.ask(path, inquiry.question.upstream_query(), headers)
        reason = _REFUSALS.get(answer.status)
        if reason is not None:
            raise Refusal(reason)
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

    def _find(self, key: _Key) -> _Word[Any] | None:
        known = self._remembered.get(key)
        if known is None:
            return None
        if self._clock.monotonic() >= known.until:
            self._drop(key)
            return None
        self._remembered.move_to_end(key)
        return known

    def _put(self, key: _Key, new: _Word[Any]) -> None:
        self._drop(key)
        self._remembered[key] = new
        self._bytes += new.size
        while self._bytes > REMEMBERED_BYTES:
            self._drop(next(iter(self._remembered)))

    def _drop(self, key: _Key) -> None:
        known = self._remembered.pop(key, None)
        if known is not None:
            self._bytes -= known.size


def _retrieve(flight: asyncio.Task[_Word[Any]]) -> None:
    """A flight that everybody stopped waiting for may fail without anybody hearing of it."""
    if not flight.cancelled():
        flight.exception()
