"""Header fields of an answer, as the pairs that ASGI wants and as the lines that HTTP/1.1 has."""

from __future__ import annotations

import msgspec


class Headers(msgspec.Struct, frozen=True):
    """Header fields in their order: as pairs, and as lines of HTTP/1.1."""

    pairs: tuple[tuple[bytes, bytes], ...]
    block: bytes

    @classmethod
    def of(cls, *pairs: tuple[bytes, bytes]) -> Headers:
        """The headers with these fields."""
        return cls(pairs, b"".join([b"%b: %b\r\n" % pair for pair in pairs]))

    def and_also(self, *pairs: tuple[bytes, bytes]) -> Headers:
        """These headers, followed by more."""
        return Headers.of(*self.pairs, *pairs)
