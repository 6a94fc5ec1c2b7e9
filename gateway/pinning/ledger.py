"""The ledger: the nodes agree on the content of each blob, and a mismatch puts the blob in quarantine.

Most measurements agree with an existing pin, and nothing is written. New pins are one change of facts, many
together where many were found; each quarantine is a change of its own. Both pass the registrar and are in the
audit log before they are made (I5): a pin because it is a decision to trust what was first seen, a quarantine
because an operator has to act on it. The caller gets the result of either only once every server that may be
promoted has it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from gateway.directory.edits.pins import pin_blobs, quarantine_blob
from gateway.directory.records.codec import UnreadableRecordError, decode_pin
from gateway.directory.records.names import pin_fact
from gateway.model.pins import find_cause
from gateway.model.verdicts import Change

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.directory.edits.changes import Changes
    from gateway.directory.reading.listing import Listing
    from gateway.model.clocks import Clock
    from gateway.model.names import Md5
    from gateway.model.pins import Measured, Pin
    from gateway.model.stores import FactStore
    from gateway.registrar import Done

T = TypeVar("T")

MAX_PINS_PER_CHANGE = 200  # about 25 kB of audit record
ATTEMPTS = 3  # another node may pin between our read and our change; then ours is compared with its pin


class Perform(Protocol):
    """Make one recorded change: `Registrar.perform`."""

    def __call__(self, change: Change, operation: Callable[[Changes], Awaitable[T]]) -> Awaitable[Done[T]]:
        """The operation's result, and the generation of the change."""


class PinLedger:
    """The place where nodes agree on pins: the facts."""

    def __init__(
        self,
        *,
        store: FactStore,
        listing: Listing,
        perform: Perform,
        clock: Clock,
        actor: str,
        on_pinned: Callable[[int], None],
        on_quarantined: Callable[[Pin], None],
    ) -> None:
        self._store = store
        self._listing = listing
        self._perform = perform
        self._clock = clock
        self._actor = actor
        self._on_pinned = on_pinned
        self._on_quarantined = on_quarantined

    async def agree(self, contents: Sequence[tuple[Md5, Measured]]) -> int:
        """Pin blobs without a pin, quarantine mismatches.

        Returns the generation at which the result holds.
        """
        generation = 0
        for start in range(0, len(contents), MAX_PINS_PER_CHANGE):
            generation = await self._agree(contents[start : start + MAX_PINS_PER_CHANGE])
        return generation

    async def _agree(self, contents: Sequence[tuple[Md5, Measured]]) -> int:
        generation = 0
        for _ in range(ATTEMPTS):
            generation = await self._store.generation()
            pins, unreadable = await self._known([md5 for md5, _ in contents])
            new, wrong = _judged([one for one in contents if one[0] not in unreadable], pins)
            if not new and not wrong:
                break
            if new:
                generation = await self._pin(new)
            for md5, measured in wrong:
                generation = await self._quarantine(md5, measured, pins.get(md5))
        return generation

    async def _known(self, md5s: Sequence[Md5]) -> tuple[dict[Md5, Pin], set[Md5]]:
        """The existing pins, and the blobs whose pin does not parse.

        Such a blob stays denied and is not pinned anew.
        """
        unreadable: set[Md5] = set()

        def decode(raw: bytes, md5: Md5) -> Pin:
            try:
                return decode_pin(raw, md5=md5)
            except UnreadableRecordError:
                unreadable.add(md5)
                raise

        wanted = [(pin_fact(md5), partial(decode, md5=md5)) for md5 in md5s]
        found = await self._listing.find_all(wanted)
        return {pin.md5: pin for pin in found if pin is not None}, unreadable

    async def _pin(self, contents: Sequence[tuple[Md5, Measured]]) -> int:
        change = self._change("cache.pin", [f"{md5} sha256:{measured.sha256}" for md5, measured in contents])
        operation = partial(pin_blobs, contents=contents, now=change.received_at, source=self._actor)
        done = await self._perform(change, operation)
        self._on_pinned(len(done.result))
        await self._store.hold_by_all(done.moment)
        return done.generation

    async def _quarantine(self, md5: Md5, measured: Measured, pin: Pin | None) -> int:
        cause = find_cause(md5, measured, pin)
        change = self._change("cache.quarantine", [md5, f"{cause}", f"found sha256:{measured.sha256}"])
        operation = partial(
            quarantine_blob, md5=md5, measured=measured, now=change.received_at, source=self._actor
        )
        done = await self._perform(change, operation)
        if done.result is not None:
            self._on_quarantined(done.result)
        await self._store.hold_by_all(done.moment)
        return done.generation

    def _change(self, action: str, subject: Sequence[str]) -> Change:
        return Change(actor=self._actor, action=action, subject=tuple(subject), received_at=self._clock.now())


_Contents = list[tuple["Md5", "Measured"]]


def _judged(contents: Sequence[tuple[Md5, Measured]], pins: dict[Md5, Pin]) -> tuple[_Contents, _Contents]:
    """The blobs to pin and the blobs to quarantine.

    Those that match, or are in quarantine, are in neither.
    """
    new: _Contents = []
    wrong: _Contents = []
    for md5, measured in contents:
        pin = pins.get(md5)
        if pin is not None and (pin.quarantine is not None or pin.is_of(measured)):
            continue
        (new if find_cause(md5, measured, pin) is None else wrong).append((md5, measured))
    return new, wrong
