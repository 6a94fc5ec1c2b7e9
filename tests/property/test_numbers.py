"""Numbers from outside: one spelling each, ASCII digits, and a bounded number of them.

`int` accepts signs, blanks, underscores and the digits of every script, and refuses thousands of digits with
an error of its own. So every reader of numbers from outside checks their form itself.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.redis_fleet import _parse as parse_worker
from gateway.adapters.redis_marks import counted
from gateway.adapters.redis_url import parse_redis_url
from gateway.configuration.sources import load_settings
from gateway.configuration.values import read_number
from gateway.credential.client import Peer, parse_trusted_networks
from gateway.credential.extract_link import parse_link
from gateway.decision.cases import load_cases
from gateway.delivery.ranges import find_ranges
from gateway.directory.documents.parse import load_tenant_documents
from gateway.directory.reading.key_usage import find_last_uses
from gateway.engine.urls import parse_url
from gateway.faces.content import CATALOGUE, MAX_PAGE
from gateway.identity.hook_signatures import verify_hook
from gateway.identity.times import parse_duration
from gateway.middleware.shape import TOO_LONG, _length
from gateway.model.errors import BadNameError, Misconfigured, Refusal, Unavailable
from gateway.model.names import KeyId

ODD = ["+1", "-1", " 1", "1 ", "1_0", "1.0", "1e2", "0x1", "", "\u0661", "\uff11", "\u00b2", "1\n", "1\0"]
LONG = ["9" * count for count in (20, 400, sys.get_int_max_str_digits() + 1)]


def page(text):
    query = b"limit=" + "".join(f"%{byte:02X}" for byte in text.encode()).encode()
    return CATALOGUE.locate(SimpleNamespace(query=query)).page.limit


def last_use(text):
    class Store:
        async def hash_fields(self, _name, _keys):
            return [text.encode()]

    found = asyncio.run(find_last_uses(Store(), [KeyId("key_000000000000")]))
    if found[KeyId("key_000000000000")] is None:
        raise ValueError("no hint")
    return found[KeyId("key_000000000000")]


def worker(text):
    found = parse_worker(b"w", f"{text}:{text}".encode())
    if found is None:
        raise ValueError("nobody's entry")
    return found.applied


def link(text):
    sig = "key_0123456789ab." + "A" * 43
    return parse_link(b"/d/a/-/p/f", f"se={text}&sig={sig}".encode()).expires_at


def hook(text):
    verify_hook(b"s" * 32, f"t={text},v1={'0' * 64}".encode(), b"", 0.0)


def length(text):
    found = _length(text.encode())
    if found == TOO_LONG:
        raise ValueError("too long")
    return found


def forwarded(text):
    trusted = parse_trusted_networks(["10.0.0.1"])
    headers = [(b"x-forwarded-for", f"192.0.2.1:{text}".encode())]
    if Peer("10.0.0.1", trusted).client(headers) == "10.0.0.1":
        raise ValueError("junk")
    return 1


READERS = {
    "the limit of a page": page,
    "the expiry of a link": link,
    "an announced length": length,
    "the port of a forwarded address": forwarded,
    "the port of a URL": lambda text: parse_url(f"https://x.example:{text}/").port,
    "a setting": read_number(1, 10**8),
    "a duration": lambda text: parse_duration(f"{text}s"),
    "the generation in Redis": lambda text: counted(text.encode()),
    "a worker's entry in Redis": worker,
    "a last use in Redis": last_use,
    "the database of a Redis URL": lambda text: parse_redis_url(f"redis://h/{text or '-'}").db,
}
MEANS_NOTHING = {
    ("the database of a Redis URL", "1\n"),  # line ends in a URL are left out before it is read
    ("the port of a forwarded address", "1 "),  # blanks around the entries of a list
}
REFUSED = (ValueError, Refusal, Misconfigured, Unavailable, BadNameError)


@pytest.mark.parametrize("where", READERS)
@pytest.mark.parametrize("text", ODD + LONG)
def test_what_is_no_plain_number_is_refused(where, text):
    if (where, text) in MEANS_NOTHING:
        return
    with pytest.raises(REFUSED):
        READERS[where](text)


@pytest.mark.parametrize("where", READERS)
def test_a_plain_number_is_read(where):
    assert READERS[where]("1") == 1


@pytest.mark.parametrize("text", ODD + LONG)
def test_the_time_of_a_hook_is_no_other_number(text):
    with pytest.raises(Refusal):
        hook(text)


@given(st.text("0123456789", min_size=1, max_size=30))
def test_a_limit_is_the_number_that_it_looks_like(text):
    try:
        limit = page(text)
    except Refusal:
        assert text.startswith("0") or int(text) > MAX_PAGE
    else:
        assert str(limit) == text
        assert 1 <= limit <= MAX_PAGE


@pytest.mark.parametrize("digits", [64, 65, 640, 4000])
@pytest.mark.parametrize("form", ["{}-", "0-{}", "-{}", "{0}-{0}"])
def test_a_range_of_any_number_of_digits_is_answered(digits, form):
    """However few digits this interpreter reads in one number: the variable of its own may say."""
    former = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        find_ranges([b"bytes=" + form.format("9" * digits).encode()], 1000)
    finally:
        sys.set_int_max_str_digits(former)


HUGE = ["9" * 5000, "0x" + "f" * 5000, "[" * 5000]


@pytest.mark.parametrize("number", HUGE)
def test_a_file_with_a_number_that_nobody_can_read_is_complained_of(tmp_path, number):
    folder = tmp_path / "tenants"
    folder.mkdir()
    document = folder / "acme.toml"
    for key in ("degraded_seconds", "name", "suspended", "nonsense"):
        document.write_text(f'[tenant]\nid = "acme"\n{key} = {number}\n[models]\nown = [{number}]\n')
        with pytest.raises(Misconfigured) as caught:
            load_tenant_documents(folder)
        assert len(str(caught.value)) < 2_000
    cases = tmp_path / "cases"
    cases.mkdir()
    (cases / "cases.toml").write_text(f"[[cases]]\nname = {number}\n")
    with pytest.raises(Misconfigured):
        load_cases(cases)


@pytest.mark.parametrize("number", HUGE)
def test_settings_with_such_a_number_stop_the_start(tmp_path, number):
    path = Path(tmp_path / "cachegate.toml")
    path.write_text(f"near_cache_entries = {number}\n")
    with pytest.raises(Misconfigured):
        load_settings({"CACHEGATE_CONFIG": str(path)})
