"""Makes access tokens that are none from `cases/forged_tokens.toml`, and good ones to change.

A `Forge` holds what an attacker may have at most: a way to have anything signed by the real key. Most cases
need that to get as far as the check that they test.
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
import zlib
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CASES: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).parent / "cases" / "forged_tokens.toml").read_text()
)["case"]
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's base point
RAW, RAW_FORMAT = Encoding.Raw, PublicFormat.Raw
LIFE_SECONDS = 900


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True, kw_only=True)
class Forge:
    private: Ed25519PrivateKey
    kid: str
    url: str
    key_id: str
    tenant: str
    now: int
    tenant_record: str | None = None

    def good(self, **claims: str) -> str:
        """A token that is one; `claims` are members as raw JSON."""
        return self.make({"name": "good", "claims": claims})

    def make(self, case: dict[str, Any]) -> str:
        header = {"alg": '"EdDSA"', "kid": '"{kid}"', "typ": '"at+jwt"', **case.get("header", {})}
        claims = {
            "iss": '"{url}"',
            "aud": '"{url}"',
            "sub": f'"{self.tenant}"',
            **({} if self.tenant_record is None else {"tenant_record": f'"{self.tenant_record}"'}),
            "client_id": '"{key_id}"',
            "jti": '"forged"',
            "iat": "{now}",
            "exp": "{end}",
            "scope": '"discover read"',
            **case.get("claims", {}),
        }
        raw_header = case.get("raw_header") or _object(header, case.get("more_header", ""))
        raw_claims = case.get("raw_claims") or _object(claims, case.get("more_claims", ""))
        parts = [self._filled(raw_header).encode(), self._filled(raw_claims).encode()]
        mutate = case.get("mutate")
        if mutate in _CLAIMS:
            parts[1] = _CLAIMS[mutate](parts[1])
        elif mutate == "nest":
            parts[1] = self.good().encode()
        h, c = map(b64, parts)
        raw_signature = self._signature(case.get("signature", "right"), f"{h}.{c}".encode())
        s = b64(raw_signature)
        if mutate == "trailing-bits":
            s = _with_trailing_bits(s)
        if mutate == "standard-alphabet":
            s = b64encode(b"\xff" * 64).decode().rstrip("=")
        return case.get("text", "{h}.{c}.{s}").replace("{h}", h).replace("{c}", c).replace("{s}", s)

    def _filled(self, text: str) -> str:
        raw = self.private.public_key().public_bytes(RAW, RAW_FORMAT)
        values = {
            "kid": self.kid,
            "KID": self.kid.swapcase(),
            "url": self.url,
            "URL": self.url.upper(),
            "beginning": self.url[:-1],
            "key_id": self.key_id,
            "x": b64(raw),
            "other_x": b64(bytes(32)),
            "now": self.now,
            "end": self.now + LIFE_SECONDS,
            "before": self.now - 60,
            "beyond": self.now + LIFE_SECONDS + 1,
            "ahead": self.now + LIFE_SECONDS - 60,  # later than a test session lasts, however slow
            "century": self.now + 100 * 366 * 86_400,
            "digits": "9" * 1000,
            "filling": "x" * 4096,
            "deep": '{"a":' * 200 + "[" * 800 + "]" * 800 + "}" * 200,
        }
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", str(value))
        return text

    def _signature(self, kind: str, signed: bytes) -> bytes:
        public = self.private.public_key()
        raw = public.public_bytes(RAW, RAW_FORMAT)
        right = self.private.sign(signed)
        match kind:
            case "right":
                return right
            case "empty":
                return b""
            case "zeros":
                return bytes(64)
            case "other":
                return Ed25519PrivateKey.generate().sign(signed)
            case "ed448":
                return ed448.Ed448PrivateKey.generate().sign(signed)
            case "of-other-claims":
                return self.private.sign(signed + b"x")
            case "truncated":
                return right[:-1]
            case "extended":
                return right + b"\0"
            case "plus-order":
                s = int.from_bytes(right[32:], "little") + ORDER
                return right[:32] + s.to_bytes(32, "little")
            case "neutral":
                return b"\1" + bytes(63)
            case "ecdsa":
                der = ec.generate_private_key(ec.SECP256R1()).sign(signed, ec.ECDSA(SHA256()))
                return b"".join(one.to_bytes(32, "big") for one in decode_dss_signature(der))
            case "rsa":
                return _RSA.sign(signed, padding.PKCS1v15(), SHA256())
        secrets = {
            "hmac-pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "hmac-der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "hmac-ssh": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            "hmac-raw": raw,
            "hmac-empty": b"",
        }
        return hmac.digest(secrets[kind], signed, hashlib.sha256)


_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)

_CLAIMS = {
    "deflate": zlib.compress,
    "trailing-json": lambda raw: raw + b"{}",
    "utf-16": lambda raw: raw.decode().encode("utf-16"),
    "byte-order-mark": lambda raw: b"\xef\xbb\xbf" + raw,
    "latin-1": lambda raw: raw[:-1] + b',"more":"\xe9"}',
}


def _object(members: dict[str, str], more: str) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items() if value) + more + "}"


def _with_trailing_bits(segment: str) -> str:
    """Another spelling of the same bytes, which lenient decoders take."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spelling = segment[:-1] + alphabet[alphabet.index(segment[-1]) + 1]
    padded = "=" * (-len(segment) % 4)
    assert urlsafe_b64decode(spelling + padded) == urlsafe_b64decode(segment + padded)
    return spelling
