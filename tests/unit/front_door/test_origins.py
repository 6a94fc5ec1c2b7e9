from __future__ import annotations

import pytest

from gateway.front_door.origins import cors_headers, preflight

PAGE = "https://app.example"


def asking(origin=b"https://app.example", method=b"POST", *more):
    return [(b"Origin", origin), (b"Access-Control-Request-Method", method), *more]


def test_a_page_of_the_list_may_call():
    answer = preflight(asking(), [PAGE])
    assert (answer.status, answer.body) == (204, b"")
    headers = dict(answer.headers.pairs)
    assert headers[b"access-control-allow-origin"] == PAGE.encode()
    assert headers[b"access-control-allow-methods"] == b"GET, POST"
    assert b"access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    ("headers", "origins"),
    [
        (asking(), []),
        (asking(b"https://evil.example"), [PAGE]),
        (asking(b"https://app.example.evil.example"), [PAGE]),
        (asking(b"https://APP.example"), [PAGE]),
        (asking(b"http://app.example"), [PAGE]),
        (asking(b"null"), [PAGE]),
        (asking(b"*"), [PAGE]),
        (asking(b"\xff"), [PAGE]),
        (asking(PAGE.encode(), b"DELETE"), [PAGE]),
        (asking(PAGE.encode(), b"POST", (b"origin", b"https://evil.example")), [PAGE]),
        ([(b"origin", PAGE.encode())], [PAGE]),
        ([], [PAGE]),
    ],
)
def test_any_other_is_told_nothing(headers, origins):
    answer = preflight(headers, origins)
    assert answer.status == 204
    assert not [name for name, _ in answer.headers.pairs if name.startswith(b"access-control-")]


def test_other_answers_name_the_page_only_if_it_is_of_the_list():
    assert cors_headers(PAGE.encode(), []) == ()
    assert cors_headers(None, [PAGE]) == ((b"vary", b"origin"),)
    assert cors_headers(b"https://evil.example", [PAGE]) == ((b"vary", b"origin"),)
    assert (b"access-control-allow-origin", PAGE.encode()) in cors_headers(PAGE.encode(), [PAGE])
