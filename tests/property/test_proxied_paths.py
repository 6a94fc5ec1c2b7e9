"""What servers do to paths, done here: a path that a check accepts is left as it is by all of it."""

from __future__ import annotations

import re
from posixpath import normpath
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.errors import Refusal
from gateway.resource.proxied_paths import verify_read_in_one_way

PIECES = [
    *(b"/", b"//", b".", b"..", b";", b"%2f", b"%2F", b"%2e", b"%5c", b"\\", b"%25", b"%00", b"%3b", b"%61"),
    *(b"a", b"B", b"-", b"~", b"%C3%A9", b"%ff", b"+", b"%20", b" ", b"#", b"%", b"\xe9", b"\n", b":"),
]
paths = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: b"/" + b"".join(pieces))


def decode_what_needs_no_escape(path):
    """RFC 3986, 6.2.2.2: as Traefik and the engine's client do."""

    def decoded(match):
        byte = unquote_to_bytes(match[0])
        return byte if re.fullmatch(rb"[A-Za-z0-9._~-]", byte) else match[0]

    return re.sub(rb"%[0-9A-Fa-f]{2}", decoded, path)


def resolve_what_dots_there_are_once_decoded(path):
    decoded = unquote_to_bytes(path)
    return path if normpath(decoded) == decoded else normpath(decoded)


CHANGES = {
    "merging slashes": lambda path: re.sub(rb"/+", b"/", path),
    "resolving dots": normpath,
    "resolving dots once decoded": resolve_what_dots_there_are_once_decoded,
    "cutting parameters": lambda path: re.sub(rb";[^/]*", b"", path),
    "turning backslashes": lambda path: path.replace(b"\\", b"/"),
    "decoding what needs no escape": decode_what_needs_no_escape,
    "cutting at the end of a path": lambda path: re.split(rb"[?#\s\x00]", path)[0],
}


def is_taken(path):
    try:
        verify_read_in_one_way(path)
    except Refusal:
        return False
    return True


@pytest.mark.parametrize("change", CHANGES)
@given(path=paths)
def test_a_path_that_is_taken_is_changed_by_nobody(change, path):
    if is_taken(path):
        assert CHANGES[change](path) == path


@given(path=paths)
def test_decoding_a_path_that_is_taken_adds_no_character_with_a_meaning(path):
    if is_taken(path):
        decoded = unquote_to_bytes(path)
        assert decoded.count(b"/") == path.count(b"/")
        assert unquote_to_bytes(decoded) == decoded
        assert [one for one in decoded if one < 0x80] == list(re.sub(rb"%..", b"", path))


@given(st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,9}", fullmatch=True), min_size=1, max_size=9))
def test_plain_names_are_always_taken(segments):
    assert is_taken("/".join(["", *segments]).encode())
