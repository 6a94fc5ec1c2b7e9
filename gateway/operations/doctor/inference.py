"""Doctor, the inference servers: reachable, of a known version, and started as the front door needs it.

A server tells few of its own settings, so they are found by what it does. All questions are harmless: two are
about a model that does not exist, one about an image at a host that does not exist (`.invalid`, RFC 6761),
one has a function compiled that does nothing. The service key goes to the servers as with any request.

What no question finds out is in the environment that `cachegate doctor` prints: start the servers with it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from gateway.adapters.addresses import AddressError, find_addresses
from gateway.adapters.inference_server import InferenceClient, InferenceFailed, InferenceLimits
from gateway.configuration.service_key import load_service_key
from gateway.front_door.table import SERVER_VERSIONS, load_table
from gateway.front_door.values import Answering, Existence
from gateway.front_door.workflows.specification import read_specification
from gateway.front_door.workflows.workload import parse_workload
from gateway.model.errors import CachegateError
from gateway.model.inference import Outbound
from gateway.operations.doctor.findings import fail, ok, run_check, stopped, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.configuration.settings import Settings
    from gateway.front_door.values import ServerRoute
    from gateway.model.inference import InferenceServer
    from gateway.operations.doctor.findings import Finding

ANSWER_SECONDS = 20.0  # the server asks the platform in it
MAX_ANSWER_BYTES = 4 << 20  # of its OpenAPI document
_LIMITS = InferenceLimits(first_byte_seconds=ANSWER_SECONDS, idle_seconds=ANSWER_SECONDS)
_OK, _NOT_KNOWN_KEY, _NOT_FOUND = 200, 401, 404

INFERENCE_ENVIRONMENT = {
    "ALLOW_API_KEY_FROM_HEADERS": "True",
    "ROBOFLOW_API_KEY": "",
    "API_KEY": "",
    "ALLOW_URL_INPUT": "False",
    "ALLOW_NON_HTTPS_URL_INPUT": "False",
    "ALLOW_URL_TO_NON_GLOBAL_ADDRESSES": "False",
    "VALIDATE_IMAGE_URL_REDIRECTS": "True",
    "ALLOW_LOADING_IMAGES_FROM_LOCAL_FILESYSTEM": "False",
    "ALLOW_NUMPY_INPUT": "False",
    "ALLOW_LOCAL_STORAGE_ACCESS_FOR_REFERENCE_DATA": "",
    "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES": "False",
    "ALLOW_CUSTOM_PYTHON_EXECUTION_IN_WORKFLOWS": "False",
    "ALLOW_WORKFLOW_BLOCKS_ACCESSING_LOCAL_STORAGE": "False",
    "ALLOW_WORKFLOW_BLOCKS_ACCESSING_ENVIRONMENTAL_VARIABLES": "False",
    "ALLOW_WEBHOOK_WORKFLOWS_SINK_TO_NON_GLOBAL_ADDRESSES": "False",
    "ALLOW_POSTGRESQL_WORKFLOWS_SINK_TO_NON_GLOBAL_ADDRESSES": "False",
    "WORKFLOWS_STEP_EXECUTION_MODE": "local",
    "ALLOW_ORIGINS": "",
    "ACTIVE_LEARNING_ENABLED": "False",
    "ENABLE_IN_MEMORY_LOGS": "False",
    "ENABLE_BUILDER": "False",
    "ENABLE_DASHBOARD": "False",
    "ENABLE_STREAM_API": "False",
    "NOTEBOOK_ENABLED": "False",
    "METRICS_ENABLED": "False",
    "TELEMETRY_OPT_OUT": "True",
}
"""What to start an inference server behind the front door with."""

_AN_IMAGE = {
    "specification": {
        "version": "1.0",
        "inputs": [{"type": "WorkflowImage", "name": "image"}],
        "steps": [],
        "outputs": [{"type": "JsonField", "name": "image", "selector": "$inputs.image"}],
    },
    "inputs": {"image": {"type": "url", "value": "https://doctor.cachegate.invalid/x.png"}},
}
_A_WORKFLOW = {"version": "1.0", "inputs": [], "steps": [], "outputs": []}
_NO_BLOCK = {
    "type": "DynamicBlockDefinition",
    "manifest": {
        "type": "ManifestDescription",
        "block_type": "CachegateDoctor",
        "inputs": {},
        "outputs": {"nothing": {"type": "DynamicOutputDefinition", "kind": []}},
    },
    "code": {"type": "PythonCode", "run_function_code": "def run(self):\n    return {}\n"},
}
_SOME_PYTHON = {
    "version": "1.0",
    "inputs": [],
    "steps": [],
    "outputs": [],
    "dynamic_blocks_definitions": [_NO_BLOCK],
}
_ORIGIN = b"https://doctor.cachegate.invalid"
_OTHER = f"install inference {', '.join(SERVER_VERSIONS)}"
_NO_URLS = b"Providing images via URL is not supported"


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


async def check_inference(settings: Settings) -> list[Finding]:
    """All findings about the inference servers; none where the front door is not set."""
    if not settings.inference_url:
        return []
    key, finding = None, check_key(settings)
    if finding.health == "ok":
        key = load_service_key(settings)
    client = InferenceClient(_LIMITS)
    try:
        found = await asyncio.gather(*(_look_at(client, one, key) for one in settings.inference_url))
    finally:
        await client.close()
    return [finding, *(one for findings in found for one in findings)]


def check_key(settings: Settings) -> Finding:
    """The operator's key for the servers. Without one, only keys of the platform can run models."""

    def check() -> Finding:
        if load_service_key(settings) is None:
            found = "none is set: callers with keys of ours cannot run models, those of the platform can"
            return warning("inference key", found, "set CACHEGATE_INFERENCE_KEY_FILE")
        source = settings.inference_key_file or "CACHEGATE_INFERENCE_KEY"
        return ok("inference key", f"from {source}")

    return run_check("inference key", check)


async def _look_at(client: InferenceClient, server: InferenceServer, key: str | None) -> list[Finding]:
    name = f"inference server {server.name}"
    asking = _Asking(client, server.url)
    findings = await _check_address(server, name)
    try:
        findings.append(await _check_version(asking, name))
    except InferenceFailed as failure:
        return [*findings, fail(name, failure.why, f"is {server.url} right, and does the server run?")]
    checks = {
        "keys": _check_header,
        "flags": _check_flags,
        "routes": _check_routes,
        "workflows": _check_workflows,
    }
    for title, check in ((f"{name}: {topic}", check) for topic, check in checks.items()):
        try:
            findings.append(await check(asking, title, key))
        except InferenceFailed as failure:
            findings.append(fail(title, failure.why, "run `cachegate doctor` again; look at its log"))
        except CachegateError as failure:
            findings.append(stopped(title, failure))
    return findings


async def _check_address(server: InferenceServer, name: str) -> list[Finding]:
    """Whether keys and images cross a network of others in plain text."""
    url = urlsplit(server.url)
    if url.scheme != "http" or url.hostname is None:
        return []
    try:
        await find_addresses(url.hostname, url.port or 80, may_be_private=False)
    except AddressError:  # it is private, or has none: then it is not reached either
        return []
    found = f"{server.url} is at a public address: keys and images go there in plain text"
    return [warning(f"{name}: address", found, "use https, or a private address")]


async def _check_version(asking: _Asking, name: str) -> Finding:
    info = await asking.ask("GET", b"/info")
    version = _member(info.body, "version")
    if info.status != _OK or not isinstance(version, str):
        return fail(
            name, "it answers, and not as an inference server does", "correct CACHEGATE_INFERENCE_URL"
        )
    ready = await asking.ask("GET", b"/readiness")
    if ready.status != _OK:
        found = f"version {version}, not ready (/readiness: {ready.status})"
        return warning(name, found, "it gets no requests until it is ready; look at its log")
    if version not in SERVER_VERSIONS:
        known = ", ".join(SERVER_VERSIONS)
        return fail(
            name,
            f"version {version}, whose routes are not known here",
            f"install inference {known}: how another version reads a request was not checked",
        )
    return ok(name, f"version {version}, ready")


async def _check_header(asking: _Asking, name: str, key: str | None) -> Finding:
    """Whether the server takes the key that the gateway puts in, and none of its own."""
    without = await asking.add_model()
    if without.status != _NOT_KNOWN_KEY:
        return fail(
            name,
            f"a request without a key is not refused as one (status {without.status} for a model that does "
            "not exist): the server has a key of its own, which everybody then uses",
            "start it without ROBOFLOW_API_KEY and API_KEY",
        )
    if key is None:
        found = "it has no key of its own; whether it reads the Authorization header was not checked"
        return warning(name, found, "set CACHEGATE_INFERENCE_KEY_FILE and run this again")
    in_body = await asking.add_model(body_key=key)
    if in_body.status == _NOT_KNOWN_KEY:
        return fail(name, "the platform does not know the inference key", "correct CACHEGATE_INFERENCE_KEY")
    in_header = await asking.add_model(header_key=key)
    if in_header.status == _NOT_KNOWN_KEY:
        return fail(
            name,
            "it does not read the Authorization header, where the gateway puts the key",
            "start it with ALLOW_API_KEY_FROM_HEADERS=True",
        )
    if in_header.status != in_body.status:
        found = (
            f"not sure: status {in_header.status} with the key in the header, {in_body.status} in the body"
        )
        return warning(name, found, "does the platform answer? Run this again")
    return ok(name, "it reads the key that the gateway puts in, and has none of its own")


async def _check_flags(asking: _Asking, name: str, _key: str | None) -> Finding:
    """The flags whose effect can be seen from outside."""
    image = await asking.ask("POST", b"/workflows/run", _AN_IMAGE)
    python = await asking.ask("POST", b"/workflows/validate", _SOME_PYTHON)
    asks_cors = ((b"origin", _ORIGIN), (b"access-control-request-method", b"POST"))
    preflight = await asking.ask("OPTIONS", b"/infer/classification", headers=asks_cors)
    logs = await asking.ask("GET", b"/logs")
    dashboard = await asking.ask("GET", b"/dashboard.html")
    schema = await asking.ask("GET", b"/openapi.json")
    paths = _member(schema.body, "paths")
    streams = isinstance(paths, dict) and any(path.startswith("/inference_pipelines") for path in paths)
    builder = isinstance(paths, dict) and any(path.startswith("/build") for path in paths)
    # A server without workflows answers 404 or 405 to these.
    has_workflows = image.status not in {_NOT_FOUND, 405}
    is_open = {
        "ALLOW_URL_INPUT": has_workflows and _NO_URLS not in image.body,
        "ALLOW_CUSTOM_PYTHON_EXECUTION_IN_WORKFLOWS": python.status == _OK,
        "ALLOW_ORIGINS": preflight.headers.get(b"access-control-allow-origin") in {_ORIGIN, b"*"},
        "ENABLE_IN_MEMORY_LOGS": logs.status == _OK,
        "ENABLE_DASHBOARD": dashboard.status == _OK,
        "ENABLE_STREAM_API": streams,
        "ENABLE_BUILDER": builder,
    }
    found = [flag for flag, is_set in is_open.items() if is_set]
    if not found:
        return ok(name, "those that can be seen from outside are closed")
    shown = ", ".join(f"{flag}={INFERENCE_ENVIRONMENT[flag]}" for flag in found)
    return warning(name, f"open: {', '.join(found)}", f"start it with {shown}")


async def _check_routes(asking: _Asking, name: str, _key: str | None) -> Finding:
    """Which routes of the table are switched off on the server: requests for them are refused there."""
    schema = await asking.ask("GET", b"/openapi.json")
    paths = _member(schema.body, "paths")
    if not isinstance(paths, dict):
        return warning(name, "it does not tell which it has", "does it answer /openapi.json?")
    missing = [route.path for route in _usual_routes() if not _has_route(paths, route)]
    if not missing:
        return ok(name, "all that are open to tenants are there")
    found = f"switched off: {', '.join(sorted(missing))}"
    return warning(name, found, "requests for these are refused by it; switch them on if tenants need them")


def _usual_routes() -> list[ServerRoute]:
    """The routes that every server has and tenants may use, but for those that the gateway answers itself."""
    sent = {Answering.PASS, Answering.MODELS, Answering.REGISTRY}
    routes = load_table(SERVER_VERSIONS[-1]).routes
    return [one for one in routes if one.exists is Existence.ALWAYS and one.answering in sent]


def _has_route(paths: dict[str, Any], route: ServerRoute) -> bool:
    """Whether a schema has a route. It writes parameters without their types: `{model_id}`."""
    methods = paths.get(re.sub(r":[a-z]+\}", "}", route.path))
    return isinstance(methods, dict) and route.method.lower() in methods


async def _check_workflows(asking: _Asking, name: str, _key: str | None) -> Finding:
    """Whether the server says what a workflow will do: without that, tenants run none on it."""
    info = await asking.ask("GET", b"/info")
    version = _member(info.body, "version")
    if version not in SERVER_VERSIONS:
        return warning(name, f"tenants run none: what version {version} says of them is not known", _OTHER)
    specification = read_specification(_A_WORKFLOW)
    document = {"api_key": "local", "specification": _A_WORKFLOW}
    answer = await asking.ask("POST", b"/workflows/describe_workload", document)
    if answer.status in {_NOT_FOUND, 405}:
        found = "tenants run none: the server does not say what a workflow will do"
        return warning(name, found, "start it without DISABLE_WORKFLOW_WORKLOAD_ENDPOINTS, with workflows")
    if answer.status != _OK:
        found = f"not sure: status {answer.status} for a workflow without steps"
        return warning(name, found, "run `cachegate doctor` again; look at its log")
    parse_workload(answer.body, specification)
    return ok(name, "it says what a workflow will load and do")


class _Asking:
    """Asks one server."""

    def __init__(self, client: InferenceClient, url: str) -> None:
        self._client, self._url = client, url

    async def ask(
        self,
        method: str,
        target: bytes,
        document: Any = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> _Answer:
        """One question and its whole answer. Raises `InferenceFailed`."""
        body = None if document is None else msgspec.json.encode(document)
        kind = () if document is None else ((b"content-type", b"application/json"),)
        question = Outbound(method=method, target=target, headers=(*kind, *headers), body=body)
        answer = await self._client.send(self._url, question)
        read = await answer.read_whole(MAX_ANSWER_BYTES)
        return _Answer(status=answer.status, headers=dict(answer.headers), body=read)

    async def add_model(self, *, body_key: str | None = None, header_key: str | None = None) -> _Answer:
        """Ask for a model that does not exist, a new one each time, since answers are kept."""
        document = {"model_id": f"cachegate-doctor-{secrets.token_hex(8)}/1"}
        if body_key is not None:
            document["api_key"] = body_key
        headers = () if header_key is None else ((b"authorization", f"Bearer {header_key}".encode("ascii")),)
        return await self.ask("POST", b"/model/add", document, headers)


def _member(body: bytes, name: str) -> Any:
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return document.get(name) if isinstance(document, dict) else None
