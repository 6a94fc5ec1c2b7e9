from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest

from gateway.credential.extract_link import extract_link, link_query, parse_link
from gateway.model.errors import Reason, Refusal
from gateway.model.names import KeyId
from tests import samples

PATH = b"/d/acme/cars/1/-/pkgA1/weights.onnx"
KEY, END, MAC = KeyId("key_0123456789ab"), 1_800_000_000, bytes(range(32))
TEXT = urlsafe_b64encode(MAC).decode().rstrip("=")
QUERY = f"se={END}&sig={KEY}.{TEXT}"


def request(query=QUERY, *headers):
    return samples.wire_request(
        raw_path=PATH,
        query=query.encode(),
        headers=tuple((name.encode(), value.encode()) for name, value in headers),
        client="192.0.2.1",
        route="/d",
    )


def refusal(query=QUERY, *headers):
    with pytest.raises(Refusal) as caught:
        extract_link(request(query, *headers))
    return caught.value.reason


def test_a_link_is_read_as_it_was_written():
    assert link_query(KEY, END, MAC) == QUERY
    link = extract_link(request())
    assert (link.key_id, link.expires_at, link.signed, link.mac) == (KEY, END, PATH, MAC)
    assert link.beside is None


def test_what_is_signed_is_the_raw_path_undecoded():
    assert parse_link(b"/d/a%2Fb/-/p/f", QUERY.encode()).signed == b"/d/a%2Fb/-/p/f"


def test_a_download_without_a_query_has_no_credential():
    assert refusal("") is Reason.NO_CREDENTIAL


@pytest.mark.parametrize(
    "query",
    [
        f"se={END}",
        f"sig={KEY}.{TEXT}",
        f"sig={KEY}.{TEXT}&se={END}",
        f"{QUERY}&",
        f"&{QUERY}",
        f"{QUERY}&x=1",
        f"x=1&{QUERY}",
        f"{QUERY}&{QUERY}",
        f"se={END}&{QUERY}",
        f"{QUERY}&sig={KEY}.{TEXT}",
        QUERY.replace("&", ";"),
        QUERY.replace("se=", "Se="),
        QUERY.replace("se=", "s%65="),
        QUERY.replace(".", "%2E"),
        QUERY.replace(".", ""),
        QUERY + "\n",
        QUERY + "=",
        QUERY + "A",
        QUERY[:-1],
        f"se=0{END}&sig={KEY}.{TEXT}",
        f"se=+{END}&sig={KEY}.{TEXT}",
        f"se=-1&sig={KEY}.{TEXT}",
        f"se={END}.0&sig={KEY}.{TEXT}",
        f"se={10**12}&sig={KEY}.{TEXT}",
        f"se=١٨&sig={KEY}.{TEXT}",
        f"se={END}&sig=.{TEXT}",
        f"se={END}&sig=key_0123456789.{TEXT}",
        f"se={END}&sig=key_0123456789a%62.{TEXT}",
        f"se={END}&sig=admin.{TEXT}",
        f"se={END}&sig={KEY}.{TEXT.replace('-', '+').replace('_', '/')[:-1]}/",
    ],
)
def test_every_other_spelling_is_no_link(query):
    assert refusal(query) is Reason.INVALID_LINK


def test_a_signature_has_one_spelling():
    # 43 characters encode 258 bits; the last two are not part of the signature.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(QUERY[-1])
    for other in range(last + 1, last + 4):
        assert refusal(QUERY[:-1] + alphabet[other]) is Reason.INVALID_LINK


def test_a_key_in_a_header_comes_along():
    link = extract_link(request(QUERY, ("authorization", "Bearer sk-0123456789abcdef")))
    assert link.beside is not None
    assert link.beside.secret == "sk-0123456789abcdef"
    assert "sk-0123" not in repr(link)


def test_the_engines_word_for_no_key_is_none():
    assert extract_link(request(QUERY, ("authorization", "Bearer local"))).beside is None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([("authorization", "Bearer a"), ("x-api-key", "b")], Reason.CONFLICTING_CREDENTIALS),
        ([("authorization", "Basic YTpi")], Reason.UNSUPPORTED_SCHEME),
        ([("x-api-key", "a b")], Reason.MALFORMED_CREDENTIAL),
    ],
)
def test_what_headers_say_beside_a_link_has_to_be_a_key(headers, reason):
    assert refusal(QUERY, *headers) is reason


def test_a_key_in_the_url_is_refused_as_everywhere():
    assert refusal(f"{QUERY}&api_key=sk-0123456789abcdef") is Reason.KEY_IN_QUERY
