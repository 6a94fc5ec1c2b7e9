"""The envelope of a record: the fields that every record has, which fix its position in a chain.

Two ways lead to the same bytes. A record of the schema takes the envelope as fields and is encoded as a
whole; a body that was encoded before (`record_body.py`) is filled with its position when it is sealed
(`chain.py`). The values are digits, digests, a chain's id and a time, none of which JSON has to escape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.audit.record import SCHEMA_VERSION
from gateway.audit.timeline import RecordIds, Timestamps

if TYPE_CHECKING:
    from gateway.audit.record import ChainPosition


class Envelopes:
    """The envelopes of one node's records, with ascending ids."""

    def __init__(self, node: str) -> None:
        self.ids = RecordIds()
        self.times = Timestamps()
        self._node = node

    def members(self, now: float, links: ChainPosition, record_id: str | None = None) -> dict[str, Any]:
        """The envelope fields of the next record of the chain, for a record of the schema."""
        return {
            "schema": SCHEMA_VERSION,
            "id": record_id or self.ids.next(now),
            "chain": links.chain,
            "seq": links.seq + 1,
            "prev": links.hash,
            "time": self.times.text(now),
            "node": self._node,
        }
