"""What one response really sent: counted where it is handed to the server, whoever produced it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.verdicts import Ending, Outcome

if TYPE_CHECKING:
    from starlette.types import Message, Send


class Meter:
    """Counts one response, and lets delivery say that it cut it and why."""

    __slots__ = ("bytes_sent", "cut", "is_complete", "record_id", "started_at", "status")

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.status = 0
        self.bytes_sent = 0
        self.is_complete = False
        self.cut: Ending | None = None
        self.record_id: str | None = None  # of the decision that is being delivered

    def counting(self, send: Send) -> Send:
        """The same `send`, counted."""

        async def counted(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                self.status = message["status"]
            elif message["type"] == "http.response.body":
                self.bytes_sent += len(message.get("body", b""))
                self.is_complete = not message.get("more_body", False)

        return counted

    def outcome(self, now: float) -> Outcome:
        """What to record."""
        ending = self.cut or (Ending.COMPLETE if self.is_complete else Ending.FAILED)
        milliseconds = round((now - self.started_at) * 1000, 3)
        return Outcome(
            ending=ending, status=self.status, bytes_sent=self.bytes_sent, milliseconds=milliseconds
        )
