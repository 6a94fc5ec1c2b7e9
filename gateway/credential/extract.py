"""Find the one API key of a request, or refuse the request.

A key comes as `Authorization: Bearer <key>` or as `X-API-Key: <key>`, and in no other way. Guards are
bypassed where two parties read one request differently, so nothing here chooses between credentials: a
second, different credential refuses the request, whatever the first one is. A key in the URL refuses it
too, even beside a good header, because logs and proxies keep URLs.

No credential, an empty one, `Bearer` alone and the engine's literal `local` all mean an anonymous caller.
Headers whose names differ only in dashes and underscores are ignored: a CGI-style hop would confuse them,
and they never carry a key of ours.

Non-goals: no decoding, no normalising, no check whether the key is valid.
"""

from __future__ import annotations

import re
from hmac import compare_digest
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from gateway.model.access import Credential
from gateway.model.errors import Reason, Refusal
from gateway.model.queries import split_query

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_CREDENTIAL_BYTES = 4096  # a signed access token with many scopes is about 1 KiB; four times that

KEY_PARAMETERS = frozenset(
    {b"apikey", b"xapikey", b"key", b"token", b"accesstoken", b"xaccesstoken", b"authorization", b"bearer"}
)
"""Names of query parameters that hold a key in some common API; letters only, in lower case."""

KEY_HEADERS = frozenset({b"authorization", b"x-api-key"})

_ANONYMOUS = b"local"  # what the engine sends when it has no key
KEY = re.compile(rb"[\x21-\x2b\x2d-\x7e]{1,%d}" % MAX_CREDENTIAL_BYTES)  # visible ASCII without the comma
_PLAIN = re.compile(b"Bearer (%b)" % KEY.pattern)  # as nearly all clients write it
_SCHEME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: token
_LOWER = bytes(range(256)).lower()
_NOT_A_LETTER = bytes(code for code in range(256) if not bytes([code]).isalpha())


def extract_plain(fields: Mapping[bytes, bytes]) -> Credential | None:
    """What `extract` returns for a request without a query whose one credential is a plain bearer key.

    `fields` are its headers by name, none of which came twice. None for everything else: `extract` decides.
    """
    match = _PLAIN.fullmatch(fields.get(b"authorization", b""))
    if match is None or match[1] == _ANONYMOUS or b"x-api-key" in fields:
        return None
    return Credential(match[1].decode("ascii"))


def extract(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> Credential:
    """The one credential of a request. `headers` are ASGI pairs: lower-case name, raw value.

    Raises `Refusal`: MALFORMED_QUERY for too many fields, then KEY_IN_QUERY, MALFORMED_CREDENTIAL,
    CONFLICTING_CREDENTIALS, UNSUPPORTED_SCHEME and NO_CREDENTIAL, the first of these that applies. All
    headers are read before any of them is raised, so that the work does not depend on which credential
    came first.
    """
    candidates, has_other_scheme, is_malformed = _read(headers)
    if query and names_a_key(query):
        raise Refusal(Reason.KEY_IN_QUERY)
    keys = [candidate for candidate in candidates if candidate and candidate != _ANONYMOUS]
    if is_malformed or not all(map(KEY.fullmatch, keys)):
        raise Refusal(Reason.MALFORMED_CREDENTIAL)
    if keys and (has_other_scheme or not _are_one(keys)):
        raise Refusal(Reason.CONFLICTING_CREDENTIALS)
    if has_other_scheme:
        raise Refusal(Reason.UNSUPPORTED_SCHEME)
    if not keys:
        raise Refusal(Reason.NO_CREDENTIAL)
    return Credential(keys[0].decode("ascii"))


def _read(headers: Iterable[tuple[bytes, bytes]]) -> tuple[list[bytes], bool, bool]:
    """Read the headers: candidates for a key, whether there is another scheme, whether one is malformed."""
    claimed_keys: list[bytes] = []
    has_other_scheme = False
    is_malformed = False
    for name, raw_value in headers:
        if name == b"authorization":
            scheme, _, rest = raw_value.strip(b" \t").partition(b" ")
            if scheme.lower() == b"bearer":
                claimed_keys.append(rest.lstrip(b" "))
            elif _SCHEME.fullmatch(scheme):
                has_other_scheme = True
            elif scheme:
                is_malformed = True
        elif name == b"x-api-key":
            claimed_keys.append(raw_value.strip(b" \t"))
    return claimed_keys, has_other_scheme, is_malformed


def _are_one(keys: list[bytes]) -> bool:
    """Whether all are the same key; each is compared, in constant time."""
    same = True
    for other in keys[1:]:
        same &= compare_digest(keys[0], other)
    return same


def names_a_key(query: bytes) -> bool:
    """Whether a query parameter has the name of a key.

    `;` separates as `&` does, because some servers behind a proxy still treat it so. A parameter
    without `=` counts: its value may have been cut off. Names are decoded once, and only their letters
    count: some framework treats `x-api-key`, `X_API_KEY`, `apiKey[]`, or the `?api_key` of a URL with two
    question marks, as one name.
    """
    for field in split_query(query):
        for parameter in field.split(b";"):
            name = parameter.partition(b"=")[0]
            if b"%" in name:
                name = unquote_to_bytes(name)
            if name.translate(_LOWER, _NOT_A_LETTER) in KEY_PARAMETERS:
                return True
    return False
