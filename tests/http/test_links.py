"""Signed links over real sockets: each opens one file, while its key may read it, and nothing else.

Links are made here as the metadata answers make them, with the installation's own key.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.identity.links import load_link_keys
from gateway.model_metadata.links import Links

PIECE = 16 << 10
BIG = random.Random(21).randbytes(PIECE) * 64
HUGE = random.Random(22).randbytes(1 << 20) * 48
MODEL, PACKAGE = "acme/linked/1", "pkgL1"
FILES = {"small.bin": b"0123456789", "big.bin": BIG, "huge.bin": HUGE, "large.txt": b"\0" * (32 << 20)}
CARS = ("acme/cars/1", "pkgA1", "weights.onnx")
MAX_SECRET = 16  # characters of a signature that may stand nowhere


@pytest.fixture(scope="module")
def site(build_world):
    """The world once more, with links handed out; tests end keys and grants of their own only."""
    settings = {"PUBLIC_URL": "https://models.example/gateway", "AUDIT_REFUSALS_PER_SECOND": "10000"}
    environment = {f"CACHEGATE_{name}": value for name, value in settings.items()}
    for built in build_world("links", workers=2, **environment):
        model = SampleModel(
            model_id=MODEL, packages={PACKAGE: FILES}, unhashed=frozenset({"large.txt", "small.bin"})
        )
        write_sample_cache(built.installation.cache_root, [model])
        yield Site(built)


class Site:
    """The world, and links to it."""

    def __init__(self, world):
        self.world, self.installation, self.wire = world, world.installation, world.gateway.wire
        self.keys = load_link_keys(self.installation.state / "signing" / "links.key")

    def link(self, key_id, file=CARS, *, ended_ago=None):
        """The target of a link: path and query as a request line has them."""
        seconds, now = 3600, SystemClock().now()
        clock = SimpleNamespace(now=lambda: now if ended_ago is None else now - ended_ago - seconds - 60)
        links = Links(
            public_url="https://models.example/gateway", keys=self.keys, link_seconds=seconds, clock=clock
        )
        url = urlsplit(links.url(key_id, *file))
        return f"{url.path.removeprefix('/gateway')}?{url.query}"

    def link_of(self, caller, file=CARS, **more):
        return self.link(self.world.callers[caller].key_id, file, **more)

    def new_key(self, tenant, *more):
        return self.installation.json("keys", "create", "--tenant", tenant, *more)

    def record(self, answer):
        [record] = [one for one in self.installation.records() if one.get("id") == answer.record_id]
        return record


def plain(answer):
    """What a client can tell two refusals apart by."""
    varying = {"date", "traceparent", "cachegate-record"}
    headers = [one for one in answer.headers if one[0] not in varying]
    return answer.status, headers, answer.body.replace(answer.record_id.encode(), b"")


def test_a_link_opens_its_file_and_the_record_says_whose_link_it_was(site, facts):
    answer = site.wire.get(site.link_of("acme"))
    assert (answer.status, answer.body) == (200, facts.shared)
    assert answer.header("etag") == f'"{sha256(facts.shared).hexdigest()}"'
    record = site.record(answer)
    key_id = site.world.callers["acme"].key_id
    assert (record["principal"], record["key_id"], record["tenant"]) == ("link", key_id, "acme")
    assert record["request"]["route"] == "/d/{model}/-/{package}/{file}"
    shown = " ".join(site.installation.run("explain", "--record", answer.record_id).stdout.split())
    assert f"{key_id} (by a signed link)" in shown


def test_head_has_the_headers_of_get_and_redirects_nobody(site):
    of_get, of_head = (site.wire.request(method, site.link_of("acme")) for method in ("GET", "HEAD"))
    assert of_head.status == 200
    assert of_head.body == b""
    assert plain(of_head)[1] == plain(of_get)[1]


def test_the_engine_fetches_a_file_in_64_pieces_by_one_link(site):
    link = site.link_of("acme", (MODEL, PACKAGE, "big.bin"))
    head = site.wire.head(link)
    assert (head.status, head.header("accept-ranges")) == (200, "bytes")
    barrier = threading.Barrier(64)

    def fetch(number):
        barrier.wait(timeout=30)
        asked = (("Range", f"bytes={number * PIECE}-{(number + 1) * PIECE - 1}"),)
        while (answer := site.wire.get(link, headers=asked)).status == 503:  # a lease ends on a busy machine
            assert answer.header("retry-after") is not None
        return answer

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(fetch, range(64)))
    assert {answer.status for answer in answers} == {206}
    assert b"".join(answer.body for answer in answers) == BIG
    assert len({answer.record_id for answer in answers}) == 64


def test_large_files_without_an_md5_offer_no_ranges(site):
    link = site.link_of("acme", (MODEL, PACKAGE, "large.txt"))
    assert site.wire.head(link).header("accept-ranges") is None
    assert site.wire.get(link, headers=(("Range", "bytes=0-1"),)).status == 200
    small = site.link_of("acme", (MODEL, PACKAGE, "small.bin"))
    assert site.wire.get(small, headers=(("Range", "bytes=2-4"),)).body == b"234"


def test_a_link_opens_what_its_own_key_may_read_and_hides_the_rest(site):
    hidden = site.wire.get(site.link_of("acme", ("globex/cars/1", "pkgG2", "weights.onnx")))
    absent = site.wire.get(site.link_of("acme", ("globex/nothing/1", "pkgG2", "weights.onnx")))
    gone = site.wire.get(site.link_of("acme", (MODEL, PACKAGE, "gone.bin")))
    assert plain(hidden) == plain(absent) == plain(gone)
    assert hidden.status == 404
    assert site.wire.get(site.link_of("globex", ("globex/cars/1", "pkgG2", "weights.onnx"))).status == 200


def test_a_link_of_a_key_that_may_not_read_reads_nothing(site):
    answer = site.wire.get(site.link_of("acme infers only"))
    assert answer.status == 404
    assert site.wire.get(site.link_of("acme reads only")).status == 200


def _flipped(text):
    return text[:-1] + ("A" if text[-1] != "A" else "Q")


CHANGES = {
    "expiry": lambda link: link.replace("se=1", "se=2", 1),
    "key": lambda link: link.replace("sig=key_", "sig=key_0", 1).replace(".", "", 1),
    "signature": _flipped,
    "truncated": lambda link: link[:-1],
    "extended": lambda link: link + "A",
    "no signature": lambda link: link.partition("&")[0],
    "other parameter": lambda link: link + "&x=1",
    "twice": lambda link: f"{link}&{link.partition('?')[2]}",
    "another file": lambda link: link.replace("weights.onnx", "notes.txt"),
    "another package": lambda link: link.replace("pkgA1", "pkgA2"),
    "escaped letter": lambda link: link.replace("acme", "%61cme"),
    "escaped slash": lambda link: link.replace("acme/", "acme%2F"),
    "escaped handle": lambda link: link.replace("weights", "w%65ights"),
    "empty segment": lambda link: link.replace("/d/", "/d//"),
    "dot segment": lambda link: link.replace("/d/", "/d/./"),
    "alias": lambda link: link.replace("acme/cars/1", "acme-cars"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_link_with_any_part_changed_is_no_link(change, site):
    link = site.link_of("acme")
    assert change(link) != link
    answer = site.wire.get(change(link))
    assert plain(answer) == plain(site.wire.get(link.partition("?")[0]))  # as no link at all
    record = site.record(answer)
    assert record["reason"] == "invalid-link"
    assert "key_id" not in record
    assert "claimed_key_id" not in record


def test_the_key_of_another_tenant_cannot_be_put_into_a_link(site):
    mine, other = (site.world.callers[name].key_id for name in ("acme", "globex"))
    swapped = site.link(mine).replace(mine, other)
    assert site.record(site.wire.get(swapped))["reason"] == "invalid-link"


def test_a_download_without_a_link_takes_no_key_instead(site):
    path = site.link_of("acme").partition("?")[0]
    answer = site.wire.get(path, site.world.token("acme"))
    assert answer.status == 401
    assert site.record(answer)["reason"] == "no-credential"


def test_an_expired_link_is_answered_as_a_made_up_one_and_recorded_as_what_it_is(site):
    expired = site.wire.get(site.link_of("acme", ended_ago=1))
    made_up = site.wire.get(_flipped(site.link_of("acme")))
    assert plain(expired) == plain(made_up)
    assert expired.status == 401
    record = site.record(expired)
    assert record["reason"] == "expired-link"
    assert record["claimed_key_id"] == site.world.callers["acme"].key_id


@pytest.mark.parametrize(
    ("caller", "reason"),
    [
        ("acme revoked", "revoked-key"),
        ("acme expired", "expired-key"),
        ("acme not yet", "not-yet-valid"),
        ("acme from outside", "outside-networks"),
        ("acme rotated out", "revoked-key"),
        ("initech", "suspended-tenant"),
    ],
)
def test_a_link_is_refused_for_what_its_key_is_refused_for(caller, reason, site):
    answer = site.wire.get(site.link_of(caller))
    assert answer.status == 401
    assert site.record(answer)["reason"] == reason


def test_a_link_of_a_key_that_never_was_is_refused(site):
    answer = site.wire.get(site.link("key_aaaaaaaaaaaa"))
    assert answer.status == 401
    assert site.record(answer)["reason"] == "unknown-key"


def test_another_key_beside_a_link_is_a_conflict_and_its_own_is_not(site):
    link = site.link_of("acme")
    assert site.wire.get(link, site.world.token("acme")).status == 200
    for name in ("globex", "acme reads only", "unknown", "unknown opaque"):
        answer = site.wire.get(link, site.world.token(name))
        assert answer.status == 400
        assert site.record(answer)["reason"] == "conflicting-credentials"
    assert site.wire.get(link).status == 200


def test_a_revoked_key_takes_its_links_along(site):
    key = site.new_key("acme")
    link = site.link(key["key_id"])
    with site.wire.talk() as talk:
        assert {talk.get(link).status for _ in range(20)} == {200}
        site.installation.run("keys", "revoke", key["key_id"])
        assert {talk.get(link).status for _ in range(20)} == {401}
    assert {site.wire.get(link).status for _ in range(20)} == {401}  # both workers
    assert site.wire.get(site.link_of("acme")).status == 200


def test_a_suspended_tenant_takes_its_links_along_and_gets_them_back(site):
    site.installation.run("tenants", "create", "umbrella")
    site.installation.run("grants", "add", "--tenant", "umbrella", "--models", "acme/cars/*")
    link = site.link(site.new_key("umbrella")["key_id"])
    assert {site.wire.get(link).status for _ in range(10)} == {200}
    site.installation.run("tenants", "suspend", "umbrella")
    assert {site.wire.get(link).status for _ in range(10)} == {401}
    site.installation.run("tenants", "resume", "umbrella")
    assert {site.wire.get(link).status for _ in range(10)} == {200}
    site.installation.run("grants", "remove", "--tenant", "umbrella", "--models", "acme/cars/*")
    assert {site.wire.get(link).status for _ in range(10)} == {404}


@contextmanager
def slow_client(wire, target):
    """A client that has read the beginning of an answer and waits."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.settimeout(20)
    with connection:
        connection.connect((wire.host, wire.port))
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: gateway\r\n\r\n".encode())
        received = bytearray()
        while len(received) < 100_000:
            received += connection.recv(1 << 14)
        yield connection, received


def test_a_download_under_way_is_cut_when_its_key_ends(site, eventually):
    key = site.new_key("acme")
    link = site.link(key["key_id"], (MODEL, PACKAGE, "huge.bin"))
    assert site.wire.head(link).header("accept-ranges") == "bytes"
    with slow_client(site.wire, link) as (connection, received):
        site.installation.run("keys", "revoke", key["key_id"])
        assert received.startswith(b"HTTP/1.1 200")
        with suppress(ConnectionResetError):
            while piece := connection.recv(1 << 20):
                received.extend(piece)
    assert len(received) < len(HUGE)

    def outcomes():
        return [
            one
            for one in site.installation.records()
            if one["kind"] == "outcome" and one.get("key_id") == key["key_id"] and one["ending"] == "revoked"
        ]

    eventually(outcomes)


def test_without_a_lease_links_are_decided_for_those_who_were_granted_it_and_made_up_ones_refused(
    site, eventually
):
    site.installation.run("tenants", "create", "grace")
    site.installation.run("grants", "add", "--tenant", "grace", "--models", "acme/cars/*")
    site.installation.run("tenants", "degraded", "grace", "30s")
    link, of_grace = site.link_of("acme"), site.link(site.new_key("grace")["key_id"])
    for target in (link, of_grace):
        assert {site.wire.get(target).status for _ in range(20)} == {200}  # both workers know it
    pid = int(site.installation.redis().info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: site.wire.get(link).status == 503)
        eventually(lambda: site.wire.get(of_grace).header("cachegate-degraded") == "last-known-good")
        assert site.wire.get(of_grace).status == 200
        assert site.wire.get(_flipped(link)).status == 401
        assert site.wire.get(site.link_of("acme", ended_ago=1)).status == 401
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: site.wire.get(link).status == 200)


def test_nothing_of_a_link_is_kept_anywhere(site):
    links = [site.link_of("acme"), site.link_of("acme", ended_ago=1), _flipped(site.link_of("globex"))]
    for link in links:
        site.wire.get(link)
        site.wire.get(link, site.world.token("hooli"))
    signatures = [link.rpartition(".")[2][:MAX_SECRET].encode() for link in links]
    kept = b"".join(path.read_bytes() for path in site.installation.audit.glob("*.jsonl"))
    kept += site.world.gateway.log().encode()
    with site.installation.redis() as redis:
        for name in redis.scan_iter():
            kept += name + (redis.dump(name) or b"")
    assert all(signature not in kept for signature in signatures)
    assert site.keys.current.hex().encode() not in kept


def test_without_a_public_url_there_are_no_downloads(new_installation):
    installation = new_installation("unlinked")
    gateway = installation.serve()
    try:
        assert gateway.wire.get("/d/acme/cars/1/-/pkgA1/weights.onnx?se=1&sig=x").status == 404
    finally:
        gateway.stop()


def test_a_missing_link_key_stops_the_start_and_init_makes_one(new_installation):
    installation = new_installation("keyless", CACHEGATE_PUBLIC_URL="https://models.example")
    place = installation.state / "signing" / "links.key"
    place.unlink()
    assert "cachegate init" in " ".join(installation.run("serve", "--port", "0", status=2).stderr.split())
    assert installation.json("init")["admin_key"] is None
    assert load_link_keys(place)
