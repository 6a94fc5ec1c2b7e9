"""Read, verify and sign JSON Web Tokens. This is the only module that imports `jwt`.

    text ─ parse ─▶ UnverifiedToken ─ verify(keys, rules, now) ─▶ VerifiedClaims

`parse` checks the form alone. Nothing in its result may be believed; its `claimed_` fields say which issuer
and which key to try. `verify` believes it, or raises a `Refusal`.

The attacks on such tokens are known, and most of them use what a verifier need not support. So there is one
form, and the rest is refused before a signature is computed:

- The compact form of three segments, each in the one spelling of its bytes: no padding, no other alphabet, no
  set bits behind the last byte. So a token has one text, and no character of it can be changed.
- The header and the claims are JSON objects whose members differ, in UTF-8, without numbers that overflow.
- A key comes from the mapping that the caller holds. `kid` is looked up there and used for nothing else; what
  a token says about where a key is (`jku`, `x5u`), or what it is (`jwk`, `x5c`), is refused.
- The algorithm is a property of the key. That of the header has to be the same: there is no `none`, and a
  public key never becomes the secret of an HMAC.
- Nothing is encrypted, compressed, nested or detached, and no extension is understood (`crit`).
- A token that is bound to another key of its holder (`cnf`) is refused: whoever sends it as a bearer token
  did not prove that they have that key.
- Times are whole seconds. A beginning may lie in the future by as much as two clocks differ
  (`leeway_seconds`); an end is an end.

`EdDSA` and `Ed25519` (RFC 9864) are two names of one algorithm here, because the key says which curve it is.
PyJWT knows only the first, and passes over keys in a set that are named with the second.

Non-goals: who issued a token and what its claims mean; fetching keys; ECDSA's second valid signature, which
says the same about the same claims.
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

MAX_TOKEN_BYTES = 4096  # as a credential in a header; one with many claims is about 2 KiB
MAX_KEY_SET_KEYS = 100  # of an issuer; one that rotates often has five
MIN_RSA_BITS = 2048  # RFC 7518, 3.3
MAX_RSA_BITS = 8192  # to verify with a longer one takes long
MAX_SECONDS = (1 << 53) - 1  # of a time: what every reader of JSON holds exactly

EDDSA, ES256, RS256 = "EdDSA", "ES256", "RS256"
ALGORITHMS = frozenset({EDDSA, ES256, RS256})

REFUSED_HEADERS = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "zip", "cty", "b64", "enc"})

_SAME = {"Ed25519": EDDSA}  # RFC 9864, 2.2
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_SEGMENTS = 3

_JWS = jwt.PyJWS(algorithms=[EDDSA, ES256, RS256])
_JWS.register_algorithm("Ed25519", OKPAlgorithm())


class TrustedKey(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A public key that is held already, with the one algorithm that it verifies."""

    kid: str
    algorithm: str
    public: Any  # a `PublicKey`, of the kind that the algorithm needs

    def __post_init__(self) -> None:
        """Refuse a key of another kind than its algorithm's, and a weak one."""
        if not _fits(self.algorithm, self.public):
            raise BadNameError(f"a key for {self.algorithm} is not of its kind, or too short")


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a token of one issuer has to be."""

    issuer: str
    audience: str
    algorithms: frozenset[str]  # of `ALGORITHMS`
    types: frozenset[str]  # of `typ`, lower case, without `application/`; "" permits a token without one
    leeway_seconds: int  # how far the issuer's clock may be ahead of ours
    max_lifetime_seconds: int  # between issue and end

    def __post_init__(self) -> None:
        """Refuse rules that would let anything through."""
        if not (self.issuer and self.audience and self.algorithms and self.types):
            raise BadNameError("rules for tokens name an issuer, an audience, algorithms and types")
        if not self.algorithms <= ALGORITHMS:
            raise BadNameError(f"expected algorithms among {', '.join(sorted(ALGORITHMS))}")


class UnverifiedToken(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The parts of a token whose form is right. Nothing in it may be believed. Never printed (I8)."""

    claimed_algorithm: str
    claimed_kid: str
    claimed_type: str
    claimed_issuer: str
    unverified_claims: Mapping[str, Any]
    text: str

    def __repr__(self) -> str:
        return shown(self, hidden=("unverified_claims", "text"))


class VerifiedClaims(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What the issuer has signed. `others` are all members that have no field here."""

    issuer: str
    subject: str
    issued_at: int
    expires_at: int
    token_id: str | None
    others: Mapping[str, Any]


def parse(text: str) -> UnverifiedToken:
    """The parts of a token. Raises `Refusal(MALFORMED_TOKEN)` for every other form."""
    segments = text.split(".", _SEGMENTS) if len(text) <= MAX_TOKEN_BYTES else []
    if len(segments) != _SEGMENTS:
        raise Refusal(Reason.MALFORMED_TOKEN)
    try:
        header, claims = (parse_object(_decode(segment)) for segment in segments[:2])
        _decode(segments[2])
    except (ValueError, RecursionError):
        raise Refusal(Reason.MALFORMED_TOKEN) from None  # the error would quote the token
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "")
    issuer = claims.get("iss")
    if not REFUSED_HEADERS.isdisjoint(header) or not (
        isinstance(algorithm, str)
        and isinstance(kid, str)
        and isinstance(kind, str)
        and isinstance(issuer, str)
    ):
        raise Refusal(Reason.MALFORMED_TOKEN)
    return UnverifiedToken(
        claimed_algorithm=_SAME.get(algorithm, algorithm),
        claimed_kid=kid,
        claimed_type=kind.lower().removeprefix("application/"),  # RFC 7515, 4.1.9
        claimed_issuer=issuer,
        unverified_claims=claims,
        text=text,
    )


def verify(
    token: UnverifiedToken, keys: Mapping[str, TrustedKey], rules: Rules, now: float
) -> VerifiedClaims:
    """The claims of a token that one of these keys has signed, for us, and that is valid now.

    Raises `Refusal`: UNKNOWN_SIGNING_KEY, INVALID_TOKEN or EXPIRED_TOKEN. No claim is looked at before the
    signature is found to be right.
    """
    key = keys.get(token.claimed_kid)
    if key is None:
        raise Refusal(Reason.UNKNOWN_SIGNING_KEY)
    if (
        key.algorithm not in rules.algorithms
        or token.claimed_algorithm != key.algorithm
        or token.claimed_type not in rules.types
        or not _is_signed_by(token, key)
    ):
        raise Refusal(Reason.INVALID_TOKEN)
    claims = token.unverified_claims
    if (
        token.claimed_issuer != rules.issuer
        or not _is_for(claims.get("aud"), rules.audience)
        or "cnf" in claims
    ):
        raise Refusal(Reason.INVALID_TOKEN)
    issued_at, ends_at = _verified_times(claims, rules, now)
    subject, token_id = claims.get("sub"), claims.get("jti")
    if not (isinstance(subject, str) and subject) or not (token_id is None or isinstance(token_id, str)):
        raise Refusal(Reason.INVALID_TOKEN)
    return VerifiedClaims(
        issuer=rules.issuer,
        subject=subject,
        issued_at=issued_at,
        expires_at=ends_at,
        token_id=token_id,
        others=MappingProxyType({name: claims[name] for name in claims if name not in _FIELDS}),
    )


_FIELDS = frozenset({"iss", "aud", "sub", "iat", "nbf", "exp", "jti"})


def sign(claims: Mapping[str, Any], *, kid: str, kind: str, key: Ed25519PrivateKey) -> str:
    """A token with these claims, signed by EdDSA."""
    payload = json.dumps(claims, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return _JWS.encode(payload, key, algorithm=EDDSA, headers={"kid": kid, "typ": kind})


def public_jwk(kid: str, public: Ed25519PublicKey) -> dict[str, str]:
    """A public key as a JWK."""
    members = OKPAlgorithm.to_jwk(public, as_dict=True)
    return {"kty": "OKP", "crv": "Ed25519", "x": str(members["x"]), "kid": kid, "alg": EDDSA, "use": "sig"}


def parse_key_set(raw_document: bytes) -> dict[str, TrustedKey]:
    """The keys of a JWKS that can verify tokens here, by `kid`. Raises `BadNameError` for what is none.

    Keys of other kinds and for other uses are left out, as RFC 7517, 5 has it. Two keys with one `kid` are
    refused: which of them is meant would be a guess. So is a private key, which others have by now.
    """
    try:
        listed = parse_object(raw_document).get("keys")
    except (ValueError, RecursionError):
        raise BadNameError("a key set is one JSON object whose members differ") from None
    if not isinstance(listed, list) or len(listed) > MAX_KEY_SET_KEYS:
        raise BadNameError(f"a key set has a list `keys`, of {MAX_KEY_SET_KEYS} at most")
    keys: dict[str, TrustedKey] = {}
    for jwk in listed:
        if not isinstance(jwk, dict):
            raise BadNameError("a key of a set is a JSON object")
        if not _PRIVATE_MEMBERS.isdisjoint(jwk):
            raise BadNameError("a key set holds a private or a symmetric key")
        key = _find_key(jwk)
        if key is None:
            continue
        if key.kid in keys:
            raise BadNameError("two keys of a set have the same kid")
        keys[key.kid] = key
    return keys


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object that these bytes are, in one reading only. Raises `ValueError`, `RecursionError`."""
    document = json.loads(
        raw.decode(), object_pairs_hook=_members, parse_constant=_refuse_constant, parse_float=_finite
    )
    if not isinstance(document, dict):
        raise ValueError("expected an object")  # noqa: TRY004 -- as every other form that is wrong
    if b"\\u" in raw:  # an escape may write half of a surrogate pair, which is no character
        json.dumps(document, ensure_ascii=False).encode()
    return document


def _find_key(jwk: Mapping[str, Any]) -> TrustedKey | None:
    """The key of a JWK, if it is one that verifies tokens here."""
    kid, use, operations = jwk.get("kid"), jwk.get("use", "sig"), jwk.get("key_ops", ["verify"])
    if (
        not isinstance(kid, str)
        or use != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        return None
    public: object
    try:
        match jwk.get("kty"), jwk.get("crv"):
            case "OKP", "Ed25519":
                algorithm, public = EDDSA, OKPAlgorithm.from_jwk(dict(jwk))
            case "EC", "P-256":
                algorithm, public = ES256, ECAlgorithm.from_jwk(dict(jwk))
            case "RSA", None:
                algorithm, public = RS256, RSAAlgorithm.from_jwk(dict(jwk))
            case _:
                return None
        named = jwk.get("alg", algorithm)
        if not isinstance(named, str) or _SAME.get(named, named) != algorithm:
            return None
        return TrustedKey(kid=kid, algorithm=algorithm, public=public)
    except (jwt.PyJWTError, ValueError, TypeError):  # it is a key of no kind, or a weak one
        return None


def _fits(algorithm: str, public: object) -> bool:
    match algorithm:
        case "EdDSA":
            return isinstance(public, Ed25519PublicKey)
        case "ES256":
            return isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1)
        case "RS256":
            return isinstance(public, RSAPublicKey) and MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS
        case _:
            return False


def _is_signed_by(token: UnverifiedToken, key: TrustedKey) -> bool:
    """Whether the signature is right, by the key's own algorithm under either of its names."""
    names = [key.algorithm, *(name for name, same in _SAME.items() if same == key.algorithm)]
    try:
        _JWS.decode_complete(token.text, key.public, algorithms=names)
    except jwt.PyJWTError:
        return False
    return True


def _is_for(audience: object, ours: str) -> bool:
    if isinstance(audience, list):
        return ours in audience and all(isinstance(one, str) for one in audience)
    return audience == ours


def _verified_times(claims: Mapping[str, Any], rules: Rules, now: float) -> tuple[int, int]:
    """When it was issued and when it ends. Raises `Refusal`."""
    issued_at, ends_at = _time(claims.get("iat")), _time(claims.get("exp"))
    begins_at = max(issued_at, _time(claims["nbf"]) if "nbf" in claims else 0)
    if not issued_at < ends_at <= issued_at + rules.max_lifetime_seconds:
        raise Refusal(Reason.INVALID_TOKEN)
    if not begins_at <= now + rules.leeway_seconds:  # written so that NaN refuses
        raise Refusal(Reason.INVALID_TOKEN)
    if not now < ends_at:
        raise Refusal(Reason.EXPIRED_TOKEN)
    return issued_at, ends_at


def _time(value: object) -> int:
    """A time in whole seconds. A bool is an int to Python, and none here."""
    if type(value) is not int or not 0 <= value <= MAX_SECONDS:
        raise Refusal(Reason.INVALID_TOKEN)
    return value


def _decode(segment: str) -> bytes:
    """The bytes of a segment in its one spelling. Raises `ValueError`."""
    if not _SEGMENT.fullmatch(segment):
        raise ValueError("not base64url")
    raw = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if urlsafe_b64encode(raw).rstrip(b"=") != segment.encode():
        raise ValueError("not the one spelling of these bytes")
    return raw


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
