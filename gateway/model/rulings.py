"""Rulings: the platform's answers about keys and models, kept as facts with an expiry.

A platform that owns keys and models is asked about them, and its answer is kept for a short time. There are
four kinds of record, each short-lived:

* a *ruling* on a key and a model: allowed or not, and how long that is valid;
* a *standing* of a key, without a model: the platform knows it, or does not, or has paused it;
* a *links* record of a key and a model: URLs were minted under an allow, and how long they are valid;
* an *ending*: "no answer to an earlier question counts any more", about a key, a model, or everything.

An ending makes an invalidation one small write however many rulings there are. It also invalidates an answer
that is still on its way: a ruling states the generation at which its question was asked, and counts only
while no ending about it is younger than that. No late answer can restore an old right (I6).

Times are seconds since the epoch by the clock of the worker that asked, like the expiry of a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.errors import Reason
from gateway.model.names import KeyId, ModelId
from gateway.model.records import Count, Record, Time
from gateway.model.stamps import LEAF_BYTES, Leaf

if TYPE_CHECKING:
    from gateway.model.clocks import Clock

SOURCE_PLATFORM = "platform"
"""The source of keys, tenants and grants that exist because the platform said so."""

PLATFORM_GRANT = "platform"
"""The id of the grant that an allow of the platform is recorded under in audit records."""

DENIALS = frozenset(
    {Reason.UPSTREAM_REFUSED, Reason.UPSTREAM_UNAUTHORIZED, Reason.PAYMENT_REQUIRED, Reason.USAGE_PAUSED}
)


class Ruling(Record, frozen=True, kw_only=True, tag=9, gc=False):
    """One answer of the platform. `model` is None for the standing of a key.

    `asked` is the generation of the facts at which the question was asked.
    """

    key_id: KeyId
    model: ModelId | None
    reason: Reason
    until: Time
    asked: Count

    def __post_init__(self) -> None:
        """Accept only reasons that the platform can give: any other would be a right that nobody granted."""
        if self.reason is not Reason.PERMITTED and self.reason not in DENIALS:
            raise ValueError("not what a platform says of a key")

    @property
    def is_allow(self) -> bool:
        """Whether the platform lets the key have the model, or knows the key."""
        return self.reason is Reason.PERMITTED


class EndMark(Record, frozen=True, kw_only=True, tag=10, gc=False):
    """A mark that rulings asked before its generation do not count. Its name identifies the subject."""


class EndingLeaf(Leaf):
    """A leaf that is current while another one is, and until a given time at the latest.

    Every check of a stamp checks its leaves; so an answer that depends on a ruling, cached or being sent,
    stops being current at the very moment that the ruling expires, without anyone setting a flag. Once
    expired it stays so, even if the clock is set back.
    """

    __slots__ = ("_clock", "_inner", "_until")

    ends_by_time = True

    def __init__(self, inner: Leaf, until: float, clock: Clock) -> None:
        self._inner = inner
        self._until = until
        self._clock = clock
        super().__init__(inner.name, inner.value)
        self.held_bytes = LEAF_BYTES + inner.held_bytes

    @property
    def is_current(self) -> bool:
        """Whether the record has neither changed nor ended."""
        if not (self._inner.is_current and self._clock.now() < self._until):
            self._until = float("-inf")
        return self._until > float("-inf")

    @is_current.setter
    def is_current(self, value: bool) -> None:
        if not value:
            self._until = float("-inf")
