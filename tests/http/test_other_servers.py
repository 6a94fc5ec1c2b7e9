"""The same application on other ASGI servers: correct in chunks, guarded and recorded alike."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from pathlib import Path

LARGE = random.Random(7).randbytes((5 << 20) + 3)
SMALL = b"small\n"
PATH = "/v1/models/acme/cars/1/-/pkgA1/"
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "gateway.asgi:app", "--host", "127.0.0.1", "--port", "{port}"],
    "hypercorn": ["-m", "hypercorn", "gateway.asgi:app", "--bind", "127.0.0.1:{port}"],
    "granian": [
        *("-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}"),
        "gateway.asgi:app",
    ],
}


@pytest.fixture(scope="module")
def furnished(new_installation):
    """An installation with a tenant, whose embedded server runs as long as this module does."""
    from gateway.configuration.sources import load_settings  # noqa: PLC0415
    from gateway.operations.session import fact_server  # noqa: PLC0415 -- settings are read when it is known which

    installation = new_installation("elsewhere")
    files = {"weights.onnx": LARGE, "small.txt": SMALL}
    write_sample_cache(
        installation.cache_root, [SampleModel(model_id="acme/cars/1", packages={"pkgA1": files})]
    )
    installation.init()
    installation.run("tenants", "create", "acme")
    installation.run("models", "own", "acme", "acme/*")
    with fact_server(load_settings(installation.variables())) as url:
        yield installation, url


@pytest.fixture(params=SERVERS)
def served(request, furnished, new_wire):
    installation, url = furnished
    wire = new_wire()
    arguments = [one.format(port=wire.port) for one in SERVERS[request.param]]
    log = installation.folder / f"{request.param}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=installation.variables() | {"CACHEGATE_REDIS_URL": url},
            cwd=installation.folder,
            stdout=output,
            stderr=output,
        )
    token = installation.json("keys", "create", "--tenant", "acme")
    try:
        _await(wire, token["token"], process, log)
        yield installation, wire, token
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()
        process.wait()


def _await(wire, token, process, log: Path):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with suppress(OSError):
            if wire.get("/v1/whoami", token).status == 200:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_it_serves_guards_and_records_as_on_our_own(served):
    installation, wire, key = served
    token = key["token"]
    large = wire.get(PATH + "weights.onnx", token)
    assert (large.status, large.body) == (200, LARGE)
    assert large.header("etag") == f'"{sha256(LARGE).hexdigest()}"'
    assert wire.get(PATH + "small.txt", token).body == SMALL
    part = wire.get(PATH + "weights.onnx", token, headers=(("Range", "bytes=100-2000000"),))
    assert (part.status, part.body) == (206, LARGE[100:2_000_001])
    head = wire.head(PATH + "weights.onnx", token)
    assert (head.status, head.body, head.header("content-length")) == (200, b"", str(len(LARGE)))
    assert (
        wire.get(PATH + "weights.onnx", token, headers=(("If-None-Match", large.header("etag")),)).status
        == 304
    )
    assert wire.get(PATH + "weights.onnx").status == 401
    assert wire.get("/v1/models/globex/cars/1/-/p/w", token).status == 404
    assert installation.outcome_of(large.record_id)["bytes"] == len(LARGE)
    assert installation.outcome_of(part.record_id)["bytes"] == len(part.body)
    installation.run("keys", "revoke", key["key_id"])
    assert wire.get(PATH + "weights.onnx", token).status == 401
