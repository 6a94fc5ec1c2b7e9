from __future__ import annotations

import hmac
import math

import pytest
from msgspec.structs import replace

from gateway.identity.links import LinkKeys, load_link_keys, sign, verify
from gateway.identity.secret_file import create_secret
from gateway.model.access import SignedLink
from gateway.model.errors import Misconfigured, Reason, Refusal
from gateway.model.names import KeyId

KEYS = LinkKeys(current=b"2" * 32, previous=b"1" * 32)
KEY, PATH, END = KeyId("key_0123456789ab"), b"/d/acme/cars/1/-/pkgA1/weights.onnx", 1_800_000_000


def link_by(keys, **changes):
    mac = sign(keys, key_id=KEY, expires_at=END, signed=PATH)
    return replace(SignedLink(key_id=KEY, expires_at=END, signed=PATH, mac=mac), **changes)


def refusal(link, keys=KEYS, now=END - 1.0):
    with pytest.raises(Refusal) as caught:
        verify(keys, link, now)
    return caught.value.reason, caught.value.key_id


def test_a_link_verifies_until_its_last_moment_and_not_in_it():
    verify(KEYS, link_by(KEYS), math.nextafter(END, 0))
    assert refusal(link_by(KEYS), now=END) == (Reason.EXPIRED_LINK, KEY)


def test_a_clock_that_says_nothing_lets_no_link_in():
    assert refusal(link_by(KEYS), now=math.nan) == (Reason.EXPIRED_LINK, KEY)


def test_the_signature_stays_what_it_is_across_versions():
    signed = b"33:cachegate: signed link, version 1,16:key_0123456789ab,10:1800000000,35:" + PATH + b","
    assert link_by(KEYS).mac == hmac.digest(b"2" * 32, signed, "sha256")


@pytest.mark.parametrize(
    "changes",
    [
        {"key_id": KeyId("key_0123456789ac")},
        {"expires_at": END + 1},
        {"signed": PATH + b"x"},
        {"signed": b"/d/acme%2Fcars/1/-/pkgA1/weights.onnx"},
        {"mac": b""},
        {"mac": b"\0" * 32},
    ],
)
def test_a_link_that_was_changed_is_not_ours_and_names_nobody(changes):
    assert refusal(link_by(KEYS, **changes)) == (Reason.INVALID_LINK, None)
    assert refusal(link_by(KEYS, **changes), now=END + 5.0) == (Reason.INVALID_LINK, None)


@pytest.mark.parametrize("length", [1, 16, 31, 33])
def test_a_signature_of_another_length_is_not_ours(length):
    mac = (link_by(KEYS).mac * 2)[:length]
    assert refusal(link_by(KEYS, mac=mac)) == (Reason.INVALID_LINK, None)


def test_the_newest_key_signs_and_the_older_one_still_verifies():
    old, new = LinkKeys(current=b"1" * 32), LinkKeys(current=b"2" * 32)
    verify(KEYS, link_by(old), END - 1.0)
    verify(new, link_by(KEYS), END - 1.0)
    assert refusal(link_by(old), keys=new) == (Reason.INVALID_LINK, None)


def test_both_keys_are_loaded_from_where_init_and_the_operator_put_them(tmp_path):
    current = create_secret(tmp_path / "links.key")
    assert load_link_keys(tmp_path / "links.key").verifying == (current,)
    previous = create_secret(tmp_path / "links.old.key")
    assert load_link_keys(tmp_path / "links.key").verifying == (current, previous)


def test_a_missing_key_stops_the_start_and_says_what_to_do(tmp_path):
    with pytest.raises(Misconfigured, match="cachegate init"):
        load_link_keys(tmp_path / "links.key")


@pytest.mark.parametrize("secret", [b"", b"1" * 31, b"1" * 33])
def test_a_short_key_is_refused(secret):
    with pytest.raises(Misconfigured):
        LinkKeys(current=secret)
    with pytest.raises(Misconfigured):
        LinkKeys(current=b"1" * 32, previous=secret)


def test_neither_keys_nor_signatures_are_printed():
    shown = f"{KEYS!r} {KEYS} {link_by(KEYS, mac=b'mac of a link')!r}"
    assert "1111" not in shown
    assert "2222" not in shown
    assert "mac of" not in shown
