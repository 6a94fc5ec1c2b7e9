"""Record that records are passed on, before the first one is, and how that ended.

    with recorded_export(log, "ocsf file") as export:
        for line in lines:
            write(line)
            export.records += 1

writes an `export` record `started` when the block is entered, and `ended` when it is left, with the number
of records and the reason: `complete`, or what stopped it. Who may not be recorded may not export: entering
raises `Unavailable` when the log cannot be written (`AuditLog`; a `GroupedLog` defers both records).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.audit.record import ExportRecord
from gateway.model.errors import CachegateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    from gateway.audit.record import Event

    class EventRecorder(Protocol):
        """Records events: `AuditLog`, or one that waits for the disk."""

        def note(self, kind: type[Event], **fields: Any) -> object:
            """Record one."""


COMPLETE, INTERRUPTED = "complete", "interrupted"


@dataclass(slots=True)
class ExportCount:
    """How many records have been passed on."""

    records: int = 0


@contextmanager
def recorded_export(log: EventRecorder, target: str) -> Iterator[ExportCount]:
    """Record an export to `target` (a name, no address with credentials) around a block."""
    log.note(ExportRecord, target=target, state="started")
    count = ExportCount()
    reason = INTERRUPTED
    try:
        yield count
        reason = COMPLETE
    except CachegateError as failure:
        reason = type(failure).__name__.lower()
        raise
    finally:
        log.note(ExportRecord, target=target, state="ended", records=count.records, reason=reason)
