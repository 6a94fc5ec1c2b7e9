"""Early refusals: what the HTTP server itself refuses, before a request is one.

Each is a reason of the one list and answers in the shape that every other refusal has, but is ready
in bytes: whoever sends garbage costs us no rendering. Non-goal: when to refuse (`protocol.py`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from gateway.model.errors import Reason
from gateway.problems import PROBLEMS, UNRECORDED


class EarlyRefusal(StrEnum):
    """Why a request was refused before it was one: the few reasons that the server itself has."""

    MALFORMED_REQUEST = Reason.MALFORMED_REQUEST
    SLOW_REQUEST = Reason.SLOW_REQUEST
    PATH_TOO_LONG = Reason.PATH_TOO_LONG
    HEADERS_TOO_LARGE = Reason.HEADERS_TOO_LARGE

    reason: Reason
    status: int
    answer: bytes

    def __new__(cls, reason: Reason) -> Self:
        """Carry the whole answer, ready to be sent, but for the status line and the date."""
        member = str.__new__(cls, reason.value)
        member._value_ = reason.value
        member.reason = reason
        member.status = PROBLEMS[reason].status
        body = PROBLEMS[reason].body(UNRECORDED)
        member.answer = (
            b"content-type: application/problem+json\r\ncache-control: no-store\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        return member
