"""Parse a JSON body so that nobody can read it in another way.

Guards are bypassed where two parties read one text differently, so what parsers disagree about is refused:
members that occur twice (also written with escapes), NaN and Infinity, numbers too large for a float, other
encodings than UTF-8, a byte order mark, lone surrogates. The time and memory of a body are bounded before it
is parsed, by counting the bytes that begin a container or separate values.

While a body is parsed, it is held three times: its bytes, its text, and the document. In memory a text has
as many bytes for each character as its widest one needs, so one emoji makes the last two four times as large:
nine times the body at worst. Later the document is held beside the bytes that are written anew.

Non-goals: what the members mean.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

from gateway.model.errors import Reason, Refusal

MAX_DEPTH = 32
"""Of containers. The deepest that a handler reads are the embeddings of SAM, with five."""

MAX_CONTAINERS = 50_000
"""Objects and lists, up to 400 bytes each in memory. Embeddings of SAM are 16 641 lists."""

MAX_VALUES = 1_500_000
"""Values in all, at about 40 bytes. Embeddings of SAM are 1 048 576 numbers."""

MAX_MEMBERS = 200_000
"""Colons: members of objects, at about 150 bytes; those in texts count too."""

MAX_NUMBER_CHARACTERS = 64
"""Of a number; no handler reads more than a float. The time for a long one grows with its square."""

# A text that does not end is matched to its end, so that no byte is looked at twice.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_strict_object(body: bytes) -> dict[str, Any]:
    """The one JSON object that a body is. Raises `Refusal(MALFORMED_BODY)`."""
    _verify_bounds(body)
    try:
        document = _STRICT.decode(body.decode())
        if _SURROGATE.search(
            body
        ):  # seldom; a pair of surrogates is a character, a lone one cannot be encoded
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # those of decoding, of parsing, and ours
        raise Refusal(Reason.MALFORMED_BODY) from None
    if not isinstance(document, dict):
        raise Refusal(Reason.MALFORMED_BODY)
    return document


def write_json(document: Any) -> bytes:
    """The one text of a document: every parser reads the same in it, as it holds nothing that was refused."""
    return msgspec.json.encode(document)


def _verify_bounds(body: bytes) -> None:
    """Refuse a body that would take too much, by counts of bytes, which may count more than there is."""
    containers = body.count(b"[") + body.count(b"{")
    if containers > MAX_CONTAINERS or body.count(b":") > MAX_MEMBERS or body.count(b",") > MAX_VALUES:
        raise Refusal(Reason.MALFORMED_BODY)
    if containers <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKEN.finditer(body):
        first = body[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Refusal(Reason.MALFORMED_BODY)
        elif first in b"]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members differ."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    """A float, of a number with a fraction or an exponent."""
    value = float(text) if len(text) <= MAX_NUMBER_CHARACTERS else math.inf
    if not math.isfinite(value):
        raise ValueError("a number is too large, or too long")
    return value


def _bounded(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise ValueError("a number is too long")
    return int(text)


_STRICT = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite, parse_int=_bounded
)
