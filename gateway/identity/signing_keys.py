"""The keys that sign our access tokens: files, the same on every node, and which of them signs.

    <state>/signing/tokens/t1.pem      an Ed25519 key in PEM, 0600; a later one has a higher number

A key's `kid` is its thumbprint (RFC 7638): two nodes whose files differ have keys with different names, and
notice. Redis holds no key. It holds a note for each kid that was chosen to sign, with the time: the last one
signs, each before it is retired from the time of the next.

    waiting    there is no note: it is published and verifies, so that every worker knows it before it signs
    signing    the last note
    retired    it verifies until the last token that it signed has ended
    ended      nothing

A node that does not hold the signing key signs nothing with an older one: tokens would be signed with a key
whose time is counted already.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.identity.json_web_tokens import EDDSA, TrustedKey, public_jwk
from gateway.identity.private_file import load_private, write_once
from gateway.model.access_claims import MAX_TOKEN_SECONDS
from gateway.model.errors import Misconfigured
from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

RETIRED_SECONDS = MAX_TOKEN_SECONDS + 120.0
"""How long a retired key verifies: until its last token has ended, on a clock that is two minutes off."""

NO_SIGNING_KEY = (
    "holds no key that signs access tokens (t1.pem): run `cachegate init` once, or copy the folder from "
    "another node, since every node has to have the same ones"
)

_FILE = re.compile(r"t([1-9][0-9]{0,5})\.pem")


class KeyRole(StrEnum):
    """What a signing key is used for now."""

    WAITING = "waiting"
    SIGNING = "signing"
    RETIRED = "retired"
    ENDED = "ended"


class SigningKey(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One key that signs tokens. Never printed or compared (I8)."""

    number: int
    kid: str
    private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return shown(self, hidden=("private",))


class KeyRing(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The keys as they are used at one time. `signing` is None where this node lacks the key that signs."""

    signing: SigningKey | None
    trusted: Mapping[str, TrustedKey]
    published: bytes  # the JWKS

    def __repr__(self) -> str:
        return shown(self, hidden=("signing",))


def role_of(kid: str, notes: Mapping[str, float], now: float) -> KeyRole:
    """What a key is used for, by the notes of all keys."""
    since = notes.get(kid)
    if since is None:
        return KeyRole.WAITING
    later = [one for one in notes.values() if one > since]
    if not later:
        return KeyRole.SIGNING
    return KeyRole.RETIRED if now < min(later) + RETIRED_SECONDS else KeyRole.ENDED


def arrange(held: Sequence[SigningKey], notes: Mapping[str, float], now: float) -> KeyRing:
    """The ring of these keys, by the notes of which of them signs since when."""
    roles = [(key, role_of(key.kid, notes, now)) for key in held]
    used = [key for key, role in roles if role is not KeyRole.ENDED]
    jwks = {"keys": [public_jwk(key.kid, key.private.public_key()) for key in used]}
    return KeyRing(
        signing=next((key for key, role in roles if role is KeyRole.SIGNING), None),
        trusted=MappingProxyType(
            {
                key.kid: TrustedKey(kid=key.kid, algorithm=EDDSA, public=key.private.public_key())
                for key in used
            }
        ),
        published=msgspec.json.encode(jwks) + b"\n",
    )


def load_signing_keys(folder: Path) -> tuple[SigningKey, ...]:
    """The keys of a folder, oldest first; none where there is no folder. Raises `Misconfigured`."""
    return tuple(_load(folder, number) for number in key_numbers(folder))


def create_token_key(folder: Path) -> SigningKey:
    """Write a new key, with the next number."""
    number = max(key_numbers(folder), default=0) + 1
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_once(key_file(folder, number), pem)
    return SigningKey(number=number, kid=_thumbprint(private), private=private)


def key_numbers(folder: Path) -> list[int]:
    """The numbers of the keys in a folder, in order."""
    try:
        found = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Misconfigured(str(folder), f"cannot be listed: {error.strerror}") from error
    return sorted(int(match[1]) for name in found if (match := _FILE.fullmatch(name)))


def key_file(folder: Path, number: int) -> Path:
    """The file of a key."""
    return folder / f"t{number}.pem"


def _load(folder: Path, number: int) -> SigningKey:
    path = key_file(folder, number)
    try:
        private = load_pem_private_key(load_private(path), password=None)
    except (ValueError, TypeError) as error:
        raise Misconfigured(str(path), "is not a PEM private key without password") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise Misconfigured(str(path), "is not an Ed25519 key")
    return SigningKey(number=number, kid=_thumbprint(private), private=private)


def _thumbprint(private: Ed25519PrivateKey) -> str:
    """The thumbprint of the public key: RFC 7638, 3, with the members of RFC 8037, 2."""
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    x = urlsafe_b64encode(raw).rstrip(b"=")
    digest = sha256(b'{"crv":"Ed25519","kty":"OKP","x":"%b"}' % x).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
