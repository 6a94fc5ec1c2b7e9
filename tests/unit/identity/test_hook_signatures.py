from __future__ import annotations

import hmac

import pytest

from gateway.identity.hook_signatures import MAX_AGE_SECONDS, verify_hook
from gateway.model.errors import Reason, Refusal

SECRET, BODY, NOW = b"\x01" * 32, b'{"models":[]}', 1_767_225_600


def header_of(body=BODY, *, at=NOW, secret=SECRET):
    mac = hmac.new(secret, b"%d.%b" % (at, body), "sha256").hexdigest()
    return f"t={at},v1={mac}".encode()


def is_taken(header, *, body=BODY, now=NOW):
    reasons = []
    try:
        verify_hook(SECRET, header, body, now)
    except Refusal as refusal:
        reasons.append(refusal.reason)
    assert set(reasons) <= {Reason.BAD_HOOK_SIGNATURE}
    return not reasons


def test_what_was_signed_lately_with_the_key_is_taken():
    assert is_taken(header_of())
    assert is_taken(header_of(b""), body=b"")


@pytest.mark.parametrize("seconds", [-MAX_AGE_SECONDS, MAX_AGE_SECONDS])
def test_it_is_good_for_five_minutes(seconds):
    assert is_taken(header_of(), now=NOW + seconds)
    assert not is_taken(header_of(), now=NOW + seconds * 1.01)


def test_a_broken_clock_takes_nothing():
    assert not is_taken(header_of(), now=float("nan"))


def test_another_body_time_or_key_is_not_taken():
    good = header_of()
    assert not is_taken(good, body=BODY + b" ")
    assert not is_taken(good.replace(b"t=1767225600", b"t=1767225601"))
    assert not is_taken(header_of(secret=b"\x02" * 32))


@pytest.mark.parametrize(
    "spoilt",
    [
        None,
        b"",
        b"v1=" + b"0" * 64,
        header_of().replace(b",", b", "),
        header_of().replace(b"t=", b"T="),
        header_of().replace(b"t=", b"t=0"),
        header_of().upper(),
        header_of() + b",v0=1",
        header_of()[:-1],
        b"t=-1,v1=" + b"0" * 64,
        "t=\u0661,v1=".encode() + b"0" * 64,
    ],
)
def test_a_header_has_one_form(spoilt):
    assert not is_taken(spoilt)
