"""Counts what one response sends, where it is handed to the server, whichever code produced it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.model.extensions import ZERO_COPY
from gateway.model.verdicts import Ending, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Send

    from gateway.model.errors import Reason
    from gateway.model.verdicts import ServerOutcome


class Meter:
    """Counts one response. Delivery sets `cut` when it cuts the body, and why.

    A server may know more exactly how much it sent, within a message too: then `sent_bytes` asks it.
    """

    __slots__ = (
        "_counted",
        "_sent_bytes",
        "began_at",
        "cut",
        "is_complete",
        "reason",
        "record_id",
        "sha256",
        "started_at",
        "status",
        "upstream",
    )

    def __init__(self, started_at: float, sent_bytes: Callable[[], int] | None = None) -> None:
        self.started_at = started_at
        self.began_at: float | None = None  # when the head of the answer was handed to the server
        self.status = 0
        self._counted = 0
        self._sent_bytes = sent_bytes
        self.is_complete = False
        self.cut: Ending | None = None
        self.record_id: str | None = None  # of the decision that is being delivered
        self.reason: Reason | None = None  # why an admitted request was refused after all
        self.upstream: ServerOutcome | None = None  # of a request that was forwarded
        self.sha256: str | None = None  # found by delivery when it hashed what it sent

    @property
    def bytes_sent(self) -> int:
        """How many bytes of the body were sent."""
        return self._counted if self._sent_bytes is None else self._sent_bytes()

    def counting(self, send: Send) -> Send:
        """`send`, with its messages counted."""

        async def counted(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.began_at = asyncio.get_running_loop().time()
            elif message["type"] == "http.response.body":
                self._counted += len(message.get("body", b""))
                self.is_complete = not message.get("more_body", False)
            elif message["type"] == ZERO_COPY:
                self._counted += message["count"]
                self.is_complete = not message.get("more_body", False)

        return counted

    def outcome(self, now: float) -> Outcome:
        """The outcome to record."""
        ending = self.cut or (Ending.COMPLETE if self.is_complete else Ending.FAILED)
        milliseconds = round((now - self.started_at) * 1000, 3)
        return Outcome(
            ending=ending,
            status=self.status,
            bytes_sent=self.bytes_sent,
            milliseconds=milliseconds,
            sha256=self.sha256,
            reason=self.reason,
            upstream=self.upstream,
        )
