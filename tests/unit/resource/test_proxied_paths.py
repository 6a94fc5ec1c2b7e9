from __future__ import annotations

import pytest

from gateway.model.check_prefixes import CheckPrefix
from gateway.model.errors import Reason, Refusal
from gateway.resource.proxied_paths import ProxiedPaths, verify_read_in_one_way


@pytest.mark.parametrize(
    "raw_path",
    [
        b"/v1/models/acme/cars/1/-/pkgA1/weights.onnx",
        b"/v1/blobs/0123456789abcdef0123456789abcdef",
        b"/a.b/.hidden/..c/d../...",
        b"/~user/a_b-c/!$&'()*+,=:@",
        b"/%C3%A9/%e2%82%ac",
    ],
)
def test_a_path_that_no_server_changes_is_taken(raw_path):
    verify_read_in_one_way(raw_path)


@pytest.mark.parametrize(
    "raw_path",
    [
        *(b"", b"/", b"a", b"//", b"/a/", b"/a//b", b"//a", b"*", b"http://host/a"),
        *(b"/.", b"/..", b"/a/.", b"/a/..", b"/a/./b", b"/a/../b", b"/../a"),
        *(b"/%2e", b"/%2E%2e/a", b"/a%2Fb", b"/a%2fb", b"/a%5Cb", b"/a\\b", b"/a%00", b"/a\x00", b"/a%25b"),
        *(b"/a;b", b"/..;/a", b"/a%3Bb", b"/a?b", b"/a%3Fb", b"/a#b", b"/a%23b", b"/a b", b"/a%20b"),
        *(
            b"/%61",
            b"/%2D",
            b"/%",
            b"/%C",
            b"/%CG",
            b"/%7F",
            b"/\xc3\xa9",
            b"/a\r\nb",
            b"/a\n",
            b'/"',
            b"/<a>",
        ),
        *(b"/[a]", b"/a|b", b"/a^b", b"/{a}", b"/a`b"),
    ],
)
def test_a_path_that_some_server_would_change_is_refused(raw_path):
    with pytest.raises(Refusal) as caught:
        verify_read_in_one_way(raw_path)
    assert caught.value.reason is Reason.MALFORMED_PATH


def prefix(of_proxy, of_gateway):
    return CheckPrefix(of_proxy=of_proxy, of_gateway=of_gateway)


@pytest.mark.parametrize(
    ("prefixes", "raw_path", "own"),
    [
        ([], b"/v1/models/a", b"/v1/models/a"),
        ([prefix("/files", "/v1/models")], b"/files/a/b", b"/v1/models/a/b"),
        ([prefix("/files", "/v1/models"), prefix("/x", "/v1/blobs")], b"/x/0f", b"/v1/blobs/0f"),
        ([prefix("/cg", "")], b"/cg/v1/models/a", b"/v1/models/a"),
        ([prefix("", "/v1/models")], b"/a/b", b"/v1/models/a/b"),
    ],
)
def test_what_follows_a_prefix_of_the_proxy_follows_ours(prefixes, raw_path, own):
    assert ProxiedPaths(prefixes).own_path(raw_path) == own


@pytest.mark.parametrize("raw_path", [b"/files", b"/filesx/a", b"/v1/models/a", b"/Files/a", b"/x/files/a"])
def test_what_is_below_no_prefix_is_nothing_of_ours(raw_path):
    with pytest.raises(Refusal) as caught:
        ProxiedPaths([prefix("/files", "/v1/models")]).own_path(raw_path)
    assert caught.value.reason is Reason.NO_ROUTE
