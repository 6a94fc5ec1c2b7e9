"""The seam between the server and what answers requests without waiting (`AtOnce`).

The protocol hands over a request without a body that is the next to be answered on its connection. By the end
of the event loop iteration it is either answered, or passed on to the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    Headers = list[tuple[bytes, bytes]]


class Request:
    """A parsed request without a body."""

    __slots__ = ("headers", "method", "target")

    def __init__(self, method: bytes, target: bytes, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.headers = headers  # names in lower case, in the order in which they came


class Connection(Protocol):
    """The connection that a request came on. Exactly one of `answer` and `pass_on` is called for each."""

    memo: object | None  # what the other side worked out once for this connection

    @property
    def peer(self) -> str | None:
        """The peer's address; None on a unix socket."""

    @property
    def may_answer(self) -> bool:
        """Whether it is open and takes what is written."""

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """Write a whole answer. `head`: header lines, with the empty line at their end."""

    def pass_on(self) -> None:
        """Have the application answer the request. Does nothing once the connection is closed."""


class AtOnce(Protocol):
    """Answers what needs no waiting."""

    def take(self, request: Request, connection: Connection) -> None:
        """Take a request; it is answered or passed on by the end of this event loop iteration.

        Never raises.
        """

    def finish(self) -> None:
        """Answer everything that was taken, now: the server stops."""
