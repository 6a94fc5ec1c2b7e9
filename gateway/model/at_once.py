"""What the server and the synchronous core agree on: requests that are answered without the application.

A request is taken if nothing about it needs waiting for the client: GET or HEAD without a body, HTTP/1.1 on a
connection that stays open and takes what is written, with no earlier request unanswered. All requests that
were taken in one iteration of the event loop can so be answered together, at its end. Every other request,
and each one that is passed on, goes to the application through ASGI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model.answers import Span


class Request(msgspec.Struct, gc=False):
    """A request without a body, as the parser reported it."""

    method: bytes
    target: bytes  # in origin-form, ASCII
    headers: list[tuple[bytes, bytes]]  # names in lower case, in the order in which they came
    fields: dict[bytes, bytes] | None = None  # the same by name, where no name came twice


class Watch(Protocol):
    """Tells whether a transfer may go on."""

    @property
    def is_certain(self) -> bool:
        """Whether it may, as far as is known now. Read right before each step."""

    async def verify(self) -> None:
        """Wait until it may go on. Raises when the transfer has to end."""


class FileBody(msgspec.Struct, frozen=True, kw_only=True):
    """A body that the kernel sends from an open file, and what has to happen meanwhile.

    `verify` is called right before each step, and after the last; `watch` before each step that is not taken
    at once. What they raise ends the transfer, and the connection. `on_end` is called once, with the number
    of bytes of the body that were sent, and the error that ended it, if one did; it does not raise.
    """

    file: int
    pieces: tuple[bytes | Span, ...]
    verify: Callable[[], None]
    watch: Callable[[], Watch]
    on_end: Callable[[int, BaseException | None], None]


class ClientConnection(Protocol):
    """The connection of a request that was taken.

    Exactly one of `answer`, `answer_with_file` and `pass_on` is called.
    """

    peer: str | None  # the peer's address; None on a unix socket
    memo: object | None  # free for `AtOnce`: what it works out once for a connection

    @property
    def sends_files(self) -> bool:
        """Whether `answer_with_file` may be called."""

    @property
    def may_answer(self) -> bool:
        """Whether it is open and takes what is written."""

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """Write the whole answer.

        `head` follows the status line and the server's own headers, and ends with the empty line. The next
        request of the connection may be taken before this returns.
        """

    def answer_with_file(self, status: int, head: bytes, body: FileBody) -> None:
        """Write the head as in `answer`, and have the kernel send the body, now or in later iterations."""

    def abort(self) -> None:
        """Reset the connection, and drop what is buffered."""

    def pass_on(self) -> None:
        """Have the application answer. Does nothing once the connection is closed."""


class AtOnce(Protocol):
    """Answers what it takes by the end of the event loop iteration. Neither method raises."""

    def take(self, request: Request, connection: ClientConnection) -> None:
        """Take a request that is the next to be answered on its connection."""

    def finish(self) -> None:
        """Answer everything that was taken, now: the server stops."""
