"""A law of access tokens: a token is one text, and no other text is it."""

from __future__ import annotations

import string

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.access_tokens import AccessTokens, TokenOrder
from gateway.identity.signing_keys import SigningKey, arrange
from gateway.model.access import Principal
from gateway.model.errors import Refusal
from gateway.model.facts import KeyKind, Scope
from gateway.model.names import KeyId, TenantId

NOW = 1_800_000_000.0
KEY = SigningKey(number=1, kid="k" * 43, private=Ed25519PrivateKey.from_private_bytes(b"7" * 32))
TOKENS = AccessTokens(issuer="https://gateway.example", seconds=900)
TOKENS.ring = arrange([KEY], {KEY.kid: NOW}, NOW)
CALLER = Principal(
    kind=KeyKind.TENANT,
    key_id=KeyId("key_0123456789ab"),
    key_name="",
    tenant=TenantId("acme"),
    scopes=frozenset({Scope.READ}),
    expires_at=None,
)
TOKEN = TOKENS.sign(TOKENS.grant(CALLER, TokenOrder(), NOW))
ALPHABET = string.ascii_letters + string.digits + "-_"

places = st.integers(0, len(TOKEN) - 1)
characters = st.one_of(st.sampled_from(ALPHABET + ".=+/ \n\0"), st.characters())


def refused(text: str) -> bool:
    try:
        TOKENS.verify(text, NOW + 1)
    except Refusal:
        return True
    return False


def test_the_token_itself_is_accepted():
    assert not refused(TOKEN)


@pytest.mark.parametrize("place", range(len(TOKEN)))
def test_no_character_can_be_changed_to_its_neighbours(place):
    """Each character is one of 64 or a dot; its neighbours differ in the bits that spellings may ignore."""
    here = TOKEN[place]
    near = ALPHABET.find(here)
    others = {ALPHABET[(near + step) % 64] for step in (-16, -4, -2, -1, 1, 2, 4, 16)} | {here.swapcase()}
    for other in others - {here}:
        assert refused(TOKEN[:place] + other + TOKEN[place + 1 :])


@given(place=places, other=characters)
def test_no_character_can_be_changed(place, other):
    changed = TOKEN[:place] + other + TOKEN[place + 1 :]
    assert changed == TOKEN or refused(changed)


@given(place=st.integers(0, len(TOKEN)), more=characters)
def test_nothing_can_be_put_in(place, more):
    assert refused(TOKEN[:place] + more + TOKEN[place:])


@given(place=places, count=st.integers(1, len(TOKEN)))
def test_nothing_can_be_left_out(place, count):
    assert refused(TOKEN[:place] + TOKEN[place + count :])


@given(st.text() | st.text(ALPHABET + "."))
def test_no_other_text_is_a_token(text):
    assert refused(text)
    assert refused("eyJ" + text)
