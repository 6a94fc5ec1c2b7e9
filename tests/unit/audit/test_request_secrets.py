"""No recorded text of a request contains its secrets, in whatever form they are written there."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.audit import request_secrets
from gateway.audit.request_secrets import MAX_PIECES, REMOVED, RequestSecrets
from gateway.audit.scrub import clean_agent, clean_digits, clean_name

KEY = "R0bKeyOf20Characters"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-~"


def escaped(text):
    """Every character percent-encoded: unusual, but every server decodes it."""
    return "".join(f"%{ord(one):02x}" for one in text)


FORMS = {
    "plain": lambda key: key,
    "upper": str.upper,
    "lower": str.lower,
    "escaped": escaped,
    "escaped twice": lambda key: quote(escaped(key)),
    "escaped in part": lambda key: escaped(key[:3]) + key[3:],
    "base64": lambda key: b64encode(key.encode()).decode(),
    "base64 of urls": lambda key: urlsafe_b64encode(key.encode()).decode(),
    "basic, as the user": lambda key: b64encode(f"{key}:".encode()).decode(),
    "basic, as the password": lambda key: b64encode(f"a user:{key}".encode()).decode(),
    "base64, shifted by one": lambda key: b64encode(f"x{key}yz".encode()).decode(),
    "base64, shifted by two": lambda key: b64encode(f"xy{key}z".encode()).decode(),
    "escaped base64": lambda key: quote(b64encode(key.encode()).decode(), safe=""),
    "hex": lambda key: key.encode().hex(),
    "upper hex": lambda key: key.encode().hex().upper(),
}

CHANNELS = {
    "bearer": lambda key: (((b"authorization", b"Bearer " + key),), b""),
    "bearer twice": lambda key: (((b"authorization", b"Bearer other-key"), (b"authorization", key)), b""),
    "x-api-key": lambda key: (((b"x-api-key", key),), b""),
    "look-alike": lambda key: (((b"x_api_key", key),), b""),
    "basic": lambda key: (((b"authorization", b"Basic " + b64encode(b"user:" + key)),), b""),
    "basic user": lambda key: (((b"authorization", b"Basic " + b64encode(key + b":")),), b""),
    "proxy": lambda key: (((b"proxy-authorization", b"Bearer " + key),), b""),
    "scheme of nobody": lambda key: (((b"authorization", b"Token token=" + key),), b""),
    "no scheme": lambda key: (((b"authorization", key),), b""),
    "cookie": lambda key: (((b"cookie", b"a=b; session=" + key),), b""),
    "query": lambda key: ((), b"limit=3&api_key=" + key),
    "escaped query": lambda key: ((), b"%61pi%5fkey=" + escaped(key.decode()).encode()),
    "query of a url": lambda key: ((), b"url=" + quote(b"https://x/y?a=b&api_key=" + key, safe="").encode()),
    "signature": lambda key: ((), b"se=17&sig=key_0123456789ab." + key),
    "target of nginx": lambda key: (((b"x-original-uri", b"/d/a?se=1&sig=key_0123456789ab." + key),), b""),
    "target of traefik": lambda key: (((b"x-forwarded-uri", b"/a?api_key=" + key),), b""),
    "link that led here": lambda key: (((b"referer", b"https://x/a?token=" + key),), b""),
    "escaped header": lambda key: (((b"authorization", b"Bearer " + escaped(key.decode()).encode()),), b""),
    "among many": lambda key: (((b"cookie", b"x=abcdefgh; " * 60), (b"x-api-key", key)), b""),
}
PLACES = ("{}", "loader/1.0 ({})", "a {} b", "acme/{}/1", "x-{}", "{}{}", "acme/cars/{}")


@pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_key_is_in_no_agent_and_in_no_name(channel, form):
    secrets = RequestSecrets(*channel(KEY.encode()))
    for place in PLACES:
        text = place.format(form(KEY), form(KEY))
        assert not leaks(clean_agent(text.encode(), secrets), form, KEY), text
        assert not leaks(clean_name(text, secrets), form, KEY), text


def leaks(text, form, key):
    """Whether the form is in the text, or the key in any of its decodings."""
    lowered = text.lower()
    return key.lower() in lowered or form(key).lower().rstrip("=") in lowered


@given(
    key=st.text(LETTERS, min_size=6, max_size=60).filter(lambda key: key.lower() not in REMOVED),
    before=st.text("ab /;(", max_size=40),
    after=st.text("ab /;)", max_size=40),
    form=st.sampled_from(sorted(FORMS)),
    channel=st.sampled_from(sorted(CHANNELS)),
)
@example(key="bearer", before="", after="", form="plain", channel="x-api-key")
def test_no_key_survives_in_any_form_from_any_channel(key, before, after, form, channel):
    secrets = RequestSecrets(*CHANNELS[channel](key.encode()))
    if key.lower() in {"bearer", "digest", "apikey"}:
        return  # names of schemes are not keys
    text = before + FORMS[form](key) + after
    for cleaned in (clean_agent(text.encode(), secrets), clean_name(text, secrets)):
        assert not leaks(cleaned, FORMS[form], key)


@pytest.mark.parametrize("padding", range(900, 1100, 7))
def test_the_bound_on_raw_agents_leaves_no_piece_of_the_requests_key(padding):
    secrets = RequestSecrets(((b"x-api-key", KEY.encode()),), b"")
    cleaned = clean_agent(b"a;" * (padding // 2) + KEY.encode() + b" b" * 100, secrets)
    assert KEY[:6] not in cleaned


@pytest.mark.parametrize("padding", range(150, 230, 3))
def test_the_bound_on_recorded_agents_leaves_no_piece_of_it(padding):
    secrets = RequestSecrets(((b"x-api-key", KEY.encode()),), b"")
    assert KEY[:6] not in clean_agent(b"a " * (padding // 2) + KEY.encode(), secrets)


def test_a_trace_or_a_digest_that_is_the_key_is_not_recorded():
    for key in ("0af7651916cd43dd8448eb211c80319c", "0AF7651916CD43DD8448EB211C80319C", KEY[:16]):
        secrets = RequestSecrets(((b"authorization", b"Bearer " + key.encode()),), b"")
        digits = key.lower() if len(key) == 32 else key.encode().hex()
        assert clean_digits(digits, secrets) is None
    long = RequestSecrets(((b"x-api-key", b"prefix-0af7651916cd43dd8448eb211c80319c-suffix"),), b"")
    assert clean_digits("0af7651916cd43dd8448eb211c80319c", long) is None
    other = RequestSecrets(((b"x-api-key", KEY.encode()),), b"")
    assert clean_digits("0af7651916cd43dd8448eb211c80319c", other) == "0af7651916cd43dd8448eb211c80319c"


def test_what_has_no_secret_in_it_stays_as_it_is():
    secrets = RequestSecrets(((b"authorization", b"Bearer " + KEY.encode()), (b"accept", b"*/*")), b"limit=5")
    for name in ("acme/cars/1", "acme/trucks/2-of-20-characters", "globex/a.b.c/d", "acme/r0bkey"):
        assert clean_name(name, secrets) == name
    agent = b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0"
    assert clean_agent(agent, secrets) == agent.decode()


def test_a_request_without_a_secret_has_none():
    assert not RequestSecrets(((b"user-agent", b"curl"), (b"host", b"x")), b"limit=5&after=acme%2Fcars")


def test_short_values_are_no_secrets():
    secrets = RequestSecrets(((b"authorization", b"Bearer a"), (b"cookie", b"a=1; b=2")), b"key=acme")
    assert clean_name("acme/a/1", secrets) == "acme/a/1"


def test_a_scheme_is_no_secret():
    secrets = RequestSecrets(((b"authorization", b"Negotiate " + KEY.encode()),), b"")
    assert clean_agent(b"negotiate/1.0", secrets) == "negotiate/1.0"


def test_a_key_behind_many_others_in_one_request_is_looked_for_all_the_same():
    pieces = b" ".join(b"piece-%06d" % number for number in range(MAX_PIECES - 2))
    secrets = RequestSecrets(((b"cookie", pieces), (b"authorization", b"Bearer " + KEY.encode())), pieces)
    assert KEY not in clean_name(f"acme/{KEY}", secrets)


def test_the_secrets_are_not_printed():
    secrets = RequestSecrets(((b"x-api-key", KEY.encode()),), b"")
    secrets.is_in("x" * 100)
    assert KEY not in repr(secrets) + str(secrets)


@pytest.mark.parametrize("form", FORMS)
def test_of_a_credential_that_is_too_long_its_beginning_is_removed_too(form):
    secrets = RequestSecrets(((b"authorization", f"Bearer {KEY * 250}".encode()),), b"")
    written = FORMS[form](KEY)
    assert written not in clean_agent(f"loader/1.0 ({written})".encode(), secrets)


def test_no_usual_header_has_the_name_of_a_secret():
    assert not any(map(request_secrets._is_secret_name, request_secrets._USUAL_NAMES))


def test_a_long_word_without_a_value_is_read_once():
    """A form of 16 KiB that is one word took two seconds, in which the worker answered nobody."""
    assert len(request_secrets._PARAMETER.findall(b"a" * 16_384)) == 1


@pytest.mark.parametrize("name", ["token", "1token", ".x-token", "[token]", "a.b_client_secret", "5Ftoken"])
def test_the_value_of_a_parameter_is_found_whatever_its_name_begins_with(name):
    secrets = RequestSecrets((), f"a=b&word&{name}={KEY}&c=".encode())
    assert KEY not in clean_name(f"acme/{KEY}", secrets)


def test_the_value_of_a_parameter_is_found_where_its_sign_is_escaped():
    secrets = RequestSecrets((), f"url%3Ftoken%3D{KEY}".encode())
    assert KEY not in clean_name(f"acme/{KEY}", secrets)
    assert not RequestSecrets((), f"/v1/models/token/{KEY}".encode())  # no parameter at all
