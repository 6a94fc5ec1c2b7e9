"""Grants and publications that begin and end, over real sockets, with a clock that the test sets.

A real installation in this process: its cache on disk, its facts in a real Valkey, its log. Nothing changes
the facts at the moments that are tested, and all memories are warm: what was decided before a moment must not
be served after it, by whichever way a request comes. Each is asked a millisecond before and at the moment.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from gateway.adapters.clock import SystemClock
from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.assembly import pipeline
from gateway.assembly.app import Worker
from gateway.configuration.values import read_servers
from gateway.demo.world import build_world, demo_settings
from gateway.directory.edits.grants import add_grants, remove_grants
from gateway.directory.edits.models import publish, unpublish
from gateway.model.names import Pattern, TenantId
from gateway.operations.session import fact_server, open_session
from gateway.server.protocol import worker_protocol
from tests.conftest import PATIENCE_SECONDS

sys.path.append(str(Path(__file__).parent))  # the server beside us

from inference_stand_in import Reply, StandIn

MODEL, INITECH = "acme/2", TenantId("initech")  # a name that an inference server knows, too
FILE = f"/v1/models/{MODEL}/-/pkgA2/weights.onnx"
LARGE = "acme/large/1"
LARGE_FILE = f"/v1/models/{LARGE}/-/pkgL1/weights.onnx"
LARGE_WEIGHTS = random.Random(5).randbytes(24 << 20)  # more than the buffers of two sockets and a step hold
INFERENCE = "/inference/infer/object_detection"
RECORD = re.compile(rb"cachegate-record: ([0-9a-f-]{36})")
TICK = 0.001


class SettableClock(SystemClock):
    """The system's clock, until the time of day is set."""

    wall = None

    @classmethod
    def now(cls):
        return SystemClock.now() if cls.wall is None else cls.wall


class Gateway:
    """A worker in a thread of its own: one listener answers at once what it can, the other asks the app."""

    def __init__(self, settings, url, world):
        self.settings, self.world = settings, world
        self.worker = Worker(settings, url)
        self.begin = SystemClock.now()

    @contextmanager
    def running(self):
        started, self.ended = threading.Event(), None
        thread = threading.Thread(target=self._run, args=(started,))
        thread.start()
        try:
            assert started.wait(PATIENCE_SECONDS)
            yield self
        finally:
            self.loop.call_soon_threadsafe(self.ended.set)
            thread.join(PATIENCE_SECONDS)

    def _run(self, started):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self.loop = runner.get_loop()
            runner.run(self._serve(started))

    async def _serve(self, started):
        self.ended = asyncio.Event()
        at_once, app = self.worker.at_once(), self.worker.app()
        async with app.router.lifespan_context(app):
            config = uvicorn.Config(app, lifespan="off", log_config=None)
            config.load()
            self.ports, servers = {}, []
            for way, how in (("at once", at_once), ("application", None)):
                protocol = worker_protocol(at_once=how, on_refused=self.worker.refused_early)
                state = ServerState()
                server = await self.loop.create_server(
                    lambda protocol=protocol, state=state: protocol(config, state, {}), "127.0.0.1", 0
                )
                servers.append(server)
                self.ports[way] = server.sockets[0].getsockname()[1]
            started.set()
            await self.ended.wait()
            for server in servers:
                server.close()

    def perform(self, edit):
        """Make a change as a command does, and wait until the worker has applied it."""

        async def work():
            async with open_session(self.settings) as session:
                done = await session.perform("models.test", edit)
                assert done.barrier.is_sure
                assert done.barrier.workers == 1

        asyncio.run(work())

    def ask(self, way, target, key="initech", *, method="GET", headers=(), body=b""):
        """Status and body of one request."""
        raw = request(method, target, self.world.keys[key].token if key else None, headers, body)
        with socket.create_connection(("127.0.0.1", self.ports[way]), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(raw)
            received = b""
            while piece := connection.recv(1 << 16):
                received += piece
        head, _, answer = received.partition(b"\r\n\r\n")
        self.record_id = RECORD.search(head)[1].decode()
        return int(head.split(b" ")[1]), answer

    def recorded(self):
        """The decision about the last request."""
        ends_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < ends_at:
            for path in self.settings.audit_folder.glob("*-0*.jsonl"):
                for line in path.read_bytes().splitlines():
                    if (
                        self.record_id.encode() in line
                        and (record := json.loads(line))["id"] == self.record_id
                    ):
                        return record
        raise AssertionError("no record")


def request(method, target, token, headers=(), body=b""):
    lines = [f"{method} {target} HTTP/1.1", "Host: gateway", "Connection: close"]
    lines += [] if token is None else [f"Authorization: Bearer {token}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture(scope="module")
def gateway():
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    with StandIn().running() as server, pytest.MonkeyPatch.context() as patch:
        settings = dataclasses.replace(
            demo_settings(folder),
            public_url="https://models.example",
            trusted_proxies=("127.0.0.1",),
            lease_milliseconds=10_000,
            audit_refusals_per_second=10_000,
            inference_url=read_servers(server.url),
            inference_key="service-key",
        )
        world = asyncio.run(build_world(settings))
        large = SampleModel(model_id=LARGE, packages={"pkgL1": {"weights.onnx": LARGE_WEIGHTS}})
        small = SampleModel(model_id=MODEL, packages={"pkgA2": {"weights.onnx": b"lent for a while\n" * 40}})
        write_sample_cache(settings.cache_root, [large, small])
        patch.setattr(pipeline, "SystemClock", SettableClock)
        try:
            with fact_server(settings) as url, Gateway(settings, url, world).running() as running:
                running.server = server
                yield running
        finally:
            shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _fresh(gateway):
    """Each test begins a day later than the one before: an end that was seen stays over."""
    gateway.begin += 86_400
    SettableClock.wall = gateway.begin
    yield
    for pattern in (MODEL, LARGE):
        gateway.perform(partial(remove_grants, tenant_id=INITECH, models=[Pattern(pattern)]))
        gateway.perform(partial(unpublish, patterns=[Pattern(pattern)]))
    gateway.server.reset()


def lend(gateway, *, model=MODEL, actions=("read", "infer"), **times):
    gateway.perform(partial(add_grants, tenant_id=INITECH, models=[Pattern(model)], actions=actions, **times))


def links_of(gateway):
    url = gateway.worker.pipeline.links.url(
        gateway.world.keys["initech"].key_id, MODEL, "pkgA2", "weights.onnx"
    )
    return urlsplit(url)._replace(scheme="", netloc="").geturl()


def md5_of(gateway):
    status, body = gateway.ask("application", f"/v1/models/{MODEL}/-/pkgA2", "acme")
    assert status == 200
    return next(one["md5"] for one in json.loads(body)["files"] if one["file"] == "weights.onnx")


def faces(gateway):
    """Every way to a model that a grant may open: what is asked, and whether it shows the model."""
    digest, link = md5_of(gateway), links_of(gateway)
    about = [("X-Original-Method", "GET"), ("X-Original-URI", FILE)]
    check = [("X-Forwarded-For", "127.0.0.1"), *about]
    infer = json.dumps({"model_id": MODEL, "image": {"type": "base64", "value": "aGk="}}).encode()

    def of_file(way):
        return gateway.ask(way, FILE)[0] == 200

    def of_head(way):
        return gateway.ask(way, FILE, method="HEAD")[0] == 200

    def of_range(way):
        return gateway.ask(way, FILE, headers=[("Range", "bytes=0-3")])[0] == 206

    def of_blob(way):
        return gateway.ask(way, f"/v1/blobs/{digest}")[0] == 200

    def of_link(way):
        return gateway.ask(way, link, None)[0] == 200

    def of_listing(way):
        status, body = gateway.ask(way, "/v1/models?limit=100")
        assert status == 200
        return MODEL in json.dumps(json.loads(body))

    def of_model(way):
        return gateway.ask(way, f"/v1/models/{MODEL}")[0] == 200

    def of_check(way):
        return gateway.ask(way, "/check/nginx", headers=check)[0] == 200

    def of_engine(way):
        return gateway.ask(way, f"/models/v1/external/weights?modelId={MODEL}")[0] == 200

    def of_stat(way):
        return gateway.ask(way, f"/models/v1/external/stat?modelId={MODEL}")[0] == 200

    def of_front_door(way):
        gateway.server.replies[INFERENCE.removeprefix("/inference")] = Reply()
        headers = [("Content-Type", "application/json")]
        return gateway.ask(way, INFERENCE, method="POST", headers=headers, body=infer)[0] == 200

    return {name.removeprefix("of_"): ask for name, ask in locals().items() if name.startswith("of_")}


WAYS = ("at once", "application")
NAMES = (
    *("file", "head", "range", "blob", "link", "listing", "model", "check", "engine", "stat", "front_door"),
)


def test_every_face_is_tried(gateway):
    assert tuple(faces(gateway)) == NAMES


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_a_grant_ends_at_its_moment_on_every_face_without_a_change_of_facts(gateway, name, way):
    ends_at = gateway.begin + 600
    lend(gateway, expires_at=ends_at)
    ask = faces(gateway)[name]
    for _ in range(3):
        assert ask(way)
    SettableClock.wall = ends_at - TICK
    assert ask(way)
    SettableClock.wall = ends_at
    assert not ask(way)
    SettableClock.wall = ends_at - 300  # the clock is set back: what has ended stays ended
    assert not ask(way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_a_grant_begins_at_its_moment_on_every_face_without_a_change_of_facts(gateway, name, way):
    begins_at = gateway.begin + 600
    lend(gateway, not_before=begins_at)
    ask = faces(gateway)[name]
    for _ in range(3):
        assert not ask(way)
    SettableClock.wall = begins_at - TICK
    assert not ask(way)
    SettableClock.wall = begins_at
    assert ask(way)
    SettableClock.wall = begins_at - 300  # the clock is set back: it has not begun
    assert not ask(way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_a_publication_is_one_between_its_moments_on_every_face(gateway, name, way):
    begins_at, ends_at = gateway.begin + 600, gateway.begin + 1200
    gateway.perform(partial(publish, patterns=[Pattern(MODEL)], not_before=begins_at, expires_at=ends_at))
    ask = faces(gateway)[name]
    assert not ask(way)
    SettableClock.wall = begins_at
    for _ in range(3):
        assert ask(way)
    SettableClock.wall = ends_at - TICK
    assert ask(way)
    SettableClock.wall = ends_at
    assert not ask(way)


@pytest.mark.parametrize("way", WAYS)
def test_an_expiry_that_is_moved_counts_from_then_on(gateway, way):
    ask = partial(gateway.ask, way, FILE)
    lend(gateway, expires_at=gateway.begin + 600)
    assert ask()[0] == 200
    lend(gateway, expires_at=gateway.begin + 1200)  # later
    SettableClock.wall = gateway.begin + 900
    assert ask()[0] == 200
    lend(gateway, expires_at=gateway.begin + 901)  # earlier
    assert ask()[0] == 200
    SettableClock.wall = gateway.begin + 901
    assert ask()[0] == 404
    lend(gateway)  # without an end
    assert ask()[0] == 200
    SettableClock.wall = gateway.begin + 80_000
    assert ask()[0] == 200


@pytest.mark.parametrize("way", WAYS)
def test_a_beginning_far_ahead_and_a_clock_that_shows_no_time_open_nothing(gateway, way):
    lend(gateway, not_before=4e12)  # beyond any calendar
    assert gateway.ask(way, FILE)[0] == 404
    assert gateway.recorded()["reason"] == "grant-not-yet-valid"
    SettableClock.wall = gateway.begin + 80_000
    assert gateway.ask(way, FILE)[0] == 404


@pytest.mark.parametrize("way", WAYS)
def test_the_log_names_the_grant_and_the_client_is_told_nothing(gateway, way):
    lend(gateway, expires_at=gateway.begin + 600)
    status, _ = gateway.ask(way, FILE)
    allowed = gateway.recorded()
    assert (status, allowed["decision"]) == (200, "allow")
    assert allowed["grant"].startswith("grant_")
    SettableClock.wall = gateway.begin + 600
    ended = gateway.ask(way, FILE)
    record = gateway.recorded()
    assert (record["reason"], record["grant"]) == ("expired-grant", allowed["grant"])
    absent = gateway.ask(way, "/v1/models/acme/none/-/pkgA2/weights.onnx")
    assert gateway.recorded()["reason"] == "not-permitted"
    bodies = [re.sub(rb"[0-9a-f]{8}-[0-9a-f-]{27}", b"ID", body) for _, body in (ended, absent)]
    assert ended[0] == absent[0] == 404
    assert bodies[0] == bodies[1]


def test_a_transfer_that_has_begun_goes_on_when_its_grant_ends(gateway):
    """As when a grant is removed: what ends a transfer is its key or its tenant."""
    lend(gateway, model=LARGE, expires_at=gateway.begin + 600)
    raw = request("GET", LARGE_FILE, gateway.world.keys["initech"].token)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(("127.0.0.1", gateway.ports["application"]))
        connection.sendall(raw)
        received = connection.recv(1 << 14)
        SettableClock.wall = gateway.begin + 601
        assert gateway.ask("application", LARGE_FILE)[0] == 404
        while piece := connection.recv(1 << 16):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == LARGE_WEIGHTS
