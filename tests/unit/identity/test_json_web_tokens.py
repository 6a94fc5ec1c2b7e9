"""JSON Web Tokens: one form is read, and a key decides which algorithm verifies."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.identity.json_web_tokens import (
    MAX_KEY_SET_KEYS,
    MAX_TOKEN_BYTES,
    Rules,
    TrustedKey,
    parse,
    parse_key_set,
    public_jwk,
    sign,
    verify,
)
from gateway.model.errors import BadNameError, Reason, Refusal

NOW = 1_800_000_000
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
P256 = ec.derive_private_key(7, ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)

KEYS = {
    "ed": TrustedKey(kid="ed", algorithm="EdDSA", public=ED25519.public_key()),
    "ec": TrustedKey(kid="ec", algorithm="ES256", public=P256.public_key()),
    "rsa": TrustedKey(kid="rsa", algorithm="RS256", public=RSA.public_key()),
}
RULES = Rules(
    issuer="https://issuer.example",
    audience="https://cachegate.example",
    algorithms=frozenset({"EdDSA", "ES256", "RS256"}),
    types=frozenset({"at+jwt"}),
    leeway_seconds=30,
    max_lifetime_seconds=900,
)
CLAIMS = {
    "iss": "https://issuer.example",
    "aud": "https://cachegate.example",
    "sub": "acme",
    "jti": "1",
    "iat": NOW,
    "exp": NOW + 600,
    "scope": "read",
}


def encoded(part: object) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: object, claims: object) -> str:
    """A token with a right signature by our Ed25519 key, whatever the two parts are."""
    body = f"{encoded(header)}.{encoded(claims)}"
    return f"{body}.{encoded(ED25519.sign(body.encode()))}"


HEADER = {"alg": "EdDSA", "kid": "ed", "typ": "at+jwt"}


def verified(text: str, *, keys=KEYS, rules=RULES, now: float = NOW + 1):
    return verify(parse(text), keys, rules, now)


def refused(text: str, **how) -> Reason:
    with pytest.raises(Refusal) as caught:
        verified(text, **how)
    assert text not in str(caught.value)
    return caught.value.reason


def with_claims(**changed) -> str:
    claims = {**CLAIMS, **changed}
    return signed(HEADER, {name: value for name, value in claims.items() if value is not None})


def test_what_we_sign_verifies_and_has_all_its_claims():
    claims = verified(sign(CLAIMS, kid="ed", kind="at+jwt", key=ED25519))
    assert (claims.issuer, claims.subject, claims.token_id) == (RULES.issuer, "acme", "1")
    assert (claims.issued_at, claims.expires_at, dict(claims.others)) == (NOW, NOW + 600, {"scope": "read"})


@pytest.mark.parametrize(("kid", "key", "algorithm"), [("ec", P256, "ES256"), ("rsa", RSA, "RS256")])
def test_each_algorithm_that_outside_issuers_use_verifies(kid, key, algorithm):
    text = jwt.encode(CLAIMS, key, algorithm=algorithm, headers={"kid": kid, "typ": "at+jwt"})
    assert verified(text).subject == "acme"


def test_eddsa_and_ed25519_are_two_names_of_one_algorithm():
    assert verified(signed({**HEADER, "alg": "Ed25519"}, CLAIMS)).subject == "acme"
    named = {**public_jwk("ed", ED25519.public_key()), "alg": "Ed25519"}
    keys = parse_key_set(json.dumps({"keys": [named]}).encode())
    assert verified(signed(HEADER, CLAIMS), keys=keys).subject == "acme"


@pytest.mark.parametrize("kid", ["ec", "rsa"])
def test_a_key_verifies_by_its_own_algorithm_alone(kid):
    assert refused(signed({**HEADER, "kid": kid}, CLAIMS)) is Reason.INVALID_TOKEN


def test_an_algorithm_that_the_rules_do_not_name_is_refused():
    rules = Rules(
        **{name: getattr(RULES, name) for name in RULES.__struct_fields__}
        | {"algorithms": frozenset({"RS256"})}
    )
    assert refused(signed(HEADER, CLAIMS), rules=rules) is Reason.INVALID_TOKEN


def test_a_kid_is_looked_up_and_nothing_else():
    assert refused(signed({**HEADER, "kid": "../ed"}, CLAIMS)) is Reason.UNKNOWN_SIGNING_KEY


@pytest.mark.parametrize(
    "aud", [["https://cachegate.example"], ["https://other.example", "https://cachegate.example"]]
)
def test_an_audience_may_be_a_list_that_names_us(aud):
    assert verified(with_claims(aud=aud)).subject == "acme"


def test_a_clock_may_be_ahead_by_the_leeway_and_an_end_is_an_end():
    text = signed(HEADER, CLAIMS)
    assert verified(text, now=NOW - 30).subject == "acme"
    assert refused(text, now=NOW - 31) is Reason.INVALID_TOKEN
    assert verified(text, now=NOW + 599.9).subject == "acme"
    assert refused(text, now=NOW + 600) is Reason.EXPIRED_TOKEN
    assert refused(text, now=float("nan")) is Reason.INVALID_TOKEN


def test_a_type_may_be_left_out_only_where_the_rules_say_so():
    text = signed({"alg": "EdDSA", "kid": "ed"}, CLAIMS)
    assert refused(text) is Reason.INVALID_TOKEN
    rules = Rules(
        **{name: getattr(RULES, name) for name in RULES.__struct_fields__} | {"types": frozenset({""})}
    )
    assert verified(text, rules=rules).subject == "acme"


def test_a_type_is_compared_as_media_types_are():
    assert verified(signed({**HEADER, "typ": "application/AT+JWT"}, CLAIMS)).subject == "acme"


def test_a_token_is_bounded_before_it_is_read():
    text = with_claims(more="x" * MAX_TOKEN_BYTES)
    assert refused(text) is Reason.MALFORMED_TOKEN


def test_deep_nesting_is_refused():
    raw = b'{"a":' * 700 + b"1" + b"}" * 700
    assert refused(f"{encoded(b'[' * 1500)}.{encoded(raw)}.AA") is Reason.MALFORMED_TOKEN


def test_a_printed_token_shows_no_claim_and_no_signature():
    text = signed(HEADER, CLAIMS)
    assert text not in repr(parse(text))
    assert "acme" not in repr(parse(text))


# Keys


def test_a_key_set_is_read_and_keys_of_other_kinds_are_left_out():
    jwks = [
        {**OKPAlgorithm.to_jwk(ED25519.public_key(), as_dict=True), "kid": "ed"},
        {**ECAlgorithm.to_jwk(P256.public_key(), as_dict=True), "kid": "ec", "alg": "ES256"},
        {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "rsa", "use": "sig"},
        {**OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True), "kid": "448"},
        {
            **RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True),
            "kid": "enc",
            "use": "enc",
            "key_ops": ["verify"],
        },
        {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "ps", "alg": "PS256"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "weak"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "short"},
        {"kty": "OKP", "crv": "Ed25519", "kid": "empty"},
    ]
    found = parse_key_set(json.dumps({"keys": jwks}).encode())
    assert {kid: key.algorithm for kid, key in found.items()} == {
        "ed": "EdDSA",
        "ec": "ES256",
        "rsa": "RS256",
    }


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b'{"keys":{}}',
        b'{"keys":[],"keys":[]}',
        b'{"keys":["a"]}',
        json.dumps({"keys": [{}] * (MAX_KEY_SET_KEYS + 1)}).encode(),
        json.dumps({"keys": [public_jwk("a", ED25519.public_key())] * 2}).encode(),
        json.dumps({"keys": [OKPAlgorithm.to_jwk(ED25519, as_dict=True)]}).encode(),
        json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}).encode(),
    ],
)
def test_a_key_set_that_could_be_read_in_two_ways_or_reveals_a_key_is_refused(document):
    with pytest.raises(BadNameError):
        parse_key_set(document)


@pytest.mark.parametrize(
    ("algorithm", "public"),
    [
        ("RS256", ED25519.public_key()),
        ("EdDSA", RSA.public_key()),
        ("ES256", ec.derive_private_key(7, ec.SECP384R1()).public_key()),
        ("HS256", b"secret"),
        ("none", None),
    ],
)
def test_a_key_of_another_kind_than_its_algorithms_is_none(algorithm, public):
    with pytest.raises(BadNameError):
        TrustedKey(kid="a", algorithm=algorithm, public=public)


@pytest.mark.parametrize(
    "changed",
    [{"issuer": ""}, {"audience": ""}, {"types": frozenset()}, {"algorithms": frozenset({"HS256"})}],
)
def test_rules_that_would_let_anything_through_are_none(changed):
    with pytest.raises(BadNameError):
        Rules(**{name: getattr(RULES, name) for name in RULES.__struct_fields__} | changed)
