"""Links of ours in `/proxy?url=` form, with their signature beside the wrapped URL."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest

from gateway.engine.signed_proxy_urls import parse_asked, wrap_signed
from gateway.engine.urls import parse_url
from gateway.model.errors import Reason, Refusal

GATEWAY = "https://models.example/gw"
PUBLIC = parse_url(GATEWAY)
SIGNATURE = "se=1795173480&sig=key_0123456789ab.aGVsbG8-_"
PLAIN = f"{GATEWAY}/d/acme%2Fcars/1/-/pkgA1/weights.onnx"
LINK = f"{PLAIN}?{SIGNATURE}"


def query_of(url):
    return urlsplit(url).query.encode()


def reason_of(raw_query):
    with pytest.raises(Refusal) as refusal:
        parse_asked(raw_query, PUBLIC)
    return refusal.value.reason


def test_a_link_is_wrapped_once_and_its_signature_stays_outside():
    assert wrap_signed(GATEWAY, LINK) == f"{GATEWAY}/proxy?url={quote(PLAIN, safe='')}&{SIGNATURE}"


def test_it_reads_back_as_the_link_that_it_was():
    assert parse_asked(query_of(wrap_signed(GATEWAY, LINK)), PUBLIC).text() == LINK


def test_wrapped_once_more_by_the_engine_it_is_the_same_link():
    again = f"url={quote(wrap_signed(GATEWAY, LINK), safe='')}".encode()
    assert parse_asked(again, PUBLIC).text() == LINK


def test_wrapped_the_engines_own_way_it_is_the_same_link():
    assert parse_asked(f"url={quote(LINK, safe='')}".encode(), PUBLIC).text() == LINK


def test_what_is_left_without_the_signatures_names_is_one_url_for_ever():
    """The engine removes the parameters that it knows as a signature's and sorts the rest."""
    kept = set()
    for expiry in ("1795173480", "1895173480"):
        url = wrap_signed(GATEWAY, f"{PLAIN}?se={expiry}&sig=key_0123456789ab.{expiry}")
        pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
        kept.add(urlencode(sorted(pair for pair in pairs if pair[0] not in {"se", "sig"})))
    assert kept == {urlencode({"url": PLAIN})}


@pytest.mark.parametrize(
    "inner",
    [
        "https://elsewhere.example/d/a/-/p/f",
        "https://models.example/other",
        "https://models.example/gwx/d/a/-/p/f",
        LINK,
        f"{PLAIN}?x=1",
        f"{PLAIN}?",
    ],
)
def test_a_signature_beside_anything_but_a_bare_url_of_ours_is_refused(inner):
    assert reason_of(f"url={quote(inner, safe='')}&{SIGNATURE}".encode()) is Reason.MALFORMED_QUERY


@pytest.mark.parametrize(
    "more",
    [
        "&se=1",
        "&sig=x",
        "&sig=x&se=1",
        "&se=1&sig=x&x=1",
        "&se=1&sig=x&se=1",
        "&se=-1&sig=x",
        "&se=1&sig=",
        "&se=1;sig=x",
        "&se=1&sig=x#",
        "&SE=1&SIG=x",
    ],
)
def test_any_other_form_of_a_signature_is_refused(more):
    assert reason_of(f"url={quote(PLAIN, safe='')}{more}".encode()) is Reason.MALFORMED_QUERY


def test_a_third_wrapping_is_refused():
    twice = f"{GATEWAY}/proxy?url={quote(wrap_signed(GATEWAY, LINK), safe='')}"
    assert reason_of(f"url={quote(twice, safe='')}".encode()) is Reason.MALFORMED_QUERY


def test_what_is_longer_than_a_target_is_not_looked_at():
    assert reason_of(b"url=" + b"a" * 9000 + b"&se=1&sig=x") is Reason.PATH_TOO_LONG


@pytest.mark.parametrize("raw_query", [b"", b"url=", b"url=%zz", b"url=%FF", b"\xff", b"se=1&sig=x", b"x=1"])
def test_what_is_none_of_it_is_refused(raw_query):
    assert reason_of(raw_query) is Reason.MALFORMED_QUERY
