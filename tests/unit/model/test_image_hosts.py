from __future__ import annotations

import pytest

from gateway.model.errors import BadNameError
from gateway.model.image_hosts import image_host, parse_image_host


@pytest.mark.parametrize(
    "text",
    ["images.example.com", "a", "10.0.0.1", "a.example:8443", "http://a.example", "http://a.example:443"],
)
def test_a_host_has_one_spelling(text):
    assert parse_image_host(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "*.example.com", "a.example.", ".a", "a..b", "-a", "a-", "A.example", "https://a.example"),
        *("a.example:443", "http://a.example:80", "a.example:0", "a.example:65536", "a.example:080", "a:"),
        *(
            "a.example/",
            "http://a.example/x",
            "user@a",
            "ftp://a",
            "a b",
            "a\n",
            "\u00e9.example",
            "[::1]",
            "a" * 64,
        ),
        *(".".join(["a" * 60] * 5), "a_b.example", "a%2eb", "a,b"),
    ],
)
def test_what_is_no_host_is_refused(text):
    with pytest.raises(BadNameError):
        parse_image_host(text)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (("https", "A.example", None), "a.example"),
        (("https", "a.example", 443), "a.example"),
        (("https", "a.example", 80), "a.example:80"),
        (("http", "a.example", None), "http://a.example"),
        (("http", "a.example", 443), "http://a.example:443"),
        (("ftp", "a.example", None), "ftp://a.example"),
    ],
)
def test_a_url_names_its_host_in_that_spelling(url, host):
    assert image_host(*url) == host
