"""Which spellings of a path are read at all, and when the server's decoded path is the same."""

from __future__ import annotations

import pytest

from gateway.middleware.in_app.paths import PathTemplate, is_as_served, read_path
from gateway.model.errors import Misconfigured


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"/", "/"),
        (b"/a/b", "/a/b"),
        (b"/a/b/", "/a/b/"),
        (b"/a%20b", "/a b"),
        (b"/%C3%A9", "/é"),
        (b"/a:b@c;d=e", "/a:b@c;d=e"),
        (b"/a%3Fb", "/a?b"),
        (b"/a%25b", "/a%b"),
    ],
)
def test_a_path_with_one_spelling_is_read(raw, text):
    assert read_path(raw) == text


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"a", b"*", b"http://h/a", b"//a", b"/a//b", b"/./a", b"/a/..", b"/a/.", b"/../a"),
        *(b"/%2e%2e/a", b"/%2E", b"/a%2Fb", b"/a%2fb", b"/%61", b"/%5A", b"/%7e", b"/%2D", b"/%30", b"/%5f"),
        *(b"/a%", b"/a%2", b"/a%zz", b"/a\\b", b"/a%5Cb", b"/a%00", b"/a%0a", b"/a%7f", b"/a b", b"/a\x00"),
        *(b"/\xc3\xa9", b"/%ff", b"/%C3", b"/a\n"),
    ],
)
def test_a_path_that_could_be_read_in_two_ways_is_not(raw):
    assert read_path(raw) is None


@pytest.mark.parametrize(
    ("path", "root", "is_same"),
    [
        ("/a", "", True),
        ("/m/a", "/m", True),
        ("/a", "/m", True),
        ("/ma", "/m", False),
        ("/b", "", False),
        ("/m/m/a", "/m", False),
    ],
)
def test_what_the_router_reads_below_its_mount_is_compared(path, root, is_same):
    assert is_as_served({"path": path, "root_path": root}, "/a") is is_same


@pytest.mark.parametrize("template", ["a", "/{model", "/{model:nothing}", "/{a}/{a}", "/{other}"])
def test_a_template_that_is_no_path_or_lacks_a_name_stops_the_start(template):
    if template == "/{model":  # a literal brace is a path without the name
        assert PathTemplate(template).matches(b"/x") is False
    with pytest.raises(Misconfigured):
        PathTemplate(template, "model")
