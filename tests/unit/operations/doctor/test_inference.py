"""A server over sockets that answers doctor's questions as inference 1.8.3 was seen to, by its flags."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.adapters import addresses
from gateway.adapters.inference_server import InferenceClient, InferenceFailed
from gateway.configuration.settings import Settings
from gateway.front_door.table import load_table
from gateway.front_door.values import Existence
from gateway.model.inference import InferenceServer
from gateway.operations.doctor.findings import Level
from gateway.operations.doctor.inference import INFERENCE_ENVIRONMENT, check_inference

pytestmark = pytest.mark.anyio

KEY = "the-operators-key"
ROUTES = [
    one for one in load_table("1.8.3").routes if one.exists is Existence.ALWAYS and "*" not in one.method
]
SHOWN = {"/logs": "ENABLE_IN_MEMORY_LOGS", "/dashboard.html": "ENABLE_DASHBOARD"}


class Server:
    def __init__(self):
        self.version, self.is_ready = "1.8.3", True
        self.reads_header, self.own_key, self.known_keys = True, None, {KEY}
        self.open_flags = set()
        # As FastAPI writes them: a parameter without its type.
        self.routes = [(one.method.lower(), re.sub(r":\w+}", "}", one.path)) for one in ROUTES]
        self.has_workflows = self.describes = True
        self.asked = []
        self._serving = []

    @asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.name = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            await asyncio.gather(*self._serving)  # doctor has closed its connections

    async def _serve(self, reader, writer):
        self._serving.append(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split("\r\n")[0].split(" ")
                pairs = (line.partition(": ") for line in head.split("\r\n")[1:] if line)
                headers = {name.lower(): value for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.asked.append((method, target, body))
                status, more, answer = self._answer(target, headers, body)
                text = answer if isinstance(answer, str) else json.dumps(answer)
                writer.write(
                    f"HTTP/1.1 {status} X\r\n{more}content-length: {len(text)}\r\n\r\n{text}".encode()
                )
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()

    def _answer(self, target, headers, body):
        status, more, answer = 200, "", {}
        if target == "/info":
            answer = {"name": "Roboflow Inference Server", "version": self.version, "uuid": "abcdef"}
        elif target == "/readiness":
            status = 200 if self.is_ready else 503
        elif target == "/model/add":
            status = self._add(headers, json.loads(body))
        elif target.startswith("/workflows/") and not self.has_workflows:
            status = 405
        elif target == "/workflows/run":
            status = 400
            cause = (
                "Providing images via URL without FQDN is not supported in this configuration"
                if "ALLOW_URL_INPUT" in self.open_flags
                else "Providing images via URL is not supported in this configuration"
            )
            answer = {"message": cause}
        elif target == "/workflows/describe_workload":
            status = 200 if self.describes else 404
            answer = {"type": "workflow_introspection_v1", "nodes": [], "steps": []}
        elif target == "/workflows/validate":
            status = 200 if "ALLOW_CUSTOM_PYTHON_EXECUTION_IN_WORKFLOWS" in self.open_flags else 400
        elif target == "/infer/classification" and "ALLOW_ORIGINS" in self.open_flags:
            more = f"access-control-allow-origin: {headers['origin']}\r\n"
        elif target == "/infer/classification":
            status = 400
        elif target in SHOWN:
            status = 200 if SHOWN[target] in self.open_flags else 404
        elif target == "/openapi.json":
            answer = {"paths": self._paths()}
        return status, more, answer

    def _paths(self):
        paths = {}
        for method, path in self.routes:
            paths.setdefault(path, {})[method] = {}
        if "ENABLE_STREAM_API" in self.open_flags:
            paths["/inference_pipelines/list"] = {}
        if "ENABLE_BUILDER" in self.open_flags:
            paths["/build/api"] = {}
        return paths

    def _add(self, headers, document):
        given = headers.get("authorization", "").removeprefix("Bearer ") if self.reads_header else ""
        key = given or document.get("api_key") or self.own_key
        return 404 if key in self.known_keys else 401


@pytest.fixture
async def server():
    async with Server().running() as running:
        yield running


async def run_check(server, **settings):
    """The findings by their names, without the server's."""
    one = InferenceServer(url=f"http://{server.name}")
    wanted = {"inference_key": KEY} | settings
    found = await check_inference(Settings(inference_url=(one,), **wanted))
    return {finding.name.replace(f"inference server {server.name}", "server"): finding for finding in found}


async def test_without_a_front_door_nothing_is_looked_at():
    assert not await check_inference(Settings())


async def test_a_server_as_it_should_be_is_in_order(server):
    found = await run_check(server)
    assert {name: one.health for name, one in found.items()} == {
        "inference key": Level.OK,
        "server": Level.OK,
        "server: keys": Level.OK,
        "server: flags": Level.OK,
        "server: routes": Level.OK,
        "server: workflows": Level.OK,
    }


async def test_a_server_that_ignores_the_header_is_a_failure(server):
    server.reads_header = False
    found = (await run_check(server))["server: keys"]
    assert found.health is Level.FAIL
    assert "ALLOW_API_KEY_FROM_HEADERS=True" in found.advice


async def test_a_server_with_a_key_of_its_own_is_a_failure(server):
    server.own_key = KEY
    found = (await run_check(server))["server: keys"]
    assert found.health is Level.FAIL
    assert "ROBOFLOW_API_KEY" in found.advice


async def test_a_key_that_the_platform_does_not_know_is_a_failure(server):
    server.known_keys = set()
    found = (await run_check(server))["server: keys"]
    assert found.health is Level.FAIL
    assert "CACHEGATE_INFERENCE_KEY" in found.advice


async def test_without_a_key_nothing_is_claimed_about_the_header(server):
    found = await run_check(server, inference_key=None)
    assert found["inference key"].health is Level.WARNING
    assert found["server: keys"].health is Level.WARNING


@pytest.mark.parametrize(
    "flag",
    [
        "ALLOW_URL_INPUT",
        "ALLOW_CUSTOM_PYTHON_EXECUTION_IN_WORKFLOWS",
        "ALLOW_ORIGINS",
        "ENABLE_IN_MEMORY_LOGS",
        "ENABLE_DASHBOARD",
        "ENABLE_STREAM_API",
        "ENABLE_BUILDER",
    ],
)
async def test_a_flag_that_should_be_closed_is_named_with_its_value(server, flag):
    server.open_flags = {flag}
    found = (await run_check(server))["server: flags"]
    assert found.health is Level.WARNING
    assert found.found == f"open: {flag}"
    assert found.advice == f"start it with {flag}={INFERENCE_ENVIRONMENT[flag]}"


async def test_a_server_without_workflows_has_none_of_their_flags_open(server):
    server.has_workflows = False
    assert (await run_check(server))["server: flags"].health is Level.OK


async def test_routes_that_are_switched_off_are_named(server):
    server.routes = [one for one in server.routes if "clip" not in one[1]]
    server.routes.remove(("get", "/model/registry"))
    server.routes.remove(("post", "/infer/lmm/{model_id}"))
    found = (await run_check(server))["server: routes"]
    assert found.health is Level.WARNING
    assert found.found == (
        "switched off: /clip/compare, /clip/embed_image, /clip/embed_text, /infer/lmm/{model_id:path}, "
        "/model/registry"
    )


@pytest.mark.parametrize(
    ("url", "address", "warns"),
    [
        ("http://gpu.example:9001", "203.0.114.5", True),
        ("http://gpu.example", "2606:4700::1", True),
        ("http://198.18.0.1:9001", None, False),
        ("http://8.8.8.8:9001", None, True),
        ("http://gpu.example:9001", "10.0.0.5", False),
        ("https://gpu.example", "203.0.114.5", False),
    ],
)
async def test_plain_http_to_a_public_address_is_named(monkeypatch, url, address, warns):
    if address is not None:

        async def look_up(_host, _port):
            return [addresses.ipaddress.ip_address(address)]

        monkeypatch.setattr(addresses, "_look_up", look_up)
    monkeypatch.setattr(InferenceClient, "send", no_answer)
    found = await check_inference(Settings(inference_url=(InferenceServer(url=url),), inference_key=KEY))
    named = [one for one in found if one.name.endswith(": address")]
    assert [one.health for one in named] == [Level.WARNING] * warns
    assert found[-1].health is Level.FAIL  # nobody is there


async def no_answer(*_arguments, **_more):
    raise InferenceFailed("not reached", was_sent=False, is_of_server=True)


async def test_a_server_that_does_not_say_what_a_workflow_will_do_runs_none(server):
    for server.has_workflows, server.describes in ((True, False), (False, True)):
        found = (await run_check(server))["server: workflows"]
        assert found.health is Level.WARNING
        assert "tenants run none" in found.found
    described = [body for _, target, body in server.asked if target == "/workflows/describe_workload"]
    assert all(json.loads(body)["api_key"] == "local" for body in described)


async def test_another_version_is_a_failure_and_runs_no_workflows(server):
    server.version = "9.9.9"
    found = await run_check(server)
    assert found["server"].health is Level.FAIL
    assert "tenants run none" in found["server: workflows"].found


async def test_a_server_that_is_not_ready_is_a_warning(server):
    server.is_ready = False
    assert (await run_check(server))["server"].health is Level.WARNING


async def test_something_else_at_the_address_is_a_failure(server):
    server.version = None
    assert (await run_check(server))["server"].health is Level.FAIL


async def test_a_server_that_is_not_there_is_a_failure_and_hides_no_other(server):
    gone = InferenceServer(url="http://127.0.0.1:1")
    there = InferenceServer(url=f"http://{server.name}")
    found = await check_inference(Settings(inference_url=(gone, there), inference_key=KEY))
    assert [one.health for one in found] == [Level.OK, Level.FAIL, *[Level.OK] * 5]


async def test_no_model_is_asked_for_twice(server):
    await run_check(server)
    models = [json.loads(body)["model_id"] for _, target, body in server.asked if target == "/model/add"]
    assert len(models) == len(set(models)) == 3


async def test_the_key_is_in_no_finding(server, tmp_path):
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o644)  # and so is no key: others may read it
    for settings in ({}, {"inference_key": None, "inference_key_file": file}):
        server.reads_header = False
        found = await run_check(server, **settings)
        assert KEY not in str(found)


async def test_a_key_file_that_others_may_read_is_a_failure(server, tmp_path):
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o644)
    found = await run_check(server, inference_key=None, inference_key_file=file)
    assert found["inference key"].health is Level.FAIL
    file.chmod(0o600)
    found = await run_check(server, inference_key=None, inference_key_file=file)
    assert found["inference key"].health is Level.OK
    assert found["server: keys"].health is Level.OK


def test_the_example_in_deploy_is_the_environment_that_is_printed():
    text = (Path(__file__).parents[4] / "deploy/inference/inference.env").read_text()
    lines = [line.partition("=") for line in text.splitlines() if not line.startswith("#")]
    assert {name: value for name, _, value in lines} == INFERENCE_ENVIRONMENT
