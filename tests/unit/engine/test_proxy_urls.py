"""`/proxy?url=`, as the engine writes it and in forms that an attacker might send."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from gateway.engine.proxy_urls import find_path_below, is_ours, parse_proxied, wrap
from gateway.engine.urls import parse_url
from gateway.model.errors import Reason, Refusal
from gateway.model.limits import MAX_TARGET_BYTES

PUBLIC = parse_url("https://gw.example/cache")


def _reason(raw_query, public_url=PUBLIC):
    with pytest.raises(Refusal) as refusal:
        parse_proxied(raw_query, public_url)
    return refusal.value.reason


def _query(wrapped):
    return wrapped.partition("?")[2].encode()


class TestWhatTheEngineSends:
    """Lines from an access log of the unmodified engine."""

    def test_metadata(self):
        url = parse_proxied(
            b"url=https%3A%2F%2Fapi.roboflow.com%2Fmodels%2Fv1%2Fexternal%2Fweights"
            b"%3FmodelId%3Dacme%252Fcars%252F1"
        )
        assert url.origin == ("https", "api.roboflow.com", 443)
        assert url.path == "/models/v1/external/weights"
        assert url.query == "modelId=acme%2Fcars%2F1"

    def test_a_download(self):
        url = parse_proxied(
            b"url=http%3A%2F%2F127.0.0.1%3A39635%2Fblob%2Feee8749b%3FX-Goog-Expires%3D1795173484"
            b"%26X-Goog-Signature%3D3bbe"
        )
        assert url.origin == ("http", "127.0.0.1", 39635)
        assert url.target == "/blob/eee8749b?X-Goog-Expires=1795173484&X-Goog-Signature=3bbe"

    def test_a_plus_sign_of_the_inner_query_stays_one(self):
        assert parse_proxied(b"url=https%3A%2F%2Fa%2F%3Fx%3Da%2Bb").query == "x=a+b"
        assert parse_proxied(b"url=https%3A%2F%2Fa%2F%3Fx%3Da+b").query == "x=a+b"


def test_wrapping_writes_what_the_engine_writes():
    assert wrap("https://gw.example/cache/", "https://a/b%2F(c)~*!'?x=1&y=ż") == (
        "https://gw.example/cache/proxy?url=https%3A%2F%2Fa%2Fb%252F(c)~*!'%3Fx%3D1%26y%3D%C5%BC"
    )


def test_what_is_wrapped_already_is_left_alone():
    wrapped = wrap("https://gw.example", "https://a/b")
    assert wrap("https://gw.example", wrapped) == wrapped


@pytest.mark.parametrize(
    "raw_query",
    [
        b"",
        b"url",
        b"url=",
        b"URL=https%3A%2F%2Fa%2F",
        b"%75rl=https%3A%2F%2Fa%2F",
        b"u=https%3A%2F%2Fa%2F",
        b"x=1&url=https%3A%2F%2Fa%2F",
        b"url=https%3A%2F%2Fa%2F&url=https%3A%2F%2Fb%2F",
        b"url=https%3A%2F%2Fa%2F&x=1",
        b"url=https%3A%2F%2Fa%2F;x=1",
        b"url=https%3A%2F%2Fa%2F#x",
        b"url=https%3A%2F%2Fa%2F x",
        b"url=https%3A%2F%2Fa%2F%",
        b"url=https%3A%2F%2Fa%2F\xc5\xbc",
        b"url=https%3A%2F%2F%C5%BC%2F",
        b"url=https%3A%2F%2Fa%2F%00",
        b"url=https%3A%2F%2Fa%2F%2500",
        b"url=https%3A%2F%2Fa%2F%0d%0a",
        b"url=https%3A%2F%2Fa%20",
        b"url=https%3A%2F%2Fa%40b%2F",
        b"url=https%3A%2F%2Fa%5C%40b%2F",
        b"url=https%3A%5C%5Ca%2F",
        b"url=%2F%2Fa%2F",
        b"url=file%3A%2F%2F%2Fetc%2Fpasswd",
        b"url=https%253A%252F%252Fa%252F",
        b"url=http%3A%2F%2F0x7f.1%2F",
        b"url=http%3A%2F%2F2130706433%2F",
        b"url=https%3A%2F%2Fa%2F%23x",
        b"url=https%3A%2F%2Fa%2F..%2Fb",
        b"url=https%3A%2F%2Fa%2F%252e%252e%2Fb",
    ],
)
def test_what_is_no_single_url_is_refused(raw_query):
    assert _reason(raw_query) is Reason.MALFORMED_QUERY


def test_an_endless_one_is_refused_unread():
    assert _reason(b"url=" + b"a" * MAX_TARGET_BYTES) is Reason.PATH_TOO_LONG


class TestOurOwn:
    """A gateway at `https://gw.example/cache`."""

    LINK = "https://gw.example/cache/d/acme/-/p/f?se=1&sig=x"

    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ("https://gw.example/cache/d/x", "/d/x"),
            ("https://GW.example:443/cache/d/x?sig=1", "/d/x"),
            ("https://gw.example/cache", "/"),
            ("https://gw.example/cache/", "/"),
        ],
    )
    def test_ours_is_known_by_origin_and_path(self, text, path):
        assert is_ours(parse_url(text), PUBLIC)
        assert find_path_below(parse_url(text), PUBLIC) == path

    @pytest.mark.parametrize(
        "text",
        [
            "http://gw.example/cache/d/x",
            "https://gw.example:8443/cache/d/x",
            "https://gw.example.evil/cache/d/x",
            "https://evil.gw.example/cache/d/x",
            "https://gw.example/cached/d/x",
            "https://gw.example/",
            "https://gw.example/Cache/d/x",
            "https://gw.example/%63ache/d/x",
        ],
    )
    def test_what_only_looks_alike_is_not_ours(self, text):
        assert not is_ours(parse_url(text), PUBLIC)

    def test_a_gateway_at_the_root_has_every_path(self):
        assert find_path_below(parse_url("https://a/b"), parse_url("https://a")) == "/b"
        assert find_path_below(parse_url("https://a/b"), parse_url("https://a/")) == "/b"

    def test_a_link_that_the_engine_wrapped_once_more_is_found(self):
        once = wrap("https://gw.example/cache", self.LINK)
        twice = wrap("https://GW.example/cache", once)
        assert parse_proxied(_query(once), PUBLIC).text() == self.LINK
        assert parse_proxied(_query(twice), PUBLIC).text() == self.LINK

    def test_a_third_wrapping_is_refused(self):
        once = f"https://gw.example/cache/proxy?url={quote(self.LINK, safe='')}"
        twice = f"https://gw.example/cache/proxy?url={quote(once, safe='')}"
        thrice = f"https://gw.example/cache/proxy?url={quote(twice, safe='')}"
        assert _reason(_query(thrice)) is Reason.MALFORMED_QUERY

    def test_a_wrapping_of_somebody_else_is_not_taken_off(self):
        other = wrap("https://other.example", self.LINK)
        assert parse_proxied(_query(wrap("https://gw.example/cache", other)), PUBLIC).text() == other

    @pytest.mark.parametrize("inner", ["", "?", "?x=1", "?url=file%3A%2F%2F%2Fetc%2Fpasswd", "?url=%2Fd%2Fx"])
    def test_an_inner_wrapping_is_read_as_strictly(self, inner):
        outer = f"url={quote(f'https://gw.example/cache/proxy{inner}', safe='')}"
        assert _reason(outer.encode()) is Reason.MALFORMED_QUERY
