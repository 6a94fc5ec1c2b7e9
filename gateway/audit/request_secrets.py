"""What is secret in a request, so that no record of that request holds it, in whatever form (I8).

A client may put its key into its user agent, its trace, the name of a model. What is known to be secret
is what came where secrets come: fields and parameters whose names say so, whether they hold a good key,
a bad one, two that differ, or something too long. That is taken out of all that is recorded of the same
request: as it is, percent-encoded once or more, in base64 at any offset (so within `Basic` too), in hex,
in upper or lower case.

Nothing here is kept, and no secret is looked up in what another request said. A text that cannot hold
the shortest secret of its request costs one comparison of lengths.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REMOVED = "[removed]"
MIN_SECRET_BYTES = 6  # shorter ones are no secrets, and would take half of every text with them
MAX_SECRETS = 128  # that are looked for; an honest request has one or two
MAX_PIECES = 16  # of one value
_MAX_DECODINGS = 3  # of percent escapes: what is encoded more often, no server ever sees as a key
_MIN_PART = 12  # characters of a secret that are too many to be recorded by themselves

_NOT_A_LETTER = re.compile(rb"[^A-Za-z]+")
_SECRET_NAMES = frozenset(
    {
        *(b"authorization", b"proxyauthorization", b"cookie", b"bearer", b"basic", b"key", b"token"),
        *(b"apikey", b"sig", b"signature", b"secret", b"password", b"passwd", b"pwd", b"auth"),
    }
)
_SECRET_ENDS = (b"apikey", b"token", b"secret", b"password", b"authorization", b"signature", b"credential")
_COOKIE = b"cookie"
_PLAIN = re.compile(rb"(?:Bearer +)?([0-9A-Za-z_~+/-]{8,})", re.IGNORECASE)  # how nearly all keys come
_SCHEMES = frozenset({b"bearer", b"basic", b"token", b"digest", b"negotiate", b"apikey", b"local"})
_BETWEEN = re.compile(rb"[\s,;=:\"']+")
_PARAMETER = re.compile(rb"([A-Za-z][A-Za-z0-9_.\-\[\]]*)=([^&;#?\s]*)")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{8,}={0,2}")
_URL_SAFE = str.maketrans("-_", "+/")


class RequestSecrets:
    """The secrets of one request. Falsy when there are none. Never printed.

    They are worked out only when a text is long enough to hold one.
    """

    __slots__ = ("_raw", "_secrets", "_shortest")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], query: bytes) -> None:
        raw = [(name, value) for name, value in headers if _is_secret_name(name)]
        self._raw = [value for name, value in raw if name != _COOKIE]
        if query:
            self._raw += _parameters(query)
        self._raw += [value for name, value in raw if name == _COOKIE]  # last: most of it is no key
        self._secrets: tuple[bytes, ...] | None = None
        self._shortest = min(map(_least_length, self._raw), default=1 << 62)

    def __bool__(self) -> bool:
        return bool(self._raw)

    def clean(self, text: str, *, separator: str) -> str:
        """The text without any secret. What holds one in another form goes up to the separators around."""
        if len(text) < self._shortest:
            return text
        for secret in self._all():
            plain = secret.decode("latin-1")
            if len(plain) <= len(text) and plain.lower() in text.lower():
                text = re.sub(re.escape(plain), REMOVED, text, flags=re.IGNORECASE)
        if not self.is_in(text):
            return text
        words = [REMOVED if self.is_in(word) else word for word in text.split(separator)]
        text = separator.join(words)
        return REMOVED if self.is_in(text) else text

    def is_in(self, text: str) -> bool:
        """Whether a secret is in the text in any form."""
        if len(text) < self._shortest:
            return False
        readings = list(_readings(text))
        return any(
            form in reading
            for secret in self._all()
            for form in _forms(secret, len(text))
            for reading in readings
        )

    def is_part(self, text: str) -> bool:
        """Whether the text is a secret in any form, or a good part of one: for fields of a fixed length."""
        lowered = text.lower()
        return len(text) >= _MIN_PART and (
            self.is_in(text) or any(lowered in form for secret in self._all() for form in _forms(secret))
        )

    def _all(self) -> tuple[bytes, ...]:
        if self._secrets is None:
            # The longest first: one that holds another is taken out whole.
            self._secrets = tuple(sorted(set(islice(_pieces(self._raw), MAX_SECRETS)), key=len, reverse=True))
        return self._secrets


def _least_length(value: bytes) -> int:
    """How long the shortest secret is at least that may be made of a value."""
    match = _PLAIN.fullmatch(value)
    # In base64 it may stand for three quarters of it.
    return MIN_SECRET_BYTES if match is None else max(MIN_SECRET_BYTES, len(match[1]) * 3 // 4 - 1)


def _readings(text: str) -> Iterator[str]:
    """The text in lower case, and what its percent escapes may be read as; once for base64 of URLs."""
    for _ in range(_MAX_DECODINGS + 1):
        lowered = text.lower()
        yield lowered
        if "-" in text or "_" in text:
            yield lowered.translate(_URL_SAFE)
        decoded = unquote(text, encoding="latin-1")
        if decoded == text:
            return
        text = decoded


def _forms(secret: bytes, most: int = 1 << 62) -> Iterator[str]:
    """How a secret may be written, in lower case, as far as it is no longer than `most`."""
    length = len(secret)
    if length <= most:
        yield secret.decode("latin-1").lower()
    if 2 * length <= most:
        yield secret.hex()
    for offset in range(3 if length * 8 // 6 - 1 <= most else 0):
        # Of base64, what depends on the secret alone: not the characters shared with what is around it.
        encoded = b64encode(bytes(offset) + secret).decode().rstrip("=")
        first = -(-offset * 8 // 6)
        last = (offset + len(secret)) * 8 // 6
        core = encoded[first:last].lower()
        if len(core) >= MIN_SECRET_BYTES:
            yield core


def _pieces(raw: Iterable[bytes]) -> Iterator[bytes]:
    """Each value whole, and what it is put together from: after a scheme, in base64, behind a key's id."""
    for value in raw:
        for piece in [value.strip(), *islice(_BETWEEN.split(value), MAX_PIECES)]:
            for secret in (piece, unquote_to_bytes(piece), *_decoded(piece), piece.partition(b".")[2]):
                if len(secret) >= MIN_SECRET_BYTES and secret.lower() not in _SCHEMES:
                    yield secret


def _decoded(piece: bytes) -> Iterator[bytes]:
    """What a piece holds in base64, if it is readable: a user's name and password stand so in `Basic`."""
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
    """The values of parameters whose names say that they are secret; of a URL within a parameter too."""
    found = []
    for _ in range(_MAX_DECODINGS):
        found += [match[2] for match in _PARAMETER.finditer(query) if _is_secret_name(match[1])]
        decoded = unquote_to_bytes(query)
        if decoded == query:
            break
        query = decoded
    return found


@lru_cache(maxsize=512)
def _is_secret_name(name: bytes) -> bool:
    """Whether a field or a parameter of this name holds a secret. Only the letters of a name count."""
    letters = _NOT_A_LETTER.sub(b"", name).lower()
    return letters.removeprefix(b"x") in _SECRET_NAMES or letters.endswith(_SECRET_ENDS)
