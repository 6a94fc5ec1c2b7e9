"""The start of every answer, status line and the server's own headers, made once a second for each status."""

from __future__ import annotations

from http import HTTPStatus

Headers = list[tuple[bytes, bytes]]

_STATUSES = range(100, 600)


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES = {status: _status_line(status) for status in _STATUSES}


class HeadStarts:
    """The starts of one worker's answers."""

    __slots__ = ("_lines", "_own_headers", "_starts")

    def __init__(self) -> None:
        self._own_headers: Headers | None = None
        self._lines = b""
        self._starts: dict[int, bytes] = {}

    def find(self, status: int, own_headers: Headers) -> bytes:
        """The start of an answer. uvicorn makes a new list of headers each second, for the date in it."""
        if own_headers is not self._own_headers:
            self._own_headers = own_headers
            self._lines = b"".join([b"%b: %b\r\n" % header for header in own_headers])
            self._starts.clear()
        start = self._starts.get(status)
        if start is None:
            start = self._starts[status] = _STATUS_LINES[status] + self._lines
        return start
