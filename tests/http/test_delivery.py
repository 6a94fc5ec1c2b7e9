"""Files over real sockets: validators, conditions, ranges, digests, and the engine's way of fetching.

What a request gets of a file that it may read is RFC 9110 and RFC 9530; what it gets of one that it may
not read is the same as for a file that is not there, whatever it asks for (I3).
"""

from __future__ import annotations

import os
import random
import re
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email import message_from_bytes
from email.policy import HTTP
from hashlib import md5, sha256
from types import SimpleNamespace

import pytest

from gateway.adapters.measurement_file import MeasurementFile
from gateway.adapters.sample_cache import SampleModel, sample_directory, write_sample_cache
from gateway.directory.edits import keys as key_operations
from gateway.directory.edits.models import own
from gateway.directory.edits.tenants import create_tenant
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import parse_pattern, parse_tenant_id
from gateway.model.pins import identity_of

MODEL, PACKAGE = "acme/cars/1", "pkgA1"
SMALL = b"0123456789"
MIDDLE = random.Random(11).randbytes(300_000)
PIECE = 512 << 10
BIG = random.Random(12).randbytes(PIECE) * 64  # 64 pieces, each with its own number put in
BIG = b"".join(
    number.to_bytes(4, "big") + BIG[number * PIECE + 4 : (number + 1) * PIECE] for number in range(64)
)
FILES = {
    "small.bin": SMALL,
    "middle.bin": MIDDLE,
    "big.bin": BIG,
    "empty.bin": b"",
    "notes.txt": b"unhashed\n",
}
UNHASHED = frozenset({"notes.txt", "large.txt"})
UNHASHED_LARGE = b"\0" * (32 << 20)


def path_of(handle, model=MODEL):
    return f"/v1/models/{model}/-/{PACKAGE}/{handle}"


def etag_of(content):
    return f'"{sha256(content).hexdigest()}"'


def digest_of(content):
    return f"sha-256=:{b64encode(sha256(content).digest()).decode()}:"


async def _make_tenants(session):
    """Two tenants, each with a key; only the first owns the model."""
    now, tokens = session.clock.now(), {}
    for name in ("acme", "globex"):
        tenant = parse_tenant_id(name)
        order = KeyOrder(now=now, kind=KeyKind.TENANT, tenant=tenant)
        new = issue_key(order, environment="test", peppers=session.peppers)
        tokens[name] = new.token

        async def work(changes, tenant=tenant, new=new, name=name):
            await create_tenant(changes, tenant_id=tenant, name=name, now=now)
            await own(changes, tenant_id=tenant, patterns=[parse_pattern(f"{name}/*")])
            await key_operations.create_key(changes, key=new.key, digest=new.digest)

        await session.perform("site.furnish", work)
    return tokens


def furnish(installation, files):
    model = SampleModel(model_id=MODEL, packages={PACKAGE: files}, unhashed=UNHASHED & files.keys())
    write_sample_cache(installation.cache_root, [model])
    return installation.in_session(_make_tenants)


@pytest.fixture(scope="module")
def site(new_installation):
    """One model with a file of every kind, served."""
    installation = new_installation("delivery")
    tokens = furnish(installation, FILES | {"large.txt": UNHASHED_LARGE})
    gateway = installation.serve(workers=1)
    try:
        yield SimpleNamespace(installation=installation, wire=gateway.wire, gateway=gateway, tokens=tokens)
    finally:
        gateway.stop()
    assert "Traceback" not in gateway.log(), gateway.log()


def ask(site, handle="small.bin", *headers, method="GET", tenant="acme"):
    return site.wire.request(method, path_of(handle), site.tokens[tenant], headers)


def outcome_of(site, answer):
    return site.installation.outcome_of(answer.record_id)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/v1/whoami", "/v1/models", "/v1/models/acme/cars/1"])
def test_what_has_no_validator_is_kept_by_no_cache(path, method, site):
    answer = site.wire.request(method, path, site.tokens["acme"], [("If-None-Match", "*")])
    assert answer.status == 200
    assert answer.header("etag") is None
    assert answer.header("cache-control") == "no-store"


@pytest.mark.parametrize("handle", [*FILES, "large.txt"])
def test_a_whole_file_comes_with_its_validator_and_digest(handle, site):
    content = (FILES | {"large.txt": UNHASHED_LARGE})[handle]
    answer = ask(site, handle)
    assert answer.status == 200
    assert answer.body == content
    assert answer.header("etag") == etag_of(content)
    assert answer.header("repr-digest") == digest_of(content)
    assert answer.header("content-length") == str(len(content))
    assert answer.header("cache-control") == "private, no-cache"
    assert answer.header("content-encoding") is None
    assert answer.header("last-modified") is None


@pytest.mark.parametrize("handle", [*FILES, "large.txt"])
def test_head_has_the_headers_of_get(handle, site):
    def fixed(answer):
        return [one for one in answer.headers if one[0] not in {"date", "traceparent", "cachegate-record"}]

    ranged = ("Range", "bytes=0-1")
    of_get, of_head = ask(site, handle), ask(site, handle, ranged, method="HEAD")
    assert of_head.status == of_get.status == 200
    assert fixed(of_head) == fixed(of_get)
    assert of_head.body == b""


def test_ranges_are_offered_but_not_of_large_files_without_an_md5(site):
    offered = {handle: ask(site, handle, method="HEAD").header("accept-ranges") for handle in FILES}
    assert set(offered.values()) == {"bytes"}
    assert ask(site, "large.txt", method="HEAD").header("accept-ranges") is None
    assert ask(site, "large.txt", ("Range", "bytes=0-1")).status == 200


def test_a_blob_by_its_digest_is_the_file(site):
    path = f"/v1/blobs/{md5(SMALL, usedforsecurity=False).hexdigest()}"
    answer = site.wire.get(path, site.tokens["acme"], headers=(("Range", "bytes=2-4"),))
    assert (answer.status, answer.body, answer.header("etag")) == (206, b"234", etag_of(SMALL))


@pytest.mark.parametrize(
    ("handle", "content"), [("small.bin", SMALL), ("middle.bin", MIDDLE), ("big.bin", BIG)]
)
@pytest.mark.parametrize("spec", ["0-0", "5-", "-7", "3-8", "0-", "1-99999999999"])
def test_a_range_is_that_part_of_the_file(handle, content, spec, site):
    first, _, last = spec.partition("-")
    wanted = content[int(first) : int(last) + 1 if last else None] if first else content[-int(last) :]
    answer = ask(site, handle, ("Range", f"bytes={spec}"))
    assert answer.status == 206
    assert answer.body == wanted
    start = content.index(wanted) if len(content) < 100 else int(first or len(content) - int(last))
    assert answer.header("content-range") == f"bytes {start}-{start + len(wanted) - 1}/{len(content)}"
    assert answer.header("repr-digest") == digest_of(content)
    outcome = outcome_of(site, answer)
    assert (outcome["ending"], outcome["status"], outcome["bytes"]) == ("complete", 206, len(wanted))


@pytest.mark.parametrize(("handle", "content"), [("middle.bin", MIDDLE), ("big.bin", BIG)])
def test_several_ranges_are_parts_of_one_body(handle, content, site):
    spans = [(200_000, 299_999), (0, 9), (100_000, 199_000)]
    field = "bytes=" + ", ".join(f"{first}-{last}" for first, last in spans)
    answer = ask(site, handle, ("Range", field))
    assert answer.status == 206
    assert len(answer.body) == int(answer.header("content-length"))
    boundary = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]+)", answer.header("content-type"))[1]
    opening, *parts, closing = answer.body.split(b"--" + boundary.encode())
    assert (opening, closing) == (b"", b"--\r\n")
    for part, (first, last) in zip(parts, spans, strict=True):
        head, _, body = part.partition(b"\r\n\r\n")
        assert message_from_bytes(head.lstrip(), policy=HTTP)["Content-Range"] == (
            f"bytes {first}-{last}/{len(content)}"
        )
        assert body.removesuffix(b"\r\n") == content[first : last + 1]


def test_a_range_that_nothing_satisfies_is_told_the_length(site):
    answer = ask(site, "small.bin", ("Range", "bytes=10-"))
    assert answer.status == 416
    assert answer.header("content-range") == "bytes */10"
    assert answer.header("content-type") == "application/problem+json"
    assert answer.json()["record"] == answer.record_id
    outcome = outcome_of(site, answer)
    assert (outcome["ending"], outcome["status"]) == ("complete", 416)


@pytest.mark.parametrize("field", ["items=0-1", "bytes=4-2", "bytes=x", "bytes=0-1;2-3", "", "bytes"])
def test_what_is_no_range_is_ignored(field, site):
    answer = ask(site, "small.bin", ("Range", field))
    assert (answer.status, answer.body) == (200, SMALL)


def test_more_than_a_hundred_parts_are_the_whole(site):
    field = "bytes=" + ",".join(f"{2 * number}-{2 * number}" for number in range(101))
    answer = ask(site, "middle.bin", ("Range", field))
    assert (answer.status, answer.body) == (200, MIDDLE)


def test_what_the_client_has_is_not_sent_again(site):
    for method in ("GET", "HEAD"):
        answer = ask(
            site, "small.bin", ("If-None-Match", etag_of(SMALL)), ("Range", "bytes=0-1"), method=method
        )
        assert answer.status == 304
        assert answer.body == b""
        assert answer.header("etag") == etag_of(SMALL)
        assert answer.header("cache-control") == "private, no-cache"
        assert answer.header("content-type") is None
        outcome = outcome_of(site, answer)
        assert (outcome["ending"], outcome["status"], outcome["bytes"]) == ("complete", 304, 0)


def test_a_connection_is_kept_over_every_kind_of_answer(site):
    token = site.tokens["acme"]
    path = path_of("small.bin")
    with site.wire.connect() as connection:
        connection.settimeout(10)
        raw = b""
        for header in (
            f"If-None-Match: {etag_of(SMALL)}",
            'If-Match: "x"',
            "Range: bytes=99-",
            "Range: bytes=0-1,4-5",
            "Range: bytes=2-4",
        ):
            lines = (f"GET {path} HTTP/1.1", "Host: g", f"Authorization: Bearer {token}", header)
            raw += "\r\n".join((*lines, "", "")).encode()
        connection.sendall(raw)
        received = b""
        while not received.endswith(b"\r\n\r\n234"):
            piece = connection.recv(1 << 16)
            assert piece, received
            received += piece
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"304", b"412", b"416", b"206", b"206"]


def test_a_failed_precondition_is_told_and_nothing_else(site):
    answer = ask(site, "small.bin", ("If-Match", '"x"'))
    assert answer.status == 412
    assert answer.header("content-type") == "application/problem+json"
    outcome = outcome_of(site, answer)
    assert (outcome["ending"], outcome["status"]) == ("complete", 412)


def test_if_range_decides_between_the_part_and_the_whole(site):
    ranged = ("Range", "bytes=0-1")
    assert ask(site, "small.bin", ranged, ("If-Range", etag_of(SMALL))).status == 206
    assert ask(site, "small.bin", ranged, ("If-Range", etag_of(MIDDLE))).status == 200
    assert ask(site, "small.bin", ranged, ("If-Range", "Fri, 31 Dec 9999 23:59:59 GMT")).status == 200


def test_a_digest_that_is_not_wanted_is_not_sent(site):
    assert ask(site, "small.bin", ("Want-Repr-Digest", "sha-256=0")).header("repr-digest") is None
    assert ask(site, "small.bin", ("Want-Repr-Digest", "sha-256=3")).header("repr-digest") == digest_of(SMALL)


CURIOUS = [
    (("If-None-Match", etag_of(SMALL)),),
    (("If-None-Match", "*"),),
    (("If-Match", '"x"'),),
    (("If-Match", "*"),),
    (("Range", "bytes=0-1"),),
    (("Range", "bytes=0-1,4-5"),),
    (("Range", "bytes=999999999-"),),
    (("Range", "bytes=0-1"), ("If-Range", etag_of(SMALL))),
    (("Want-Repr-Digest", "sha-256=0"),),
    (("X-Accel-Redirect", "/_blobs/x"), ("X-Sendfile", "/etc/passwd")),
]


@pytest.mark.parametrize("headers", CURIOUS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_denied_read_ignores_every_condition_and_range(method, headers, site):
    denied = ask(site, "small.bin", *headers, method=method, tenant="globex")
    absent = ask(site, "nowhere.bin", *headers, method=method, tenant="globex")
    plain = ask(site, "small.bin", method=method, tenant="globex")
    assert denied.status == 404
    assert denied.comparable() == absent.comparable() == plain.comparable()


@pytest.mark.parametrize("headers", CURIOUS)
def test_a_file_that_is_not_there_has_no_conditions(headers, site):
    """For its own tenant, too: an answer about a range would be one about a file."""
    answer = ask(site, "nowhere.bin", *headers)
    assert answer.status == 404
    assert answer.header("etag") is answer.header("content-range") is None


def test_the_record_says_which_content_went_out(site):
    answer = ask(site, "small.bin")
    [decision] = [one for one in site.installation.records() if one.get("id") == answer.record_id]
    assert decision["resource"]["sha256"] == sha256(SMALL).hexdigest()


def test_the_engine_fetches_a_file_in_64_pieces_at_once(site):
    """HEAD, then a GET of each range: each must be a 206 of exactly that length."""
    head = ask(site, "big.bin", method="HEAD")
    assert (head.status, head.header("accept-ranges")) == (200, "bytes")
    assert head.header("content-length") == str(len(BIG))
    barrier = threading.Barrier(64)

    def fetch(number):
        barrier.wait(timeout=30)
        field = f"bytes={number * PIECE}-{(number + 1) * PIECE - 1}"
        return ask(site, "big.bin", ("Range", field))

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(fetch, range(64)))
    assert {answer.status for answer in answers} == {206}
    assert b"".join(answer.body for answer in answers) == BIG
    assert len({answer.record_id for answer in answers}) == 64
    for answer in answers[:3]:
        assert outcome_of(site, answer)["bytes"] == PIECE


@pytest.mark.slow
def test_64_pieces_of_16_mib_are_the_file(new_installation, tmp_path):
    """As many as the engine asks for at most, each read to its end by a client of its own."""
    blocks, source = 16, tmp_path / "large"
    block = random.Random(5).randbytes(1 << 20)

    def blocks_of(number):
        return (
            index.to_bytes(4, "big") + block[4:] for index in range(number * blocks, (number + 1) * blocks)
        )

    with source.open("wb") as file:
        for number in range(64):
            file.writelines(blocks_of(number))
    installation = new_installation("engine")
    tokens = furnish(installation, {"large.bin": source})
    source.unlink()
    gateway = installation.serve(workers=1)
    site = SimpleNamespace(installation=installation, wire=gateway.wire, tokens=tokens)
    barrier = threading.Barrier(64)

    def fetch(number):
        barrier.wait(timeout=60)
        low, high = number * blocks << 20, (number + 1) * blocks << 20
        request = (
            f"GET {path_of('large.bin')} HTTP/1.1",
            *("Host: g", "Connection: close", f"Authorization: Bearer {tokens['acme']}"),
            f"Range: bytes={low}-{high - 1}",
        )
        with gateway.wire.connect(timeout=60) as connection, connection.makefile("rb") as answer:
            connection.sendall("\r\n".join((*request, "", "")).encode())
            status = answer.readline()
            while answer.readline().strip():
                pass
            is_right = all(answer.read(1 << 20) == wanted for wanted in blocks_of(number))
            return status.split()[1] == b"206" and is_right and not answer.read(1)

    try:
        for _ in range(10):  # each waits a while for the pin by itself
            if ask(site, "large.bin", method="HEAD").header("accept-ranges") == "bytes":
                break
        with ThreadPoolExecutor(64) as pool:
            assert all(pool.map(fetch, range(64)))
    finally:
        gateway.stop()


def place_of(installation, handle):
    return (installation.cache_root / "models-cache" / sample_directory(MODEL) / PACKAGE / handle).readlink()


def test_a_blob_that_is_replaced_is_never_served_as_the_old_one(new_installation):
    installation = new_installation("replaced")
    tokens = furnish(installation, {"small.bin": SMALL, "middle.bin": MIDDLE})
    gateway = installation.serve(workers=1)
    site = SimpleNamespace(installation=installation, wire=gateway.wire, tokens=tokens)
    try:
        assert ask(site, "small.bin").body == SMALL
        place = place_of(installation, "small.bin")
        times = place.stat()
        other = place.with_name("other")
        other.write_bytes(SMALL[::-1])
        os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
        other.replace(place)
        for headers in ((), (("Range", "bytes=0-1"),), (("If-None-Match", etag_of(SMALL)),)):
            answer = ask(site, "small.bin", *headers)
            assert answer.status == 404
        assert ask(site, "middle.bin").body == MIDDLE
    finally:
        gateway.stop()


@pytest.fixture
def hashing_site(new_installation):
    """A site where the hashing of two blobs never ends: another process holds their locks."""
    installation = new_installation("hashing", CACHEGATE_PIN_IN_BACKGROUND="off")
    tokens = furnish(installation, {"good.bin": BIG, "bad.bin": BIG[::-1]})
    with place_of(installation, "bad.bin").open("r+b") as file:
        file.write(b"not what it was called by")
    measurements = MeasurementFile(installation.state / "pins")
    with ExitStack() as turns:
        for handle in ("good.bin", "bad.bin"):
            identity = identity_of(place_of(installation, handle).stat())
            assert turns.enter_context(measurements.turn(identity))
        gateway = installation.serve(workers=1)
        try:
            yield SimpleNamespace(installation=installation, wire=gateway.wire, tokens=tokens)
        finally:
            gateway.stop()
    assert "Traceback" not in gateway.log(), gateway.log()


def test_what_is_not_pinned_in_time_is_hashed_on_its_way(hashing_site):
    ranged = ("Range", "bytes=0-1")
    with ThreadPoolExecutor(3) as pool:  # each waits for the pin as long as a read does
        asked = [
            pool.submit(ask, hashing_site, "good.bin", method="HEAD"),
            pool.submit(ask, hashing_site, "good.bin", ranged),
            pool.submit(ask, hashing_site, "bad.bin"),
        ]
        of_head, good, bad = (one.result() for one in asked)

    assert (of_head.status, of_head.header("content-length")) == (200, str(len(BIG)))
    for name in ("etag", "repr-digest", "accept-ranges"):
        assert of_head.header(name) is good.header(name) is None

    assert (good.status, good.body) == (200, BIG)
    outcome = outcome_of(hashing_site, good)
    assert (outcome["ending"], outcome["sha256"]) == ("complete", sha256(BIG).hexdigest())

    assert bad.status == 200
    assert len(bad.body) < len(BIG)
    outcome = outcome_of(hashing_site, bad)
    assert outcome["ending"] == "quarantined"
    assert "sha256" not in outcome

    # Both findings are the fleet's from here on, although the hashing itself never ended.
    again = ask(hashing_site, "good.bin", ranged)
    assert (again.status, again.body, again.header("etag")) == (206, BIG[:2], etag_of(BIG))
    assert ask(hashing_site, "bad.bin").status == 404


@pytest.fixture(scope="module")
def handing_site(new_installation):
    """A gateway that is configured for an nginx in front of it."""
    installation = new_installation("handing", CACHEGATE_ACCEL_REDIRECT_PREFIX="/_blobs")
    tokens = furnish(installation, FILES)
    gateway = installation.serve(workers=1)
    try:
        yield SimpleNamespace(installation=installation, wire=gateway.wire, tokens=tokens)
    finally:
        gateway.stop()
    assert "Traceback" not in gateway.log(), gateway.log()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("handle", ["small.bin", "big.bin"])
def test_a_pinned_blob_is_handed_off(method, handle, handing_site):
    hostile = (("X-Accel-Redirect", "/etc/"), ("X-Accel-Mapping", "/=/"), ("Range", "bytes=0-1"))
    answer = ask(handing_site, handle, *hostile, method=method)
    assert answer.status == 200
    assert answer.body == b""
    assert answer.header("content-length") == "0"
    name = md5(FILES[handle], usedforsecurity=False).hexdigest()
    assert [value for key, value in answer.headers if key == "x-accel-redirect"] == [f"/_blobs/{name}"]
    assert answer.header("etag") == etag_of(FILES[handle])
    assert answer.header("content-type") == "application/octet-stream"
    outcome = outcome_of(handing_site, answer)
    assert (outcome["ending"], outcome["status"], outcome["bytes"]) == ("handed-off", 200, 0)


def test_a_package_file_is_never_handed_off(handing_site):
    answer = ask(handing_site, "notes.txt")
    assert answer.body == FILES["notes.txt"]
    assert answer.header("x-accel-redirect") is None


def test_a_refusal_hands_nothing_off(handing_site):
    for answer in (
        ask(handing_site, "small.bin", tenant="globex"),
        ask(handing_site, "small.bin", ("If-None-Match", "*")),
        ask(handing_site, "small.bin", ("If-Match", '"x"')),
        ask(handing_site, "small.bin", ("Range", "bytes=99-")),
    ):
        assert answer.status in {304, 404, 412, 416}
        assert answer.header("x-accel-redirect") is None


def test_without_the_setting_nothing_is_handed_off(site):
    answer = ask(site, "small.bin", ("X-Accel-Redirect", "/_blobs/x"))
    assert answer.body == SMALL
    assert answer.header("x-accel-redirect") is None
