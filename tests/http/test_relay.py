"""Files that the cache does not have, streamed from the provider by the guard."""

from __future__ import annotations

import random
import socket
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.identity.links import load_link_keys
from gateway.model_metadata.links import Links

sys.path.append(str(Path(__file__).parent))  # the provider beside us

from weights_provider import PUBLIC_URL, SECRET, Behaviour, site_of, urls_of

SMALL, BIG = b"0123456789" * 100, random.Random(5).randbytes(8 << 20)
HUGE_TEXT = b"\0" * (33 << 20)  # of a name that has no digest
FILES = {
    "small.onnx": SMALL,
    "big.onnx": BIG,
    "empty.onnx": b"",
    "huge.txt": HUGE_TEXT,
    "short.txt": b"labels",
}


@pytest.fixture(scope="module")
def site(new_installation):
    with site_of(new_installation, "relay", RELAY="on") as site:
        site.provider.offer("acme/cars/1", {"pkgR1": FILES})
        yield site


@pytest.fixture
def storage(site):
    """The storage as it is at first, for this test alone."""
    site.provider.storage = Behaviour()
    site.provider.seen.clear()
    yield site.provider.storage
    site.provider.storage = Behaviour()


@pytest.fixture(scope="module")
def links(site):
    key = site.key("acme")
    found = urls_of(site.ask("acme/cars/1", key["token"]))
    return {handle: url for (_, handle), url in found.items()}


def test_every_file_is_ours_and_comes_as_the_provider_has_it(site, storage, links):
    for handle, content in FILES.items():
        assert links[handle].startswith(f"{PUBLIC_URL}/d/acme/cars/1/-/pkgR1/{handle}?se=")
        answer = site.follow(links[handle])
        assert answer.status == 200
        assert answer.header("content-length") == str(len(content))
        assert sha256(answer.body).digest() == sha256(content).digest()


def test_the_provider_is_asked_without_a_key_and_its_own_headers_stay_inside(site, storage, links):
    answer = site.follow(links["small.onnx"], headers=(("X-Custom", "x"), ("User-Agent", "curl")))
    [seen] = site.provider.fetched()
    assert dict(seen.pairs) == {"X-Goog-Signature": SECRET}
    assert not {"authorization", "x-custom", "range", "x-forwarded-for"} & seen.headers.keys()
    names = {name for name, _ in answer.headers}
    assert not {"set-cookie", "x-inner", "server"} & names
    assert answer.header("cache-control") == "private, no-cache"
    assert answer.header("etag") is None


def test_head_tells_the_length_and_fetches_nothing(site, storage, links):
    for handle, content in FILES.items():
        answer = site.follow(links[handle], "HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.header("content-length") == str(len(content)), handle
    assert {one.method for one in site.provider.fetched()} == {"HEAD"}


def test_head_is_answered_though_the_url_is_signed_for_get_alone(site, storage, links):
    storage.refuses_head = True
    for handle, content in FILES.items():
        answer = site.follow(links[handle], "HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.header("content-length") == str(len(content)), handle
        assert answer.header("content-range") is None
        assert (answer.header("accept-ranges") is not None) == (handle in {"small.onnx", "big.onnx"})
    asked = [one.headers["range"] for one in site.provider.fetched() if one.method == "GET"]
    assert set(asked) == {"bytes=0-0"}


def test_a_file_with_a_digest_comes_in_ranges(site, storage, links):
    assert site.follow(links["big.onnx"], "HEAD").header("accept-ranges") == "bytes"
    answer = site.follow(links["big.onnx"], headers=(("Range", "bytes=1000-2999"),))
    assert (answer.status, answer.body) == (206, BIG[1000:3000])
    assert answer.header("content-range") == f"bytes 1000-2999/{len(BIG)}"
    beyond = site.follow(links["small.onnx"], headers=(("Range", f"bytes={len(SMALL)}-"),))
    assert (beyond.status, beyond.header("content-range")) == (416, f"bytes */{len(SMALL)}")


@pytest.mark.parametrize("handle", ["huge.txt", "short.txt"])
def test_a_file_without_a_digest_comes_whole(site, storage, links, handle):
    """The engine would compare the MD5 of what it fetched in ranges with the one that it does not have."""
    assert site.follow(links[handle], "HEAD").header("accept-ranges") is None
    answer = site.follow(links[handle], headers=(("Range", "bytes=0-1"),))
    assert (answer.status, len(answer.body)) == (200, len(FILES[handle]))
    assert answer.header("accept-ranges") is None


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=x-y", "items=0-1", "bytes=-"])
def test_a_range_that_servers_read_differently_is_not_passed_on(site, storage, links, asked):
    answer = site.follow(links["small.onnx"], headers=(("Range", asked),))
    assert (answer.status, answer.body) == (200, SMALL)
    [seen] = site.provider.fetched()
    assert "range" not in seen.headers


def test_the_records_say_that_it_was_relayed(site, storage, links):
    answer = site.follow(links["small.onnx"])
    record = site.record(answer)
    assert (record["decision"], record["principal"], record["action"]) == ("allow", "link", "read")
    assert record["resource"]["file"] == "small.onnx"
    outcome = site.outcome(answer)
    assert (outcome["ending"], outcome["bytes"]) == ("relayed", len(SMALL))


@pytest.mark.parametrize("status", [401, 403, 404, 410, 500, 503, 302])
def test_what_the_storage_refuses_is_undecided(site, storage, links, status):
    storage.status = status
    answer = site.follow(links["small.onnx"])
    assert answer.status == 503
    assert b"it wants it so" not in answer.body


def test_a_redirect_to_another_host_is_not_followed(site, storage, links):
    storage.status, storage.headers = 302, {"Location": "http://127.0.0.1:1/elsewhere"}
    assert site.follow(links["small.onnx"]).status == 503
    assert len(site.provider.fetched()) == 1


def test_a_storage_that_is_silent_is_undecided(site, storage, links):
    site.provider.is_silent = True
    try:
        assert site.follow(links["small.onnx"]).status == 503
    finally:
        site.provider.is_silent = False


def test_what_breaks_off_is_cut_and_looks_like_it(site, storage, links):
    storage.breaks_off_after = 1 << 20
    answer = site.follow(links["big.onnx"])
    assert answer.is_cut
    assert site.outcome(answer)["ending"] == "failed"


def test_a_file_that_has_come_into_the_cache_is_served_from_there(site, storage):
    files = {"pkgL1": {"late.onnx": b"comes late"}}
    site.provider.offer("acme/late/1", files)
    url = urls_of(site.ask("acme/late/1", site.key("acme")["token"]))["pkgL1", "late.onnx"]
    assert site.follow(url).body == b"comes late"
    assert len(site.provider.fetched()) == 1
    site.fill("acme/late/1", files)
    answer = site.follow(url)
    assert answer.body == b"comes late"
    assert answer.header("etag") is not None
    assert len(site.provider.fetched()) == 1


def test_what_the_provider_told_goes_before_another_content_in_the_cache(site, storage):
    """Another file was stored under that name, or the package was created anew."""
    site.fill("acme/spoilt/1", {"pkgS1": {"w.onnx": b"what lies in the cache", "same.onnx": b"as told"}})
    site.provider.offer("acme/spoilt/1", {"pkgS1": {"w.onnx": b"what was told", "same.onnx": b"as told"}})
    urls = urls_of(site.ask("acme/spoilt/1", site.key("acme")["token"]))
    assert site.follow(urls["pkgS1", "w.onnx"]).body == b"what was told"
    assert site.follow(urls["pkgS1", "same.onnx"]).body == b"as told"
    assert [one.path for one in site.provider.fetched()] == ["/files/acme/spoilt/1/pkgS1/w.onnx"]


def test_a_link_serves_what_was_last_told_and_not_what_was_told_before(site, storage, eventually):
    """A new version has come into the cache: the URL of the former one must not outlive it."""
    key = site.key("acme")["token"]

    def link(more):
        answer = site.ask("acme/anew/1", key, more=more)
        return urls_of(answer)["pkgN1", "w.onnx"]

    old, new = {"pkgN1": {"w.onnx": b"version one"}}, {"pkgN1": {"w.onnx": b"version two"}}
    site.provider.offer("acme/anew/1", old)
    assert site.follow(link("")).body == b"version one"
    site.fill("acme/anew/1", new)
    eventually(lambda: site.wire.get("/v1/models/acme/anew/1/-/pkgN1/w.onnx", key).status == 200)
    site.provider.offer("acme/anew/1", new)
    site.provider.files["/files/acme/anew/1/pkgN1/w.onnx"] = b"version one"  # its storage is behind
    site.provider.seen.clear()
    url = link("&n=2")
    assert site.follow(url).body == b"version two"
    assert site.provider.fetched() == []
    # When another content takes its place in the cache, nothing is sent: no metadata answer named it.
    site.fill("acme/anew/1", {"pkgN1": {"w.onnx": b"version three"}})
    eventually(lambda: site.wire.get("/v1/models/acme/anew/1/-/pkgN1/w.onnx", key).body == b"version three")
    answer = site.follow(url)
    assert (answer.status, site.record(answer)["reason"]) == (404, "absent")


def test_what_lies_sealed_already_is_not_written_again(site, storage):
    key = site.key("acme")["token"]
    server = site.installation.redis()

    def written():
        return {name: server.get(name) for name in server.scan_iter(match="{cachegate}:sealed:*", count=1000)}

    states = []
    for _ in range(12):
        site.ask("acme/cars/1", key)
        states.append(tuple(sorted(written().items())))
    # Each worker asks the provider once, whose URL is another each time; what it remembers writes nothing.
    assert len(set(states)) <= len(site.gateway.worker_pids())


def test_a_part_that_was_not_asked_for_is_undecided(site, storage, links):
    storage.shifts_ranges = True
    for asked in ("bytes=500-599", "bytes=500-", "bytes=-100"):
        assert site.follow(links["small.onnx"], headers=(("Range", asked),)).status == 503


def test_another_key_is_not_served_by_what_this_one_was_told(site, storage):
    """The provider's answer is kept for one key: the link of another key does not find it, though valid."""
    keys = load_link_keys(site.installation.state / "signing" / "links.key")
    made = Links(public_url=PUBLIC_URL, keys=keys, link_seconds=600, clock=SystemClock())
    other = site.key("acme")
    url = made.url(other["key_id"], "acme/cars/1", "pkgR1", "small.onnx")
    assert site.follow(url).status == 404
    assert site.provider.fetched() == []


def test_revocation_cuts_a_relay_under_way(site, storage):
    storage.pause_seconds = 1.0  # after each of many pieces: too long to wait for the end
    key = site.key("acme")
    url = urls_of(site.ask("acme/cars/1", key["token"]))["pkgR1", "big.onnx"]
    with site.wire.connect(timeout=60) as connection:
        connection.sendall(f"GET {url.removeprefix(PUBLIC_URL)} HTTP/1.1\r\nHost: gateway\r\n\r\n".encode())
        assert connection.recv(1, socket.MSG_PEEK)  # the transfer has begun
        site.installation.run("keys", "revoke", key["key_id"])
        answer = site.wire.read(connection)
    assert answer.status == 200
    assert answer.is_cut
    assert site.outcome(answer)["ending"] == "revoked"


def test_a_relay_under_way_ends_with_the_time_of_its_key(site, storage):
    storage.pause_seconds = 0.2  # after each piece: it would take half a minute
    key = site.key("acme", lives_seconds=5.0)
    url = urls_of(site.ask("acme/cars/1", key["token"]))["pkgR1", "big.onnx"]
    answer = site.follow(url)
    assert answer.status == 200
    assert answer.is_cut
    assert site.outcome(answer)["ending"] == "expired"


def test_no_signature_of_the_providers_is_anywhere_but_sealed(site, links):
    server = site.installation.redis()
    names = list(server.scan_iter(match="{cachegate}:sealed:*", count=1000))
    assert names
    for name in names:
        assert SECRET.encode() not in server.get(name)
        assert 0 < server.ttl(name) <= 1.5 * (3600 + 60 + 60)
