"""Reads one HTTP/1.1 answer from the bytes of a connection, however they are split. No I/O.

`httptools` (llhttp) parses the header fields and the chunks, with all its checks on. Where it is lenient, we
are not. Two parsers could read these in two ways, and the next request on the connection may be another
tenant's, so all of it is refused:

- two fields that frame the body (`Content-Length`, `Transfer-Encoding`), whether they agree or not;
- a coding other than `chunked`, and any coding with HTTP/1.0 (RFC 9112, 6.1);
- an answer without either: its body would end with the connection, where the end and a break look the same;
- a body of a status that has none (1xx, 204, 304);
- a switch of protocols (101), which nobody asks for;
- what is before the status line, a version other than 1.0 and 1.1, a status that is not 100 to 599.

llhttp itself refuses folded fields, bare CR or LF, zero bytes, spaces before a colon, and lengths and
sizes of chunks that are no plain numbers. A head is bounded, and so is what may come between two pieces of a
body: extensions of chunks and trailers, both of which are dropped.

What comes after the end of an answer is no part of it. `may_another_follow` is then false, and the connection
cannot be used again.

The texts of errors hold nothing of the answer (I8).
"""

from __future__ import annotations

import re
from collections import deque

import httptools

MAX_HEAD_BYTES = 64 * 1024  # of the header; and of all that is between two pieces of a body

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_END_OF_HEAD = b"\r\n\r\n"
_END_OF_CHUNKS = b"0\r\n\r\n"
_SWITCHING, _FIRST_FINAL = 101, 200
_WITHOUT_BODY = frozenset({204, 304})
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class MalformedAnswerError(Exception):
    """What came is no answer, or one that could be read in two ways."""


class AnswerReader:
    """One answer, as far as it has come. A call of `feed` that raises is the last one."""

    def __init__(self) -> None:
        self.has_head = False
        self.is_complete = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []  # names in lower case, in order
        self.length: int | None = None  # of the body, 0 for none; None: it comes in chunks
        self.pieces: deque[bytes] = deque()  # of the body, those that nobody has taken
        self.held_bytes = 0  # in them
        # The head
        self._head = bytearray()  # what has come of it
        self._head_bytes = 0  # of all heads: informational ones come before the answer's
        self._is_head_parsed = False
        self._is_kept = False  # whether the server keeps the connection open
        # The body
        self._left_bytes = 0  # of the length
        self._parser: httptools.HttpResponseParser | None = None  # of the chunks
        self._chunks: list[bytes] = []  # what was in the bytes that were fed last
        self._bytes_between = 0  # two pieces
        self._tail = b""  # the last bytes of all chunks
        self._has_surplus = False

    @property
    def may_another_follow(self) -> bool:
        """Whether the answer is complete, nothing came after it, and the server takes more requests."""
        return self.is_complete and self._is_kept and not self._has_surplus

    def feed(self, data: bytes) -> None:
        """Take in the next bytes. Raises `MalformedAnswerError`."""
        if not self.has_head:
            data = self._feed_head(data)
            if not self.has_head:
                return
        if not data:
            return
        if self.is_complete:
            self._has_surplus = True
        elif self.length is None:
            self._feed_chunks(data)
        else:
            self._feed_length(data)

    def take(self) -> bytes:
        """The next piece of the body that has come."""
        piece = self.pieces.popleft()
        self.held_bytes -= len(piece)
        return piece

    # The head

    def _feed_head(self, data: bytes) -> bytes:
        """Read heads up to that of the answer, and return what comes after it."""
        held = self._head
        searched = max(0, len(held) - len(_END_OF_HEAD) + 1)
        held += data
        while not self.has_head:
            found = held.find(_END_OF_HEAD, searched)
            end = len(held) if found < 0 else found + len(_END_OF_HEAD)
            if self._head_bytes + end > MAX_HEAD_BYTES:
                raise MalformedAnswerError("its header is too large")
            if found < 0:
                return b""
            self._head_bytes += end
            head = bytes(held[:end])
            del held[:end]
            searched = 0
            self._read_head(head)
        rest = bytes(held)
        held.clear()
        return rest

    def _read_head(self, head: bytes) -> None:
        line = _STATUS_LINE.match(head)
        if line is None:
            raise MalformedAnswerError("it begins with no status line")
        self.status = int(line[2])
        if self.status == _SWITCHING:
            raise MalformedAnswerError("it switches protocols")
        self.headers, self._is_head_parsed = [], False
        self._parser = httptools.HttpResponseParser(self)
        self._parse(head)
        if not self._is_head_parsed:
            raise MalformedAnswerError("its header does not parse")
        self.length = self._find_length(is_chunkable=line[1] == b"1")
        self.has_head = self.status >= _FIRST_FINAL
        if self.length is not None:
            self._left_bytes = self.length
            self.is_complete = self.has_head and self.length == 0
            self._parser = None  # it refers to this reader, and this reader to it

    def _find_length(self, *, is_chunkable: bool) -> int | None:
        """The length of the body, 0 for none; None where it comes in chunks."""
        framing = [one for one in self.headers if one[0] in _FRAMING]
        has_body = self.status >= _FIRST_FINAL and self.status not in _WITHOUT_BODY
        if not framing:
            if has_body:
                raise MalformedAnswerError("its body has no length")
            return 0
        name, value = framing[0]
        if len(framing) == 1 and name == b"content-length":
            length = int(value) if _LENGTH.fullmatch(value) else -1
            if length == 0 or (length > 0 and has_body):
                return length
        elif len(framing) == 1 and value.lower() == b"chunked" and is_chunkable and has_body:
            return None
        raise MalformedAnswerError("its framing is ambiguous")

    # The body

    def _feed_length(self, data: bytes) -> None:
        if len(data) > self._left_bytes:
            data, self._has_surplus = data[: self._left_bytes], True
        self._left_bytes -= len(data)
        self.is_complete = self._left_bytes == 0
        self._hold(data)

    def _feed_chunks(self, data: bytes) -> None:
        self._parse(data)
        # llhttp skips empty lines before another answer, so the end is looked for here too.
        self._tail = (self._tail + data[-len(_END_OF_CHUNKS) :])[-len(_END_OF_CHUNKS) :]
        if self._chunks:
            self._hold(b"".join(self._chunks))  # one piece for each read, however many chunks there are
            self._chunks.clear()
            self._bytes_between = 0
        else:
            self._bytes_between += len(data)
        if self.is_complete:
            self._has_surplus = self._has_surplus or self._tail != _END_OF_CHUNKS
            self._parser = None
        elif self._bytes_between > MAX_HEAD_BYTES:
            raise MalformedAnswerError("its chunks hold nothing")

    def _hold(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.held_bytes += len(piece)

    # The parser and its callbacks

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            raise MalformedAnswerError("nothing was expected")
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            if not (self.has_head and self.is_complete):
                raise MalformedAnswerError("it does not parse") from None  # the cause may hold some of it
            self._has_surplus = True

    def on_message_begin(self) -> None:
        """An answer begins. Another one behind it is not read."""
        if self.has_head:
            raise MalformedAnswerError("another answer follows")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field; or a trailer, which is no field of the head that was verified."""
        if not self.has_head:
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._is_head_parsed = True
        self._is_kept = self._parser is not None and self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """A piece of a chunk."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """The last chunk is there; or it was a head without a body, which `_read_head` finds out itself."""
        self.is_complete = self.has_head
