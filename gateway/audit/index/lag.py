"""How far the index is behind the log, as the process that follows it tells."""

from __future__ import annotations

import msgspec


class IndexLag(msgspec.Struct, frozen=True, kw_only=True):
    """About so many records, and so long."""

    records: int = 0
    seconds: float = 0.0
    failed: str | None = None
