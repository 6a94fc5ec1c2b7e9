"""Metadata of a model for a caller whose question was just allowed: the provider's word, or the cache's.

Where no provider is set, and while it does not answer and the tenant has a degraded mode that is not used
up, the cache speaks (`local_metadata.py`). Otherwise silence is undecided, never a yes and never a no (I7).
A provider that says no is not silent: then the cache is not asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from gateway.engine.answers import MAX_ANSWER_BYTES, Answer, parse_answer
from gateway.engine.faults import undecided
from gateway.model.errors import BadNameError, Reason, Refusal, Unavailable
from gateway.model.names import parse_model_id
from gateway.upstream import Told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.local_metadata import LocalMetadata
    from gateway.model.names import ModelId, PackageId
    from gateway.model.ports import MonotonicClock
    from gateway.upstream import Inquiry, Upstream

    Withheld = Callable[[ModelId], Awaitable[frozenset[PackageId]]]

T = TypeVar("T")

WEIGHTS_PATH = "/models/v1/external/weights"
STAT_PATH = "/models/v1/external/stat"


class Metadata:
    """The metadata of models, as one worker knows it."""

    def __init__(self, *, upstream: Upstream | None, local: LocalMetadata, clock: MonotonicClock) -> None:
        self._upstream = upstream
        self._local = local
        self._clock = clock
        self._silent_since: float | None = None

    @property
    def has_upstream(self) -> bool:
        """Whether there is somebody to ask."""
        return self._upstream is not None

    async def weights(self, inquiry: Inquiry, withheld: Withheld) -> Told[Answer]:
        """The answer with its packages and files. Of a local one, `withheld` names packages to leave out."""
        try:
            if self._upstream is not None:
                return await self._heard(self._upstream.told(WEIGHTS_PATH, inquiry, _parse_weights))
        except Unavailable as failure:
            self._verify_degraded(failure, inquiry)
            return await self._local_weights(inquiry, withheld, failure)
        return await self._local_weights(inquiry, withheld, None)

    async def stat(self, inquiry: Inquiry) -> Told[bytes]:
        """The answer to "may this key use it": the provider's bytes, or the head of the local answer."""
        silence: Unavailable | None = None
        try:
            if self._upstream is not None:
                return await self._heard(self._upstream.told(STAT_PATH, inquiry, _parse_stat))
        except Unavailable as failure:
            self._verify_degraded(failure, inquiry)
            silence = failure
        found = self._local.find_stat(_canonical(inquiry))
        if found is None:
            raise silence or Refusal(Reason.ABSENT)
        return Told(what=msgspec.json.encode(found), is_local=True, stamp=inquiry.allowed.stamp)

    async def _local_weights(
        self,
        inquiry: Inquiry,
        withheld: Withheld,
        silence: Unavailable | None,
    ) -> Told[Answer]:
        if inquiry.question.start_after is not None:  # the mark of a page that we never gave out
            raise silence or Refusal(Reason.MALFORMED_QUERY)
        model = _canonical(inquiry)
        answer = self._local.find(model, await withheld(model))
        if answer is None:
            raise silence or Refusal(Reason.ABSENT)
        return Told(what=answer, is_local=True, stamp=inquiry.allowed.stamp)

    async def _heard(self, telling: Awaitable[T]) -> T:
        """What is told; whoever speaks is not silent, whatever it says."""
        try:
            told = await telling
        except Refusal:
            self._silent_since = None
            raise
        self._silent_since = None
        return told

    def _verify_degraded(self, failure: Unavailable, inquiry: Inquiry) -> None:
        """Raises the failure again unless the tenant is served on what was last known, and still may be."""
        now = self._clock.monotonic()
        self._silent_since = now if self._silent_since is None else self._silent_since
        if now - self._silent_since >= inquiry.allowed.access.principal.degraded_seconds:
            raise failure


def _canonical(inquiry: Inquiry) -> ModelId:
    return inquiry.allowed.model or inquiry.question.model


def _parse_weights(body: bytes) -> tuple[Answer, ModelId | None]:
    answer = parse_answer(body)
    return answer, answer.model


class _RawHead(msgspec.Struct):
    modelId: str | None = None  # noqa: N815 -- the protocol's own name


class _RawStat(msgspec.Struct):
    modelMetadata: _RawHead  # noqa: N815 -- the protocol's own name


_STATS = msgspec.json.Decoder(_RawStat)


def _parse_stat(body: bytes) -> tuple[bytes, ModelId | None]:
    """The bytes as they are, once they are an answer; another name of the model, if they have one."""
    if len(body) > MAX_ANSWER_BYTES:
        raise undecided("the answer is too large")
    try:
        claimed = _STATS.decode(body).modelMetadata.modelId
        return body, None if claimed is None else parse_model_id(claimed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadNameError) as error:
        raise undecided("the answer is not JSON of the expected shape") from error
