from __future__ import annotations

import random
import re
from itertools import permutations
from zlib import crc32

import pytest

from gateway.identity.tokens import BASE62, TOKEN_PATTERN, TokenShape, mint_token, parse_token
from gateway.model.errors import BadNameError, Reason, Refusal

# Written down once and never computed again: tokens that were issued must stay valid.
VECTORS = [
    "cg_live_0000000000000000000000002q7yeb",
    "cg_test_0123456789ABCDEFGHIJabcd1NZcxI",
    "cg_ab_zzzzzzzzzzzzzzzzzzzzzzzz2aqU2W",
    "cg_abcdefgh_Zm9vYmFyYmF6cXV4Zm9vYmFy3DIsGv",
]


@pytest.mark.parametrize("token", VECTORS)
def test_a_token_of_the_format_is_ours(token):
    assert parse_token(token) is TokenShape.OURS


@pytest.mark.parametrize("token", VECTORS)
def test_the_published_pattern_finds_it_in_text(token):
    assert re.findall(TOKEN_PATTERN, f'export KEY="{token}" # and more') == [token]
    assert not re.findall(TOKEN_PATTERN, f"x{token}x")


@pytest.mark.parametrize(
    "text",
    [
        "cg_",
        "cg_live_",
        "cg_live_0000000000000000000000002q7ye",
        "cg_live_0000000000000000000000002q7yeb0",
        "cg_live_0000000000000000000000002q7yeb\n",
        "cg_live_0000000000000000000000002q7yec",
        "cg_LIVE_0000000000000000000000002q7yeb",
        "cg_test_0000000000000000000000002q7yeb",
        "cg_live_00000000000000000000000\uff102q7yeb",
        "cg_l_0000000000000000000000002q7yeb",
        "cg_abcdefghi_0000000000000000000000002q7yeb",
    ],
)
def test_what_claims_to_be_ours_and_is_not_is_mistyped(text):
    with pytest.raises(Refusal) as caught:
        parse_token(text)
    assert caught.value.reason is Reason.MISTYPED_KEY


@pytest.mark.parametrize(
    "text", ["", "abc", "CG_live_x", "sk_live_0123456789", "eyJhbGciOi.x.y", " cg_live_x"]
)
def test_everything_else_is_opaque(text):
    assert parse_token(text) is TokenShape.OPAQUE


def test_a_minted_token_is_ours_and_never_the_same():
    tokens = {mint_token("live") for _ in range(200)}
    assert len(tokens) == 200
    assert all(parse_token(token) is TokenShape.OURS for token in tokens)


def test_every_character_of_the_alphabet_can_come_up():
    seen = set()
    for _ in range(200):
        seen |= set(mint_token("live")[len("cg_live_") : -6])
    assert seen == set(BASE62)


def test_minting_draws_from_the_given_source_and_nothing_else():
    assert mint_token("live", lambda alphabet: alphabet[0]) == VECTORS[0]
    assert mint_token("test", random.Random(7).choice) == mint_token("test", random.Random(7).choice)


@pytest.mark.parametrize("environment", ["", "l", "Live", "abcdefghi", "l1ve", "li_ve", "live\n"])
def test_an_environment_is_two_to_eight_lower_case_letters(environment):
    with pytest.raises(BadNameError):
        mint_token(environment)


def test_a_refusal_does_not_quote_the_token():
    with pytest.raises(Refusal) as caught:
        parse_token("cg_live_secretsecret")
    assert "secretsecret" not in repr(caught.value) + str(caught.value)


def test_no_check_survives_a_swap_across_its_border():
    """The CRC's own guarantee ends where its digits begin; arithmetic covers the border.

    Swapping the last random character with the first check digit changes the CRC by XOR with a constant
    and the digits by a multiple of 62**5. Only digits 0 to 4 can lead a check. Were both changes ever
    the same, the swapped token would pass; for that, the difference must be a signed sum of the XOR's bits.
    """
    for old, new in permutations("01234", 2):
        flipped = crc32(old.encode()) ^ crc32(new.encode())
        difference = (int(old) - int(new)) * 62**5
        cleared, odd = divmod(flipped - difference, 2)
        assert odd or cleared < 0 or cleared & ~flipped
