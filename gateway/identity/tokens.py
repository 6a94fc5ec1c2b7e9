"""Mint and parse our API tokens: `cg_<env>_<24 random><6 check>`, all of it base62 or lower case.

The random part is 24 characters of base62 from a CSPRNG, 142 bits. The check is the CRC-32 of all
characters before it, written as six base62 digits, most significant first. It is no protection against
forgery: it tells a typo from an unknown key before anything is looked up, and lets a secret scanner match
with almost no false alarm.

Text that does not start with `cg_` is opaque: a key of an existing platform. It has no check digits and is
simply looked up.
"""

from __future__ import annotations

import re
import secrets
import string
from enum import StrEnum
from hmac import compare_digest
from typing import TYPE_CHECKING
from zlib import crc32

from gateway.model.errors import BadNameError, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
PREFIX = "cg_"
RANDOM_CHARACTERS = 24
CHECK_CHARACTERS = 6  # 62**6 > 2**32

TOKEN_PATTERN = r"\bcg_[a-z]{2,8}_[0-9A-Za-z]{30}\b"  # noqa: S105 -- the published scan pattern, not a token
"""For secret scanners. A match whose check digits are wrong is not one of our tokens."""

_TOKEN = re.compile(r"cg_[a-z]{2,8}_[0-9A-Za-z]{30}", re.ASCII)
_ENVIRONMENT = re.compile(r"[a-z]{2,8}")


class TokenShape(StrEnum):
    """The form of a credential's text, before it is known whether it is a key."""

    OURS = "ours"
    OPAQUE = "opaque"


def mint_token(environment: str, choose: Callable[[str], str] = secrets.choice) -> str:
    """A new token. `choose` picks one character of an alphabet; only tests pass one that is not random."""
    if not _ENVIRONMENT.fullmatch(environment):
        raise BadNameError(f"{environment!r} is not a key environment: expected [a-z]{{2,8}}, such as live")
    body = f"{PREFIX}{environment}_" + random_base62(RANDOM_CHARACTERS, choose)
    return body + _check_of(body)


def random_base62(count: int, choose: Callable[[str], str] = secrets.choice) -> str:
    """`count` random base62 characters."""
    return "".join(choose(BASE62) for _ in range(count))


def parse_token(text: str) -> TokenShape:
    """Ours or opaque; raises `Refusal(MISTYPED_KEY)` for text with our prefix that cannot be our token."""
    if not text.startswith(PREFIX):
        return TokenShape.OPAQUE
    if not _TOKEN.fullmatch(text) or not compare_digest(
        text[-CHECK_CHARACTERS:], _check_of(text[:-CHECK_CHARACTERS])
    ):
        raise Refusal(Reason.MISTYPED_KEY)
    return TokenShape.OURS


def _check_of(body: str) -> str:
    value = crc32(body.encode("ascii"))
    digits = []
    for _ in range(CHECK_CHARACTERS):
        value, digit = divmod(value, len(BASE62))
        digits.append(BASE62[digit])
    return "".join(reversed(digits))
