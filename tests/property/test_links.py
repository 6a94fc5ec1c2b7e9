"""Laws of signed links: an issued link verifies, and no link that differs from it in any part does."""

from __future__ import annotations

import re
import string

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.credential.extract_link import link_query, parse_link
from gateway.identity.links import LinkKeys, sign, verify
from gateway.model.access import Resource, ResourceKind, SignedLink
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.names import KeyId, parse_file_handle, parse_model_id, parse_package_id
from gateway.resource.paths import download_link, is_download, parse_download

ALPHANUMERIC = string.ascii_letters + string.digits
KEYS = LinkKeys(current=b"k" * 32, previous=b"o" * 32)
SYNTAX = {Reason.NO_CREDENTIAL, Reason.INVALID_LINK}


def _valid(parse, candidates):
    def keep(text):
        try:
            parse(text)
        except BadNameError:
            return False
        return True

    return candidates.filter(keep).map(parse)


key_ids = st.text(ALPHANUMERIC, min_size=12, max_size=12).map(lambda text: KeyId(f"key_{text}"))
expiries = st.integers(1, 10**12 - 1)
paths = st.binary(max_size=60)
model_ids = _valid(
    parse_model_id,
    st.lists(
        st.one_of(
            st.sampled_from(["-", "a", "%2F", "%2D", "v1", "models", "~", "żó", "a b", "...", "-a"]),
            st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=5,
    ).map("/".join),
)
packages = _valid(parse_package_id, st.text(ALPHANUMERIC, min_size=1, max_size=20))
handles = _valid(
    parse_file_handle,
    st.lists(st.text(ALPHANUMERIC + "._-", min_size=1, max_size=8), min_size=1, max_size=3).map("/".join),
)
links = st.builds(
    lambda key_id, expires_at, signed: SignedLink(
        key_id=key_id,
        expires_at=expires_at,
        signed=signed,
        mac=sign(KEYS, key_id=key_id, expires_at=expires_at, signed=signed),
    ),
    key_ids,
    expiries,
    paths,
)


def fault_of(link):
    """Why it is refused, at a time when none has expired; None for a link of ours."""
    try:
        verify(KEYS, link, 0.0)
    except Refusal as refusal:
        return refusal.reason
    return None


def parsed(raw_path, raw_query):
    """The link, or the reason why it is none."""
    try:
        return parse_link(raw_path, raw_query)
    except Refusal as refusal:
        return refusal.reason


class TestSignatures:
    @given(links)
    def test_a_link_verifies_by_the_key_that_signed_it(self, link):
        assert fault_of(link) is None

    @given(links, links)
    def test_a_part_of_one_link_is_no_part_of_another(self, one, other):
        mixed = SignedLink(key_id=other.key_id, expires_at=one.expires_at, signed=other.signed, mac=one.mac)
        assume((mixed.key_id, mixed.signed) != (one.key_id, one.signed))
        assert fault_of(mixed) is Reason.INVALID_LINK

    @given(links, expiries)
    def test_no_other_expiry_verifies(self, link, expires_at):
        assume(expires_at != link.expires_at)
        other = SignedLink(key_id=link.key_id, expires_at=expires_at, signed=link.signed, mac=link.mac)
        assert fault_of(other) is Reason.INVALID_LINK

    @given(links, st.integers(0, 255))
    def test_no_other_signature_verifies(self, link, bit):
        mac = bytearray(link.mac)
        mac[bit // 8] ^= 1 << bit % 8
        other = SignedLink(key_id=link.key_id, expires_at=link.expires_at, signed=link.signed, mac=bytes(mac))
        assert fault_of(other) is Reason.INVALID_LINK


class TestSpelling:
    @given(links)
    def test_a_link_is_read_back_as_it_was_written(self, link):
        query = link_query(link.key_id, link.expires_at, link.mac)
        assert parse_link(link.signed, query.encode()) == link

    @given(links, st.integers(0, 200), st.characters(codec="ascii"))
    def test_a_query_that_differs_in_any_character_is_no_link_of_ours(self, link, at, character):
        query = link_query(link.key_id, link.expires_at, link.mac)
        at %= len(query)
        assume(query[at] != character)
        other = parsed(link.signed, (query[:at] + character + query[at + 1 :]).encode())
        assert other in SYNTAX if isinstance(other, Reason) else fault_of(other) is Reason.INVALID_LINK

    @given(paths, st.one_of(st.binary(max_size=120), st.from_regex(rb"se=[0-9]{1,13}&sig=key_.{1,80}")))
    def test_every_query_is_a_link_or_a_refusal_of_syntax(self, raw_path, raw_query):
        link = parsed(raw_path, raw_query)
        if isinstance(link, Reason):
            assert link in SYNTAX
        else:
            assert link_query(link.key_id, link.expires_at, link.mac).encode() == raw_query


class TestPaths:
    @given(model_ids, packages, handles)
    def test_a_path_is_read_back_to_the_names_it_was_made_of(self, model, package, handle):
        link = download_link(model, package, handle).encode("ascii")
        assert is_download(link)
        named = Resource(kind=ResourceKind.FILE, model=model, package=package, file=handle)
        assert parse_download(link) == named

    @given(model_ids, packages, handles)
    def test_no_escape_is_one_that_a_client_may_take_off(self, model, package, handle):
        assume(model != "-")
        escaped = re.findall("%([0-9A-F]{2})", download_link(model, package, handle))
        assert not {chr(int(one, 16)) for one in escaped} & set(ALPHANUMERIC + "-._~")
