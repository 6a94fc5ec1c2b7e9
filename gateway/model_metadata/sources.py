"""Get a model's metadata for a caller that was just allowed: from the provider, or from the cache.

The cache is used (`local_metadata.py`) where no provider is set, and while the provider does not answer and
the tenant has a degraded mode that is not used up. Otherwise no answer is undecided, never an allow and never
a denial (I7). A provider that refuses did answer, and so did one whose answer is invalid: then the cache is
not used.

How long the provider has not answered is counted for each key: that another key got an answer does not show
that this key still has its right. It begins with the first request of any key that got no answer since the
provider last answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from gateway.engine import stat_answers
from gateway.engine.answers import MetadataPage, parse_answer
from gateway.model.errors import ProviderSilentError, Reason, Refusal
from gateway.model_metadata.local_metadata import stat_of
from gateway.platform.upstream import ProviderReply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.model.clocks import MonotonicClock
    from gateway.model.names import KeyId, ModelId
    from gateway.model.verdicts import Allowed
    from gateway.model_metadata.local_metadata import LocalMetadata, Withheld
    from gateway.platform.inquiry import ProviderRequest
    from gateway.platform.upstream import Upstream
    from gateway.resource.disk_checks import SeenOnDisk

T = TypeVar("T")

WEIGHTS_PATH = "/models/v1/external/weights"
STAT_PATH = "/models/v1/external/stat"
MAX_SILENCES = 16_384  # keys of degraded tenants; beyond that none is served without the provider


class Metadata:
    """The metadata of models, as one worker knows it."""

    def __init__(self, *, upstream: Upstream | None, local: LocalMetadata, clock: MonotonicClock) -> None:
        self._upstream = upstream
        self._local = local
        self._clock = clock
        self._silent_since: float | None = None  # for any key
        self._silences: dict[KeyId, float] = {}

    @property
    def has_upstream(self) -> bool:
        """Whether a provider is set."""
        return self._upstream is not None

    def weights_now(self, allowed: Allowed, looks: SeenOnDisk) -> MetadataPage | None:
        """The local answer, from memory alone; None where it has to be asked for."""
        if self._upstream is not None or allowed.model is None:
            return None
        return self._local.find_now(allowed.model, looks)

    def stat_now(
        self, inquiry: Callable[[], ProviderRequest], allowed: Allowed, looks: SeenOnDisk
    ) -> bytes | None:
        """The same for `stat`; of a provider, what it said and what is remembered."""
        if self._upstream is not None:
            reply: ProviderReply[bytes] | None = self._upstream.reply_now(STAT_PATH, inquiry())
            return None if reply is None else reply.what
        answer = self.weights_now(allowed, looks)
        return None if answer is None else msgspec.json.encode(stat_of(answer))

    async def weights(self, inquiry: ProviderRequest, withheld: Withheld) -> ProviderReply[MetadataPage]:
        """The answer with its packages and files. Of a local one, `withheld` names packages to leave out."""
        try:
            if self._upstream is not None:
                return await self._await_answer(
                    inquiry, self._upstream.reply_to(WEIGHTS_PATH, inquiry, _parse_weights)
                )
        except ProviderSilentError as failure:
            self._verify_degraded(failure, inquiry)
            return await self._local_weights(inquiry, withheld, failure)
        return await self._local_weights(inquiry, withheld, None)

    async def stat(self, inquiry: ProviderRequest) -> ProviderReply[bytes]:
        """The answer to "may this key use it": the provider's bytes, or the head of the local answer."""
        silence: ProviderSilentError | None = None
        try:
            if self._upstream is not None:
                return await self._await_answer(
                    inquiry, self._upstream.reply_to(STAT_PATH, inquiry, _parse_stat)
                )
        except ProviderSilentError as failure:
            self._verify_degraded(failure, inquiry)
            silence = failure
        found = await self._local.find_stat(_canonical(inquiry))
        if found is None:
            raise silence or Refusal(Reason.ABSENT)
        return ProviderReply(what=msgspec.json.encode(found), is_local=True, stamp=inquiry.allowed.stamp)

    async def _local_weights(
        self,
        inquiry: ProviderRequest,
        withheld: Withheld,
        silence: ProviderSilentError | None,
    ) -> ProviderReply[MetadataPage]:
        if inquiry.question.start_after is not None:  # the mark of a page that we never gave out
            raise silence or Refusal(Reason.MALFORMED_QUERY)
        model = _canonical(inquiry)
        answer = await self._local.find(model, withheld)
        if answer is None:
            raise silence or Refusal(Reason.ABSENT)
        return ProviderReply(what=answer, is_local=True, stamp=inquiry.allowed.stamp)

    async def _await_answer(
        self, inquiry: ProviderRequest, answer: Awaitable[ProviderReply[T]]
    ) -> ProviderReply[T]:
        """Await an answer. Only one asked for now, with this key, shows that its right still exists."""
        reply = await answer
        if not reply.is_remembered:
            self._silent_since = None
            self._silences.pop(inquiry.key_id, None)
        return reply

    def _verify_degraded(self, silence: ProviderSilentError, inquiry: ProviderRequest) -> None:
        """Raises it again unless the tenant's degraded mode applies, and has not run out."""
        now, key_id = self._clock.monotonic(), inquiry.key_id
        self._silent_since = now if self._silent_since is None else self._silent_since
        may_be_served = inquiry.allowed.access.principal.degraded_seconds
        if not may_be_served or (key_id not in self._silences and len(self._silences) >= MAX_SILENCES):
            raise silence
        if now - self._silences.setdefault(key_id, self._silent_since) >= may_be_served:
            raise silence


def _canonical(inquiry: ProviderRequest) -> ModelId:
    return inquiry.allowed.model or inquiry.question.model


def _parse_weights(body: bytes) -> tuple[MetadataPage, ModelId | None]:
    answer = parse_answer(body)
    return answer, answer.model


def _parse_stat(body: bytes) -> tuple[bytes, ModelId | None]:
    """The unchanged bytes of a valid answer; and the model's name in it, if it has one."""
    return body, stat_answers.parse_stat(body)
