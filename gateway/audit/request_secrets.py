"""Find the secrets of a request and remove them from recorded text, in whatever encoding (I8).

A client may put its key into its user agent, its trace, the name of a model. Secrets are the values of the
headers and parameters whose names say so, whether they hold a good key, a bad one, two that differ, or
something too long. They are removed from all that is recorded of the same request: as they are,
percent-encoded once or more, in base64 at any offset (so within `Basic` too), in hex, in upper or lower
case.

Nothing is kept between requests: only the secrets of the same request are searched for. A text too short to
contain the shortest secret of its request costs one comparison of lengths.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import b2a_base64
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

REMOVED = "[removed]"
MIN_SECRET_BYTES = 6  # shorter values are not secrets, and removing them would damage unrelated text
MAX_SECRETS = 128  # that are searched for; an honest request has one or two
MAX_PIECES = 16  # of one value
_MAX_DECODINGS = 3  # of percent escapes: a key encoded more often is decoded by no server
NO_SECRET = 1 << 62
_REMEMBERED_NAME_BYTES = 64  # anonymous callers choose names, of up to 32 KiB
_MIN_PART = 12  # this many characters of a secret are too many to be recorded

_NOT_A_LETTER = re.compile(rb"[^A-Za-z]+")
_USUAL_NAMES = frozenset(
    {
        *(b"host", b"user-agent", b"accept", b"accept-encoding", b"connection", b"traceparent", b"range"),
        *(b"if-none-match", b"x-forwarded-for", b"x-forwarded-proto", b"x-original-method"),
    }
)
"""Headers that hold no secret: nearly all, known without a call."""

_KEY_HEADERS = frozenset({b"authorization", b"x-api-key"})
"""Headers that hold one: nearly all that do, known in the same way."""

_ONLY_A_KEY = {b"authorization"}
_TARGETS = frozenset({b"x-original-uri", b"x-forwarded-uri", b"referer"})
"""Headers that hold the target of another request, whose parameters count as its own."""

_SECRET_NAMES = frozenset(
    {
        *(b"authorization", b"proxyauthorization", b"cookie", b"bearer", b"basic", b"key", b"token"),
        *(b"apikey", b"sig", b"signature", b"secret", b"password", b"passwd", b"pwd", b"auth"),
    }
)
_SECRET_ENDS = (b"apikey", b"token", b"secret", b"password", b"authorization", b"signature", b"credential")
_PLAIN = re.compile(rb"(?:Bearer +)?([0-9A-Za-z_~+/-]{8,})", re.IGNORECASE)  # the form of nearly all keys
_NAMED = re.compile(rb"([0-9A-Za-z_~+/-]{1,128}\.([0-9A-Za-z_~+/-]{8,}))")  # a link's key and signature
_SIGNED = re.compile(rb"(?:[Bb]earer +)?(eyJ[0-9A-Za-z_-]*\.[0-9A-Za-z_-]*\.([0-9A-Za-z_-]{8,}))")
"""An access token, and its signature, without which it is nothing. It is tried first, as it fails at once."""

_LONGEST_KEY_BYTES = 4096  # `extract` takes no longer one
_BEGINNING_BYTES = 20
_SCHEMES = frozenset({b"bearer", b"basic", b"token", b"digest", b"negotiate", b"apikey", b"local"})
_BETWEEN = re.compile(rb"[\s,;=:\"']+")
_PARAMETER = re.compile(rb"([A-Za-z0-9_.\-\[\]]++)(?:=([^&;#?\s]*+))?")
"""A word, and its value if it has one. Words without one match too, so that none is read more than once."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{8,}={0,2}")
_URL_SAFE = str.maketrans("-_", "+/")


class RequestSecrets:
    """The secrets of one request. Falsy when there are none. Never printed.

    Their forms are computed only when a text is long enough to contain one.
    """

    __slots__ = ("_plain", "_raw", "_written", "least")

    def __init__(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        query: bytes,
        fields: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """`fields` are the headers by name, where it is known that none came twice."""
        if fields is not None and fields.keys() - _USUAL_NAMES == _ONLY_A_KEY:
            raw = [fields[b"authorization"]]
        else:
            raw = []
            for name, value in headers:
                if name in _USUAL_NAMES:
                    continue
                if name in _TARGETS:
                    raw += _parameters(value)
                elif name in _KEY_HEADERS or _is_secret_name(name):
                    raw.append(value)
        if query:
            raw += _parameters(query)
        self._raw = raw
        self._plain: list[re.Match[bytes] | None] = []
        self._written: tuple[list[str], list[str]] | None = None
        # No form of a secret is shorter than the secret: a text shorter than all of them contains none.
        self.least = NO_SECRET
        for value in raw:
            match = _SIGNED.fullmatch(value) or _PLAIN.fullmatch(value) or _NAMED.fullmatch(value)
            self._plain.append(match)
            self.least = min(self.least, MIN_SECRET_BYTES if match is None else len(_found_by(match)[-1]))

    def __bool__(self) -> bool:
        return bool(self._raw)

    def may_be_in_runs(self, longest: int) -> bool:
        """Whether a text whose longest run of key characters has this length may contain a secret."""
        return longest >= self.least or None in self._plain

    def clean(self, text: str, *, separator: str) -> str:
        """Remove all secrets from a text. A word with a secret in another form is removed as a whole."""
        if len(text) < self.least:
            return text
        for secret in self._all()[0]:
            if secret in text.lower():
                text = re.sub(re.escape(secret), REMOVED, text, flags=re.IGNORECASE)
        if not self.is_in(text):
            return text
        words = [REMOVED if self.is_in(word) else word for word in text.split(separator)]
        text = separator.join(words)
        return REMOVED if self.is_in(text) else text

    def is_in(self, text: str) -> bool:
        """Whether the text contains a secret in any form."""
        if len(text) < self.least:
            return False
        readings = list(_readings(text))
        return any(form in reading for form in self._all()[1] for reading in readings)

    def is_part(self, text: str) -> bool:
        """Whether the text is a secret in any form, or a long part of one: for fields of a fixed length."""
        if len(text) < _MIN_PART or not self._raw:
            return False
        lowered = text.lower()
        for secret in islice(self._shortest_pieces(), MAX_SECRETS):
            for form in _forms(secret):
                if lowered in form or form in lowered:
                    return True
        return not text.isalnum() and self.is_in(text)  # letters and digits have no other reading

    def _all(self) -> tuple[list[str], list[str]]:
        """The secrets in lower case, longest first because one may contain another; and all their forms."""
        if self._written is None:
            found = [_forms(secret) for secret in dict.fromkeys(islice(self._pieces(), MAX_SECRETS))]
            plain = sorted([forms[0] for forms in found], key=len, reverse=True)
            self._written = plain, [form for forms in found for form in forms]
        return self._written

    def _shortest_pieces(self) -> Iterator[bytes]:
        """What makes each of the candidates a secret: of a token or a link its signature."""
        for value, match in zip(self._raw, self._plain, strict=True):
            if match is None:
                yield from _pieces_of(value)
            elif match[1].lower() not in _SCHEMES:
                yield _found_by(match)[-1]

    def _pieces(self) -> Iterator[bytes]:
        """The candidates, plain keys first: with many other values, `MAX_SECRETS` may cut the list."""
        for match in self._plain:
            if match is not None and match[1].lower() not in _SCHEMES:
                yield from _found_by(match)
        for value, match in zip(self._raw, self._plain, strict=True):
            if match is None:
                yield from _pieces_of(value)


def _found_by(match: re.Match[bytes]) -> tuple[bytes, ...]:
    """What a secret is found by: itself, or what follows its name as well. The last one is the shortest.

    Of one that is too long to be a key, its beginning is enough.
    """
    found: tuple[bytes, ...] = match.groups()
    return found if len(match[1]) <= _LONGEST_KEY_BYTES else (*found, match[1][:_BEGINNING_BYTES])


def _readings(text: str) -> Iterator[str]:
    """The text in lower case, and each percent-decoding of it; with URL-safe base64 translated as well."""
    for _ in range(_MAX_DECODINGS + 1):
        lowered = text.lower()
        yield lowered
        if "-" in text or "_" in text:
            yield lowered.translate(_URL_SAFE)
        if "%" not in text:
            return
        decoded = unquote(text, encoding="latin-1")
        if decoded == text:
            return
        text = decoded


def _forms(secret: bytes) -> tuple[str, ...]:
    """The forms in which a secret may be written, in lower case, itself first.

    Of base64 only the characters that depend on the secret alone, not those shared with its neighbours: the
    secret may begin at any of three places in a group of 24 bits.
    """
    bits = 8 * len(secret)
    return (
        secret.decode("latin-1").lower(),
        secret.hex(),
        b2a_base64(secret, newline=False)[: bits // 6].decode().lower(),
        b2a_base64(b"\0" + secret, newline=False)[2 : (8 + bits) // 6].decode().lower(),
        b2a_base64(b"\0\0" + secret, newline=False)[3 : (16 + bits) // 6].decode().lower(),
    )


def _pieces_of(value: bytes) -> Iterator[bytes]:
    """A value as a whole and its components: after a scheme, decoded from base64, after a key's id."""
    for piece in [value.strip(), *islice(_BETWEEN.split(value), MAX_PIECES)]:
        for secret in (piece, unquote_to_bytes(piece), *_decoded(piece), piece.partition(b".")[2]):
            if len(secret) >= MIN_SECRET_BYTES and secret.lower() not in _SCHEMES:
                yield secret


def _decoded(piece: bytes) -> Iterator[bytes]:
    """The text that a piece encodes in base64, if it is printable; with `Basic`, user name and password."""
    if _BASE64.fullmatch(piece) is None:
        return
    padded = piece.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    try:
        plain = b64decode(padded + b"=" * (-len(padded) % 4), validate=True)
    except ValueError:
        return
    if plain.isascii() and plain.decode("ascii").isprintable():
        yield plain
        yield from plain.split(b":")


def _parameters(query: bytes) -> list[bytes]:
    """The values of parameters with secret names, also of parameters of a URL within a parameter."""
    if b"=" not in query and b"%" not in query:  # no name has a value: nearly all paths
        return []
    found = []
    for _ in range(_MAX_DECODINGS):
        found += [value for name, value in _PARAMETER.findall(query) if value and _is_secret_name(name)]
        decoded = unquote_to_bytes(query) if b"%" in query else query
        if decoded == query:
            break
        query = decoded
    return found


def _is_secret_name(name: bytes) -> bool:
    """Whether a header or parameter of this name contains a secret. Short names are remembered."""
    is_short = len(name) <= _REMEMBERED_NAME_BYTES
    return _names_a_secret(name) if is_short else _names_a_secret.__wrapped__(name)


@lru_cache(maxsize=512)
def _names_a_secret(name: bytes) -> bool:
    """The same. Only the letters of a name count."""
    letters = _NOT_A_LETTER.sub(b"", name).lower()
    return letters.removeprefix(b"x") in _SECRET_NAMES or letters.endswith(_SECRET_ENDS)
