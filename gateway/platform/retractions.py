"""Retractions: the provider has taken back what it said to one caller, or denies what it allowed.

They matter where the provider is the platform that decides. Then an answer counts for nothing once an
ending about all, the key or the model is younger than its question (I6), and a denial of a key of its own
is not for that one answer: the authority hears of it, so that it ends what was allowed, and the links.

Without such an authority nothing is ever taken back: what was said ends by its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.directory.edits.rulings import is_overtaken
from gateway.directory.reading import SourceReading
from gateway.model.errors import Reason, Unavailable
from gateway.model.facts import Stamp
from gateway.platform.authority import Subject

if TYPE_CHECKING:
    from gateway.model.names import ModelId
    from gateway.platform.authority import Authority, Moment
    from gateway.platform.upstream import Inquiry

_NOTHING = Stamp(0, ())


@dataclass(frozen=True, slots=True)
class Standpoint:
    """What an answer was asked for on: from when on an ending is younger, and what has to stand meanwhile.

    Without a moment nobody can say what has ended it, and it is not remembered.
    """

    moment: Moment | None
    ground: Stamp


class Retractions:
    """What one worker knows of them."""

    def __init__(self, authority: Authority | None) -> None:
        self._authority = authority

    async def take_standpoint(self, inquiry: Inquiry) -> Standpoint:
        """To be taken before the question is put."""
        moment: Moment | None = (0, 0.0)
        if self._authority is not None:
            try:
                moment = await self._authority.moment()
            except Unavailable:  # a degraded tenant is served for a while without the facts of now
                moment = None
        is_of_platform = inquiry.allowed.access.principal.is_of_platform
        return Standpoint(moment, inquiry.allowed.stamp if is_of_platform else _NOTHING)

    async def is_taken_back(
        self, inquiry: Inquiry, canonical: ModelId | None, standpoint: Standpoint
    ) -> bool:
        """Whether an answer, in which the model is called so, has been ended since it was asked for."""
        if self._authority is None or standpoint.moment is None:
            return False
        reading, asked = SourceReading(self._authority.source), standpoint.moment[0]
        for model in {inquiry.question.model, inquiry.allowed.model, canonical}:
            if await is_overtaken(reading, inquiry.key_id, model, asked):
                return True
        return False

    async def hear_denial(self, inquiry: Inquiry, standpoint: Standpoint, reason: Reason) -> Reason:
        """Have it count as a ruling, where it is one. Returns what the caller may be told."""
        allowed = inquiry.allowed
        if self._authority is None or not allowed.access.principal.is_of_platform:
            return reason
        if standpoint.moment is None:
            raise Unavailable("redis", "a denial could not be noted")
        if inquiry.question.model != allowed.model and reason is not Reason.UPSTREAM_UNAUTHORIZED:
            return Reason.UPSTREAM_REFUSED  # it was asked by a name of ours, which it need not know
        subject = Subject(credential=inquiry.credential, key_id=inquiry.key_id, model=allowed.model)
        return await self._authority.hear(subject, standpoint.moment, reason)
