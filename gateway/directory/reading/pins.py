"""Reads blob pins through a worker's near cache, like every other fact.

So a quarantine reaches every worker as fast as a revocation, and an answer that depends on a pin is withdrawn
if the pin changes before the answer's first byte.

It is only called after an allow, so reading from memory does not reveal what other callers asked for (I3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.directory.records import names
from gateway.directory.records.codec import UnreadableRecordError, decode_pin
from gateway.directory.records.fact_sizes import held_bytes
from gateway.model.errors import Reason, Refusal
from gateway.model.pins import Pin, PinFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model.names import Md5
    from gateway.model.ports import FactSource
    from gateway.model.stamps import Leaf


class NearPins:
    """The pins, as one worker knows them."""

    def __init__(self, source: FactSource, *, on_unreadable: Callable[[str], None] | None = None) -> None:
        self._source = source
        self._on_unreadable = on_unreadable

    async def find(self, md5: Md5) -> PinFound:
        """Return a blob's pin. Raises `Refusal(UNREADABLE_FACT)` if its record does not parse."""
        generation, [leaf] = await self._source.read([names.pin_fact(md5)])
        try:
            return PinFound(pin=_decoded(leaf, md5), leaf=leaf, generation=generation)
        except UnreadableRecordError as error:
            if self._on_unreadable is not None:
                self._on_unreadable(leaf.name.decode())
            raise Refusal(Reason.UNREADABLE_FACT) from error

    def recall(self, md5: Md5) -> PinFound | None:
        """Return the pin from memory only; None if it is not cached or does not parse."""
        leaves = self._source.find([names.pin_fact(md5)])
        if leaves is None:
            return None
        [leaf] = leaves
        try:
            return PinFound(pin=_decoded(leaf, md5), leaf=leaf, generation=0)
        except UnreadableRecordError:
            return None  # `find` reports it


def _decoded(leaf: Leaf, md5: Md5) -> Pin | None:
    if leaf.value is None:
        return None
    if leaf.decoded is None:
        pin = decode_pin(leaf.value, md5)
        leaf.keep(pin, held_bytes(pin, leaf.value))
    return leaf.decoded  # type: ignore[return-value] # one name is always decoded the same way
