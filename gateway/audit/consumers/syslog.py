"""Records as syslog messages (RFC 5424), over a connection that frames them (RFC 5425).

    <110>1 2030-01-31T12:00:00.123456Z node-1 cachegate - decision [cachegate@32473 id="…" chain="…" seq="7"
    hash="…"] {…}                (one line)

The message is the record's line. The structured data has what proves it and shows a loss: `seq` rises by one
within a chain. 32473 is the number that RFC 5612 keeps for examples, since this project has none of its own.

There is no acknowledgement. When a connection broke, what was sent in the last seconds is sent again: the
id tells a receiver what it has. A record that is larger than a message may be is replaced by a short one with
the same structured data, by which it is found in the log.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from gateway.audit.consumers.delivery import HandedPage, NotDeliveredError
from gateway.audit.record import (
    ChangeOutcomeRecord,
    ChangeRecord,
    DecisionRecord,
    GapRecord,
    ModeRecord,
    QuarantineRecord,
    RefusedChangeRecord,
    RetentionRecord,
    SummaryRecord,
)
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.audit.index import Cursor, IndexedRecord
    from gateway.audit.record import Record

FACILITY = 13  # log audit
WARNING, NOTICE, INFORMATIONAL = 4, 5, 6
MOST_MESSAGE_BYTES = 8192  # what RFC 5425 asks every receiver to take
LEAST_MESSAGE_BYTES = 2048
AGAIN_SECONDS = 5.0  # of what was sent before a connection broke
SD_ID = "cachegate@32473"
_MOST_PAGES = 256
_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\", "]": r"\]"})


class SyslogSender(Protocol):
    """Sends messages over one connection, made anew when it is needed."""

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""

    def send(self, messages: Iterable[bytes]) -> None:
        """Send messages. Raises `Unavailable`; then nobody knows what arrived."""

    def close(self) -> None:
        """Close the connection."""


class SyslogTarget:
    """One receiver."""

    def __init__(
        self,
        sender: SyslogSender,
        *,
        now: Callable[[], float],
        facility: int = FACILITY,
        most_bytes: int = MOST_MESSAGE_BYTES,
    ) -> None:
        self._sender = sender
        self._now = now
        self._facility = facility
        self._most = most_bytes
        self._sent: deque[tuple[float, Cursor]] = deque(maxlen=_MOST_PAGES)

    async def deliver(self, records: Sequence[IndexedRecord], start: Cursor, end: Cursor) -> HandedPage:
        """Send the records; raises `NotDeliveredError`."""
        del end
        if self._sent and not self._sender.is_open:
            begin = self._sent[0][1]
            self._sent.clear()
            return HandedPage(goes_on_at=begin)
        now = self._now()
        while self._sent and not 0 <= now - self._sent[0][0] <= AGAIN_SECONDS:
            self._sent.popleft()
        messages = [format_message(one, self._facility, self._most) for one in records]
        try:
            self._sender.send(messages)
        except Unavailable as failure:
            raise NotDeliveredError(str(failure)) from failure
        self._sent.append((now, start))
        return HandedPage()

    async def close(self) -> None:
        """Close the connection."""
        self._sender.close()


def format_message(indexed: IndexedRecord, facility: int = FACILITY, most: int = MOST_MESSAGE_BYTES) -> bytes:
    """One message, of at most so many bytes."""
    record = indexed.record
    kind = str(type(record).__struct_config__.tag)
    data = {"id": record.id, "chain": record.chain, "seq": str(record.seq), "hash": record.hash}
    structured = " ".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in data.items())
    priority = facility * 8 + severity_of(record)
    head = (
        f"<{priority}>1 {record.time} {record.node} cachegate - {kind[:32]} [{SD_ID} {structured}] ".encode()
    )
    if len(head) + len(indexed.line) <= most:
        return head + indexed.line
    return head + b'{"kind":"%b","omitted_bytes":%d}' % (kind.encode(), len(indexed.line))


def severity_of(record: Record) -> int:
    """Warning for what asks for attention, notice for denials and changes, else informational."""
    match record:
        case GapRecord() | QuarantineRecord():
            return WARNING
        case ModeRecord(mode=mode):
            return NOTICE if mode == "normal" else WARNING
        case RetentionRecord(state=state):
            return NOTICE if state == "removing" else WARNING
        case DecisionRecord(decision=decision):
            return INFORMATIONAL if decision == "allow" else NOTICE
        case SummaryRecord() | ChangeRecord() | ChangeOutcomeRecord() | RefusedChangeRecord():
            return NOTICE
        case _:
            return INFORMATIONAL
