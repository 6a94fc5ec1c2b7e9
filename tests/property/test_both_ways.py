"""What is answered at once is what the application answers, to the byte, for whatever is asked.

A real installation in this process: its cache on disk, its facts in a real Valkey, its log. Two listeners in
front of one pipeline differ in one thing: one answers at once what it can, the other leaves everything to the
application. Each request is sent to both. Status, headers and body have to be equal, but for the
record's id, the span of the trace, and the boundary of several ranges, which are new each time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import re
import shutil
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from hashlib import md5, sha256
from pathlib import Path

import pytest
import uvicorn
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.assembly.app import Worker
from gateway.demo.world import SHARED_WEIGHTS, build_world, demo_settings
from gateway.operations.session import fact_server
from gateway.server.protocol import worker_protocol
from tests.conftest import PATIENCE_SECONDS
from tests.examples import examples

AT_ONCE = "cachegate_answers_at_once_total"
ETAG = f'"{sha256(SHARED_WEIGHTS).hexdigest()}"'
FILE = "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"
LARGE = "/v1/models/acme/large/1/-/pkgL1/weights.onnx"
LARGE_WEIGHTS = random.Random(3).randbytes(3 << 20)  # more than a step, and than two sockets hold
LARGE_ETAG = f'"{sha256(LARGE_WEIGHTS).hexdigest()}"'
LINK = "(link)"  # replaced by a signed link of the key
NEVER_TWICE = re.compile(rb"(cachegate-record: |traceparent: 00-[0-9a-f]{32}-|boundary=)([0-9a-f-]+)")
RECORD = re.compile(rb"cachegate-record: ([0-9a-f-]{36})")
VARYING = {"id", "seq", "prev", "time", "hash", "decision_id", "microseconds"}
TRACE = re.compile(rb"traceparent: 00-([0-9a-f]{32})-")


class Gateway:
    """The pipeline of a worker in a thread of its own, with a listener for each of the two ways."""

    def __init__(self, worker, world):
        self.worker = worker
        self.world = world
        self.tokens = {name: key.token for name, key in world.keys.items()}
        self.connections = {}
        self.audit = worker.pipeline.settings.audit_folder
        self.record_ids = []

    @property
    def answered_at_once(self):
        return self.worker.pipeline.telemetry.counters[AT_ONCE]

    @property
    def defects(self):
        return self.worker.pipeline.telemetry.counters["cachegate_defects_total"]

    @contextmanager
    def running(self):
        started, self.ended = threading.Event(), None
        thread = threading.Thread(target=self._run, args=(started,))
        thread.start()
        try:
            assert started.wait(PATIENCE_SECONDS)
            yield self
        finally:
            for connection in self.connections.values():
                connection.close()
            self.loop.call_soon_threadsafe(self.ended.set)
            thread.join(PATIENCE_SECONDS)

    def _run(self, started):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self.loop = runner.get_loop()
            runner.run(self._serve(started))

    async def _serve(self, started):
        self.ended = asyncio.Event()
        at_once, app = self.worker.at_once(), self.worker.app()
        async with self.worker.pipeline.running():
            config = uvicorn.Config(app, lifespan="off", log_config=None)
            config.load()
            servers = {}
            for way, how in (("at once", at_once), ("application", None)):
                protocol = worker_protocol(at_once=how, on_refused=self.worker.refused_early)
                state = ServerState()
                servers[way] = await self.loop.create_server(
                    lambda protocol=protocol, state=state: protocol(config, state, {}), "127.0.0.1", 0
                )
            self.ports = {way: one.sockets[0].getsockname()[1] for way, one in servers.items()}
            started.set()
            await self.ended.wait()
            for server in servers.values():
                server.close()

    def send(self, way, raw, *, is_head):
        """One request on a connection that is kept; status line, headers and body of its answer."""
        if way not in self.connections:
            address = "127.0.0.1", self.ports[way]
            self.connections[way] = socket.create_connection(address, timeout=PATIENCE_SECONDS)
        connection = self.connections[way]
        connection.sendall(raw)
        received = b""
        while b"\r\n\r\n" not in received:
            received += received_from(connection)
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        assert length or head.startswith(b"HTTP/1.1 304 ")
        while length and not is_head and len(body) < int(length[1]):
            body += received_from(connection)
        if b"\r\nconnection: close" in head:
            connection.close()
            del self.connections[way]
        return head, body

    def both(self, request):
        """The answers of both ways, and whether the first one was made at once."""
        raw, is_head = self.raw(request), request["method"] == "HEAD"
        by_app = self.send("application", raw, is_head=is_head)
        before = self.answered_at_once
        at_once = self.send("at once", raw, is_head=is_head)
        self.record_ids = [RECORD.search(head)[1].decode() for head, _ in (at_once, by_app)]
        return comparable(at_once, request), comparable(by_app, request), self.answered_at_once > before

    def recorded(self, record_id):
        """The decision of this id and its outcome, without what is another each time."""
        lines = [line for path in self.audit.glob("*-0*.jsonl") for line in path.read_bytes().splitlines()]
        records = [one for one in map(json.loads, lines) if record_id in (one["id"], one.get("decision_id"))]
        return [{name: value for name, value in one.items() if name not in VARYING} for one in records]

    def raw(self, request):
        target = request["target"]
        if target.startswith(LINK):
            links = self.worker.pipeline.links
            url = links.url(self.world.keys["acme"].key_id, "acme/cars/1", "pkgA1", "weights.onnx")
            target = url.removeprefix("https://models.example") + target[len(LINK) :]
        lines = [f"{request['method']} {target} HTTP/1.1", "Host: gateway"]
        token = self.tokens.get(request["key"], request["key"])
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        lines += [f"{name}: {value}" for name, value in request["headers"]]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def received_from(connection):
    piece = connection.recv(1 << 16)
    assert piece, "the connection ended within an answer"
    return piece


def comparable(answer, request):
    """All of an answer that has to be equal: of a trace that the client did not begin, nothing."""
    head, body = answer
    for match in NEVER_TWICE.finditer(head):
        head, body = head.replace(match[2], b"V"), body.replace(match[2], b"V")
    [trace] = TRACE.findall(head)
    if trace.decode() not in str(request["headers"]):
        head = head.replace(trace, b"T")
    return head, body


@pytest.fixture(scope="module")
def gateway():
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    chosen = dataclasses.replace(
        demo_settings(folder),
        public_url="https://models.example",
        trusted_proxies=("127.0.0.0/8",),
        lease_milliseconds=10_000,
        audit_refusals_per_second=10_000,  # each is recorded, none only counted
    )
    world = asyncio.run(build_world(chosen))
    large = SampleModel(model_id="acme/large/1", packages={"pkgL1": {"weights.onnx": LARGE_WEIGHTS}})
    write_sample_cache(chosen.cache_root, [large])
    try:
        with fact_server(chosen) as url, Gateway(Worker(chosen, url), world).running() as running:
            yield running
    finally:
        shutil.rmtree(folder)


def asked(target=FILE, key="acme", *headers, method="GET"):
    return {"target": target, "key": key, "headers": list(headers), "method": method}


OWN_BLOB = "/v1/blobs/(md5)"
KNOWN = {
    "file": asked(),
    "head": asked(method="HEAD"),
    "query": asked(FILE + "?a=b"),
    "range": asked(FILE, "acme", ("Range", "bytes=3-99")),
    "ranges": asked(FILE, "acme", ("Range", "bytes=3-9,20-30")),
    "no range": asked(FILE, "acme", ("Range", "bytes=99999-")),
    "unchanged": asked(FILE, "acme", ("If-None-Match", ETAG)),
    "changed": asked(FILE, "acme", ("If-Match", '"another"')),
    "digest": asked(FILE, "acme", ("Want-Repr-Digest", "sha-256=1")),
    "large": asked(LARGE),
    "large head": asked(LARGE, method="HEAD"),
    "large range": asked(LARGE, "acme", ("Range", "bytes=1000-2000000")),
    "large step": asked(LARGE, "acme", ("Range", "bytes=1000-80000")),
    "large short range": asked(LARGE, "acme", ("Range", "bytes=1000-2000")),
    "large ranges": asked(LARGE, "acme", ("Range", "bytes=3-9,200000-2000000")),
    "large no range": asked(LARGE, "acme", ("Range", "bytes=99999999-")),
    "large unchanged": asked(LARGE, "acme", ("If-None-Match", LARGE_ETAG)),
    "large changed": asked(LARGE, "acme", ("If-Match", '"another"')),
    "large if range": asked(LARGE, "acme", ("Range", "bytes=5-900000"), ("If-Range", LARGE_ETAG)),
    "large blob": asked(f"/v1/blobs/{md5(LARGE_WEIGHTS, usedforsecurity=False).hexdigest()}"),
    "link": asked(LINK, None),
    "range by link": asked(LINK, None, ("Range", "bytes=-7")),
    "blob": asked(OWN_BLOB),
    "range of a blob": asked(OWN_BLOB, "acme", ("Range", "bytes=5-")),
    "package": asked("/v1/models/acme/cars/1/-/pkgA1"),
    "model": asked("/v1/models/acme/cars/1"),
    "models": asked("/v1/models?limit=2"),
    "alias": asked("/v1/models/acme/latest/-/pkgA1/weights.onnx"),
    "oneself": asked("/v1/whoami"),
    "metadata": asked("/models/v1/external/weights?modelId=acme/cars/1"),
    "metadata by alias": asked("/models/v1/external/weights?modelId=acme/latest"),
    "right to run": asked("/models/v1/external/stat?modelId=acme/cars/1"),
    "hidden": asked("/v1/models/globex/cars/1/-/pkgB1/weights.onnx"),
    "absent": asked("/v1/models/acme/none"),
    "scope": asked(FILE, "acme-catalogue"),
    "no key": asked(FILE, None),
    "no route": asked("/nowhere"),
    "malformed": asked("/v1/models/a//b"),
    "trace": asked(FILE, "acme", ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
    "proxy": asked(FILE, "acme", ("X-Forwarded-For", "203.0.113.9")),
}
NEVER_AT_ONCE = {
    "absent": "whether it exists is asked of the disk",
    "scope": "whether it exists is asked of the disk",
}


def completed(gateway, request):
    return request | {"target": request["target"].replace("(md5)", gateway.world.shared_md5)}


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in NEVER_AT_ONCE])
def test_what_memory_knows_is_answered_at_once_and_equal(name, gateway):
    """A file that was just written is not held yet, and a listing only for two seconds: it is asked again."""
    request, ends_at = completed(gateway, KNOWN[name]), time.monotonic() + PATIENCE_SECONDS
    is_at_once = False
    records = [[], []]
    while not is_at_once or any(one[0]["kind"] != "decision" for one in records):
        assert time.monotonic() < ends_at, records
        at_once, by_app, is_at_once = gateway.both(request)
        assert at_once == by_app
        records = [records_of(gateway, record_id) for record_id in gateway.record_ids]
    assert gateway.defects == 0
    assert records[0] == records[1]
    assert [one["kind"] for one in records[0]] == ["decision", "outcome"][: len(records[0])]


def records_of(gateway, record_id):
    """A decision, and the outcome of an allow: that may be written a moment later."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        records = gateway.recorded(record_id)
        # A summary stands for refusals beyond the limit of a second, of both ways then or of one alone.
        if len(records) == 2 or (records and records[0].get("decision") != "allow"):
            return records
        assert time.monotonic() < ends_at, records


MODELS = (
    "acme/cars/1",
    "acme/latest",
    "globex/signs/1",
    "globex/cars/1",
    "public/demo/1",
    "acme/none",
    "a//b",
)
PACKAGES = ("pkgA1", "pkgB1", "pkgB2", "pkgB3", "pkgP1", "PKGA1", "..", "p%2Fq")
HANDLES = (
    "weights.onnx",
    "class_names.txt",
    "model_config.json",
    ".weights.onnx.lock",
    "none",
    "%77eights.onnx",
)

paths = st.one_of(
    st.builds(
        "/v1/models/{}/-/{}/{}".format,
        st.sampled_from(MODELS),
        st.sampled_from(PACKAGES),
        st.sampled_from(HANDLES),
    ),
    st.builds("/v1/models/{}/-/{}".format, st.sampled_from(MODELS), st.sampled_from(PACKAGES)),
    st.builds("/v1/models/{}".format, st.sampled_from(MODELS)),
    st.sampled_from([request["target"] for request in KNOWN.values()]),
    st.builds("/v1/blobs/{}".format, st.sampled_from(["(md5)", "0" * 32, "(md5)x", ""])),
    st.builds("/d/{}/-/pkgA1/weights.onnx".format, st.sampled_from(MODELS)),
    st.sampled_from(["/", "/v1", "/v1/models", "/v1/models/", "/proxy", "/hooks", "/healthz", "//v1/models"]),
    st.text("/v1models-%2Fabc.;:@~!$&'()*+,", max_size=40).map("/{}".format),
)
queries = st.one_of(
    st.sampled_from(
        [
            "",
            "",
            "",
            "?",
            "?a=b",
            "?limit=1",
            "?limit=0",
            "?limit=1&limit=2",
            "?after=acme/cars/1",
            "?after=%2e",
        ]
    ),
    st.sampled_from(
        ["?api_key=x", "?se=1&sig=x", "?" + "&".join("a" * 33), "?a=b?c", "?%zz", "&x=y", "?url=x"]
    ),
)
keys = st.sampled_from(["cg_demo_mistyped", "opaque", ""]) | st.sampled_from(
    [
        "acme",
        "acme",
        "acme-laptop",
        "acme-catalogue",
        "acme-expired",
        "acme-revoked",
        "globex",
        "initech",
        None,
    ]
)
etags = st.sampled_from([ETAG, '"another"', "W/" + ETAG, "*", f'"another", {ETAG}', "unquoted"])
ranges = st.one_of(
    st.sampled_from(["bytes=", "bytes=-", "bytes=5-2", "bytes=-0", "lines=1-2", "bytes=0-0,-1", "BYTES=0-1"]),
    st.builds("bytes={}-{}".format, st.integers(0, 5000), st.integers(0, 5000) | st.just("")),
    st.builds("bytes=-{}".format, st.integers(0, 5000)),
    st.builds("bytes={}-{}".format, st.integers(0, 4 << 20), st.integers(0, 4 << 20) | st.just("")),
    st.lists(
        st.builds("{}-{}".format, st.integers(0, 300), st.integers(200, 4000)), min_size=1, max_size=4
    ).map(lambda several: "bytes=" + ",".join(several)),
)
headers = st.lists(
    st.one_of(
        st.tuples(st.just("Range"), ranges),
        st.tuples(st.sampled_from(["If-Match", "If-None-Match", "If-Range"]), etags),
        st.tuples(
            st.sampled_from(["If-Modified-Since", "If-Unmodified-Since", "If-Range"]),
            st.sampled_from(["Fri, 20 Nov 2026 14:23:33 GMT", "yesterday"]),
        ),
        st.tuples(st.sampled_from(["Want-Repr-Digest", "Want-Content-Digest"]), st.just("sha-256=5, md5=0")),
        st.tuples(
            st.just("traceparent"),
            st.sampled_from(
                ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-" + "0" * 32, "x"]
            ),
        ),
        st.tuples(
            st.just("X-Forwarded-For"),
            st.sampled_from(["203.0.113.9", "203.0.113.9, 127.0.0.2", "unreadable", "198.51.100.1:99"]),
        ),
        st.tuples(st.just("User-Agent"), st.sampled_from(["curl/8.5.0", "a" * 300, "caf\xe9"])),
        st.tuples(st.just("X-API-Key"), st.sampled_from(["opaque", "two words", "another"])),
        st.tuples(st.just("Accept-Encoding"), st.just("gzip")),
    ),
    max_size=3,
)
requests = st.fixed_dictionaries(
    {
        "target": st.builds("{}{}".format, paths, queries),
        "key": keys,
        "headers": headers,
        "method": st.sampled_from(["GET", "GET", "GET", "HEAD"]),
    }
)


# The gateway runs in a thread of this process and draws random pauses, which are no strategy's.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@given(requests)
@settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_asked_both_ways_answer_alike(gateway, request):
    for _ in range(2):  # what the first one put into memory is there for the second
        at_once, by_app, _ = gateway.both(completed(gateway, request))
        assert at_once == by_app
    assert gateway.defects == 0
