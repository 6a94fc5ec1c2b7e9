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
NO_SECRET = 1 << 62
_MIN_PART = 12  # characters of a secret that are too many to be recorded by themselves

_NOT_A_LETTER = re.compile(rb"[^A-Za-z]+")
_SECRET_NAMES = frozenset(
    {
        *(b"authorization", b"proxyauthorization", b"cookie", b"bearer", b"basic", b"key", b"token"),
        *(b"apikey", b"sig", b"signature", b"secret", b"password", b"passwd", b"pwd", b"auth"),
    }
)
_SECRET_ENDS = (b"apikey", b"token", b"secret", b"password", b"authorization", b"signature", b"credential")
_PLAIN = re.compile(rb"(?:Bearer +)?([0-9A-Za-z_~+/-]{8,})", re.IGNORECASE)  # how nearly all keys come
_PADDING = (b"", b"\0", b"\0\0")
_SCHEMES = frozenset({b"bearer", b"basic", b"token", b"digest", b"negotiate", b"apikey", b"local"})
_BETWEEN = re.compile(rb"[\s,;=:\"']+")
_PARAMETER = re.compile(rb"([A-Za-z][A-Za-z0-9_.\-\[\]]*)=([^&;#?\s]*)")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{8,}={0,2}")
_URL_SAFE = str.maketrans("-_", "+/")


class RequestSecrets:
    """The secrets of one request. Falsy when there are none. Never printed.

    They are worked out only when a text is long enough to hold one.
    """

    __slots__ = ("_plain", "_raw", "_written", "least")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], query: bytes) -> None:
        raw = [value for name, value in headers if _is_secret_name(name)]
        if query:
            raw += _parameters(query)
        self._raw = raw
        self._plain = [_PLAIN.fullmatch(value) for value in raw]
        self._written: tuple[list[str], list[str]] | None = None
        # No form of a secret is shorter than it: what is shorter than all of them holds none.
        self.least = NO_SECRET
        for match in self._plain:
            self.least = min(self.least, MIN_SECRET_BYTES if match is None else len(match[1]))

    def __bool__(self) -> bool:
        return bool(self._raw)

    def may_be_in_runs(self, longest: int) -> bool:
        """Whether one may be where no run of what plain keys are written with is longer than this."""
        return longest >= self.least or None in self._plain

    def clean(self, text: str, *, separator: str) -> str:
        """The text without any secret. What holds one in another form goes up to the separators around."""
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
        """Whether a secret is in the text in any form."""
        if len(text) < self.least:
            return False
        readings = list(_readings(text))
        return any(form in reading for form in self._all()[1] for reading in readings)

    def is_part(self, text: str) -> bool:
        """Whether the text is a secret in any form, or a good part of one: for fields of a fixed length."""
        lowered = text.lower()
        return len(text) >= _MIN_PART and (
            self.is_in(text) or any(lowered in form for form in self._all()[1])
        )

    def _all(self) -> tuple[list[str], list[str]]:
        """The secrets in lower case, the longest first, since one may hold another; and all their forms."""
        if self._written is None:
            secrets = dict.fromkeys(islice(self._pieces(), MAX_SECRETS))
            plain = [secret.decode("latin-1").lower() for secret in secrets]
            forms = [form for secret in secrets for form in _forms(secret)]
            self._written = sorted(plain, key=len, reverse=True), forms
        return self._written

    def _pieces(self) -> Iterator[bytes]:
        """Plain keys first: of a hundred other values, not all may be looked at."""
        for match in self._plain:
            if match is not None and match[1].lower() not in _SCHEMES:
                yield match[1]
        for value, match in zip(self._raw, self._plain, strict=True):
            if match is None:
                yield from _pieces_of(value)


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


def _forms(secret: bytes) -> Iterator[str]:
    """How a secret may be written, in lower case."""
    yield secret.decode("latin-1").lower()
    yield secret.hex()
    length = len(secret)
    for offset in range(3):
        # Of base64, what depends on the secret alone: not the characters shared with what is around it.
        encoded = b64encode(_PADDING[offset] + secret)
        yield encoded[-(-offset * 8 // 6) : (offset + length) * 8 // 6].decode().lower()


def _pieces_of(value: bytes) -> Iterator[bytes]:
    """A value whole, and what it is put together from: after a scheme, in base64, behind a key's id."""
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
