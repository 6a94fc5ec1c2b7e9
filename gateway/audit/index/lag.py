"""What the process that follows the log is told, and how far it tells that the index is behind."""

from __future__ import annotations

import msgspec


class IndexingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to index."""

    folder: str
    node: str


class IndexLag(msgspec.Struct, frozen=True, kw_only=True):
    """About so many records, and so long."""

    records: int = 0
    seconds: float = 0.0
    failed: str | None = None
