"""Early refusals: the error responses that the server sends itself, before a request reaches the guard.

Each has the form of every other refusal, with the id of its record.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from gateway.middleware.trace import traceparent
from gateway.model.errors import Reason
from gateway.problems import PROBLEMS


class EarlyRefusal(StrEnum):
    """Why a request was refused by the server itself, before it could be parsed as a whole."""

    MALFORMED_REQUEST = Reason.MALFORMED_REQUEST
    SLOW_REQUEST = Reason.SLOW_REQUEST
    PATH_TOO_LONG = Reason.PATH_TOO_LONG
    HEADERS_TOO_LARGE = Reason.HEADERS_TOO_LARGE

    reason: Reason
    status: int

    def __new__(cls, reason: Reason) -> Self:
        """Store the reason and its status on the member."""
        member = str.__new__(cls, reason.value)
        member._value_ = reason.value
        member.reason = reason
        member.status = PROBLEMS[reason].status
        return member

    def answer(self, record_id: str) -> bytes:
        """The whole answer, but for status line and date. Its trace id is new: no header was read."""
        body = PROBLEMS[self.reason].body(record_id)
        headers = (
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"cachegate-record", record_id.encode()),
            (b"traceparent", traceparent(None)),
            (b"connection", b"close"),
        )
        return b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body
