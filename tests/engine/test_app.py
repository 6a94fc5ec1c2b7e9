"""The documents' FastAPI app that runs models, with the real engine in it: who may ask for predictions."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sysconfig
import threading
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from catalogue import ALIAS, ALIASES, CARS, VANS
from tenant import LOAD_SECONDS, PYTHON

from tests.conftest import request_bytes, wait_until
from tests.tenant_keys import revoke

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent
WIDTH, HEIGHT = 64, 48


def png():
    """The image of client.py, as a client would send it."""
    rows = []
    for row in range(HEIGHT):
        first = 3 * WIDTH * row
        pixels = ((first + 3 * x) % 256 for x in range(WIDTH))
        rows.append(
            b"\0" + bytes(value for blue in pixels for value in ((blue + 2) % 256, (blue + 1) % 256, blue))
        )

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def installed(new_installation):
    installation = new_installation("models-app")
    for tenant in ("acme", "globex"):
        installation.run("tenants", "create", tenant)
        installation.run("models", "own", tenant, f"{tenant}/*")
    installation.run("models", "alias", ALIAS, ALIASES[ALIAS])
    return installation


@pytest.fixture(scope="module")
def wire(engine, installed, _provider, new_wire, tmp_path_factory):
    """The app, with caches of its own that it fills from the provider."""
    place, wire = tmp_path_factory.mktemp("app"), new_wire()
    environment = {
        "PATH": os.defpath,
        "HOME": str(place),
        "OMP_NUM_THREADS": "1",
        "INFERENCE_HOME": str(place / "home"),
        "ROBOFLOW_API_HOST": _provider.api_url,
        "CACHEGATE_STATE": str(installed.state),
        "CACHEGATE_CACHE_ROOT": str(place / "home"),
        "CACHEGATE_NODE": "app",
        "CACHEGATE_LEASE_MILLISECONDS": "5000",
    }
    (place / "home").mkdir()
    site = sysconfig.get_paths()["purelib"]
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [PYTHON, HERE / "guarded_app_process.py", site, str(wire.port)],
            env=environment,
            cwd=place,
            stdout=log,
            stderr=log,
        )
    watchdog = threading.Timer(4 * LOAD_SECONDS, process.kill)
    watchdog.start()

    def answers():
        assert process.poll() is None, (place / "log").read_text()
        with suppress(OSError):
            return wire.get("/infer/x").status == 405
        return False

    try:
        wait_until(answers, LOAD_SECONDS)
        yield wire
    finally:
        watchdog.cancel()
        process.terminate()
        process.wait(60)
        assert "Traceback" not in (place / "log").read_text()
        installed.verify_audit()


@pytest.fixture
def tenant(installed, provider):
    """A new key of a tenant, to whom the provider would give everything."""

    def make(name):
        made = installed.json("keys", "create", "--tenant", name)
        provider.grant(made["token"], "*")
        return made

    return make


def infer(wire, model, token):
    body = png()
    headers = (("Content-Length", str(len(body))), ("Content-Type", "image/png"))
    head = request_bytes("POST", f"/infer/{model}", token, headers, is_last=True)
    return wire.send(head + body, timeout=LOAD_SECONDS)


def test_who_may_infer_gets_the_prediction_and_nobody_else_does(wire, tenant, filled, provider):
    acme, globex = tenant("acme"), tenant("globex")
    scores = filled.prediction(CARS)["confidence"][0]
    best = ("car", "truck", "bus")[scores.index(max(scores))]
    for model in (CARS, ALIAS):
        answer = infer(wire, model, acme["token"])
        assert (answer.status, json.loads(answer.body)) == (
            200,
            {"model": CARS, "class": best, "tenant": "acme"},
        )
    asked = len(provider.seen("api"))
    hidden, absent = infer(wire, CARS, globex["token"]), infer(wire, "acme/nothing/1", globex["token"])
    assert hidden.status == absent.status == 404
    assert len(hidden.body) == len(absent.body)
    assert infer(wire, CARS, None).status == 401
    assert len(provider.seen("api")) == asked  # nobody was asked about what was refused


def test_a_model_in_memory_is_refused_once_its_key_is_revoked(wire, tenant, installed):
    acme = tenant("acme")
    assert infer(wire, VANS, acme["token"]).status == 200
    installed.in_session(lambda session: revoke(session, acme["key_id"]))
    assert infer(wire, VANS, acme["token"]).status == 401


def test_each_request_and_each_load_is_on_record(wire, tenant, installed):
    acme = tenant("acme")
    answer = infer(wire, CARS, acme["token"])
    outcome = installed.outcome_of(answer.record_id)
    assert (outcome["status"], outcome["bytes"]) == (200, len(answer.body))
    routes = {
        one["request"]["route"]
        for one in installed.records()
        if one.get("key_id") == acme["key_id"] and "request" in one
    }
    assert {"/infer/{model:path}", "in-process/load"} <= routes
    assert acme["token"] not in json.dumps(installed.records())
