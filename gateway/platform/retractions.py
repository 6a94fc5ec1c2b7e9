"""Retractions: end answers to one caller that the provider has taken back, or contradicted by a denial.

They matter where the provider is the platform that decides. Then an answer no longer counts once an ending of
everything, of the key or of the model is younger than its request (I6). A denial of a platform's key affects
more than that one answer: the authority is told, so that it ends the allow and the links.

Without such an authority nothing is taken back: answers end by their time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.directory.reading.rulings import is_overtaken, is_overtaken_now
from gateway.model.errors import Reason, Unavailable
from gateway.model.stamps import Stamp
from gateway.platform.authority import Subject

if TYPE_CHECKING:
    from gateway.model.names import ModelId
    from gateway.platform.authority import Authority, Moment
    from gateway.platform.inquiry import ProviderRequest

_NOTHING = Stamp(0, ())


class StateBeforeRequest(msgspec.Struct, frozen=True):
    """The state before a request was sent: which endings are younger, and what must stay valid meanwhile.

    Without a moment it cannot be determined what ended the answer, and it is not cached.
    """

    moment: Moment | None
    ground: Stamp


class Retractions:
    """Retractions as one worker knows them."""

    def __init__(self, authority: Authority | None) -> None:
        self._authority = authority

    async def take_standpoint(self, inquiry: ProviderRequest) -> StateBeforeRequest:
        """To be taken before the request is sent."""
        moment: Moment | None = (0, 0.0)
        if self._authority is not None:
            try:
                moment = await self._authority.moment()
            except Unavailable:  # a degraded tenant is served for a while without current facts
                moment = None
        is_of_platform = inquiry.allowed.access.principal.is_of_platform
        return StateBeforeRequest(moment, inquiry.allowed.stamp if is_of_platform else _NOTHING)

    async def is_taken_back(
        self, inquiry: ProviderRequest, canonical: ModelId | None, standpoint: StateBeforeRequest
    ) -> bool:
        """Whether an answer, which calls the model `canonical`, has been ended since it was asked for."""
        if self._authority is None or standpoint.moment is None:
            return False
        source, asked = self._authority.source, standpoint.moment[0]
        for model in {inquiry.question.model, inquiry.allowed.model, canonical}:
            if await is_overtaken(source, inquiry.key_id, model, asked):
                return True
        return False

    def stands_now(
        self, inquiry: ProviderRequest, canonical: ModelId | None, standpoint: StateBeforeRequest
    ) -> bool:
        """Whether memory shows that an answer was not taken back. Where it does not know: no."""
        if self._authority is None or standpoint.moment is None:
            return True
        source, asked = self._authority.source, standpoint.moment[0]
        models = {inquiry.question.model, inquiry.allowed.model, canonical}
        return all(is_overtaken_now(source, inquiry.key_id, one, asked) is False for one in models)

    async def hear_denial(
        self, inquiry: ProviderRequest, standpoint: StateBeforeRequest, reason: Reason
    ) -> Reason:
        """Count the denial as a ruling, where it is one. Returns the reason that the caller may be told."""
        allowed = inquiry.allowed
        if self._authority is None or not allowed.access.principal.is_of_platform:
            return reason
        if standpoint.moment is None:
            raise Unavailable("redis", "a denial could not be noted")
        if inquiry.question.model != allowed.model and reason is not Reason.UPSTREAM_UNAUTHORIZED:
            # it was asked for under a name of ours, which the provider need not know
            return Reason.UPSTREAM_REFUSED
        subject = Subject(credential=inquiry.credential, key_id=inquiry.key_id, model=allowed.model)
        return await self._authority.note_denial(subject, standpoint.moment, reason)
