from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from gateway.credential.extract_link import parse_link
from gateway.identity.links import LinkKeys, verify
from gateway.model.names import FileHandle, KeyId, ModelId, PackageId
from gateway.model_metadata.links import EXPIRY_STEP_SECONDS, Links

KEYS = LinkKeys(current=b"k" * 32)
KEY, OTHER = KeyId("key_0123456789ab"), KeyId("key_0123456789ac")
FILE = (ModelId("acme/cars/1"), PackageId("pkgA1"), FileHandle("labels/names.txt"))
NOW = 1_800_000_001.25


@dataclass
class Clock:
    time: float = NOW

    def now(self):
        return self.time


def links(clock=None, public_url="https://models.example"):
    return Links(public_url=public_url, keys=KEYS, link_seconds=3600, clock=clock or Clock())


@pytest.mark.parametrize("prefix", ["", "/cachegate", "/a/b"])
def test_a_url_leads_to_the_file_below_our_public_path_and_is_signed_without_it(prefix):
    public_url = f"https://models.example{prefix}"
    url = urlsplit(links(public_url=public_url).url(KEY, *FILE))
    path = "/d/acme/cars/1/-/pkgA1/labels/names.txt"
    assert f"{url.scheme}://{url.netloc}{url.path}" == public_url + path
    link = parse_link(path.encode(), url.query.encode())
    assert link.key_id == KEY
    verify(KEYS, link, NOW)


def test_a_link_lives_for_as_long_as_the_setting_says_and_a_minute_more_at_most():
    for later in range(0, 120, 7):
        clock = Clock(NOW + later)
        query = urlsplit(links(clock).url(KEY, *FILE)).query
        lives = parse_link(b"/", query.encode()).expires_at - clock.time
        assert 3600 <= lives < 3600 + EXPIRY_STEP_SECONDS


def test_links_of_one_minute_are_one_and_their_path_never_changes():
    clock = Clock(NOW)
    subject = links(clock)
    first = subject.url(KEY, *FILE)
    clock.time += EXPIRY_STEP_SECONDS - 2
    assert subject.url(KEY, *FILE) == first
    clock.time += 5
    assert subject.url(KEY, *FILE) != first
    assert subject.url(KEY, *FILE).partition("?")[0] == first.partition("?")[0]


def test_two_keys_have_two_links_for_one_file():
    subject = links()
    assert subject.url(KEY, *FILE) != subject.url(OTHER, *FILE)


def test_a_link_that_a_token_got_ends_with_the_token_and_no_later():
    made = links()
    ends_at = made.expires_at()
    assert made.expires_at(ends_at + 500.0) == ends_at
    assert made.expires_at(ends_at - 500.5) == ends_at - 501
