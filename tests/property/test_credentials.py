"""Laws of credentials and tokens, over generated input."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from gateway.credential.client import Peer, parse_trusted_networks
from gateway.credential.extract import extract
from gateway.identity.times import format_duration, parse_duration, parse_moment
from gateway.identity.tokens import PREFIX, TokenShape, mint_token, parse_token
from gateway.model.errors import Reason, Refusal
from gateway.model.moments import when

SYNTAX = {
    Reason.KEY_IN_QUERY,
    Reason.MALFORMED_CREDENTIAL,
    Reason.CONFLICTING_CREDENTIALS,
    Reason.UNSUPPORTED_SCHEME,
    Reason.NO_CREDENTIAL,
}
PROXIES = parse_trusted_networks(["10.0.0.0/8"])

tokens = st.builds(
    lambda environment, seed: mint_token(environment, random.Random(seed).choice),
    st.from_regex(r"[a-z]{2,8}", fullmatch=True),
    st.integers(0, 2**64),
)
values = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"local", b"Bearer", b"Bearer abc", b"bearer abd", b"Basic abc", b"abc", b"a,b"]),
)
names = st.sampled_from([b"authorization", b"x-api-key", b"x_api_key", b"host"])
headers = st.lists(st.tuples(names, values), max_size=6)


def outcome(pairs, query=b""):
    try:
        return extract(pairs, query).secret
    except Refusal as refusal:
        return refusal.reason


class TestExtract:
    @given(headers, st.binary(max_size=60))
    def test_every_request_has_one_visible_credential_or_one_reason_of_syntax(self, pairs, query):
        result = outcome(pairs, query)
        if isinstance(result, Reason):
            assert result in SYNTAX
        else:
            assert result.isascii()
            assert result.isprintable()
            assert not set(result) & {" ", ","}
            assert any(result.encode() in value for _, value in pairs)

    @given(headers, st.randoms(use_true_random=False))
    def test_no_order_of_headers_changes_it(self, pairs, shuffler):
        shuffled = pairs.copy()
        shuffler.shuffle(shuffled)
        assert outcome(shuffled) == outcome(pairs)

    @given(headers)
    def test_saying_it_twice_changes_nothing(self, pairs):
        assert outcome(pairs + pairs) == outcome(pairs)

    @given(tokens, tokens, headers)
    def test_two_keys_are_never_one(self, one, other, pairs):
        result = outcome(
            [(b"x-api-key", one.encode()), *pairs, (b"authorization", b"Bearer " + other.encode())]
        )
        assert result == one == other or result in SYNTAX

    @given(headers, st.binary(max_size=20), st.sampled_from([b"&", b";"]), st.data())
    def test_a_key_in_the_query_is_seen_however_it_is_spelt(self, pairs, before, separator, data):
        name = data.draw(
            st.sampled_from([b"api_key", b"apikey", b"api-key", b"key", b"token", b"access_token"])
        )
        spelt = b"".join(
            data.draw(st.sampled_from([bytes([byte]), bytes([byte]).upper(), b"%%%02x" % byte]))
            for byte in name
        )
        assert outcome(pairs, before + separator + spelt + b"=x") is Reason.KEY_IN_QUERY


class TestClientAddress:
    @given(st.lists(st.binary(max_size=60), max_size=4))
    def test_nothing_that_a_stranger_writes_changes_the_stranger(self, claims):
        pairs = [(b"x-forwarded-for", claim) for claim in claims]
        assert Peer("203.0.113.9", PROXIES).client(pairs) == "203.0.113.9"
        # Nor does it behind a proxy, which appends the address that it saw.
        assert (
            Peer("10.0.0.1", PROXIES).client([*pairs, (b"x-forwarded-for", b"203.0.113.9")]) == "203.0.113.9"
        )


class TestTokens:
    @given(tokens)
    def test_what_is_minted_parses(self, token):
        assert parse_token(token) is TokenShape.OURS

    @given(tokens, st.data())
    def test_a_changed_character_is_always_noticed(self, token, data):
        place = data.draw(st.integers(0, len(token) - 1))
        character = data.draw(
            st.characters(codec="utf-8").filter(lambda character: character != token[place])
        )
        assert is_noticed(token[:place] + character + token[place + 1 :])

    @given(tokens, st.data())
    def test_swapped_neighbours_are_always_noticed(self, token, data):
        place = data.draw(st.integers(0, len(token) - 2))
        swapped = token[:place] + token[place + 1] + token[place] + token[place + 2 :]
        assert swapped == token or is_noticed(swapped)

    @given(tokens, st.integers(0, 40))
    def test_a_cut_token_is_always_noticed(self, token, length):
        assert length >= len(token) or is_noticed(token[:length])

    @given(st.text(max_size=50))
    def test_every_text_is_ours_opaque_or_mistyped(self, text):
        assert is_noticed(text) or parse_token(text) is TokenShape.OURS


def is_noticed(text):
    """Not a token of ours: it fails its check, or it no longer claims to be one."""
    if not text.startswith(PREFIX):
        return parse_token(text) is TokenShape.OPAQUE
    try:
        parse_token(text)
    except Refusal as refusal:
        return refusal.reason is Reason.MISTYPED_KEY
    return False


class TestTimes:
    @given(st.integers(0, 3_153_600_000))
    def test_a_duration_survives_being_shown(self, seconds):
        assert parse_duration(format_duration(seconds)) == seconds

    @given(st.integers(-2_000_000_000, 200_000_000_000))
    def test_a_moment_survives_being_shown(self, moment):
        assert parse_moment(when(moment), 0.0) == moment

    @given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9000, 1, 1)))  # noqa: DTZ001
    def test_a_moment_is_read_as_the_calendar_has_it(self, naive):
        moment = naive.replace(tzinfo=UTC)
        assert parse_moment(moment.isoformat(), 0.0) == moment.timestamp()
