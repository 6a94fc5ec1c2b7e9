"""One round of percent-decoding, strictly."""

from __future__ import annotations

import pytest

from gateway.model.errors import BadNameError
from gateway.model.escapes import decode_once


def test_an_escape_is_decoded_once_and_no_more():
    assert decode_once(b"a%252Fb") == "a%2Fb"


def test_utf_8_is_decoded():
    assert decode_once(b"%C5%BC+x") == "ż+x"


@pytest.mark.parametrize("raw", [b"%", b"%4", b"%G0", b"a%2", b"%%41"])
def test_a_broken_escape_is_refused(raw):
    with pytest.raises(BadNameError):
        decode_once(raw)


@pytest.mark.parametrize("raw", [b"%C0%AF", b"%ED%A0%80", b"%FF", b"\xff"])
def test_what_is_not_utf_8_is_refused(raw):
    with pytest.raises(BadNameError):
        decode_once(raw)
