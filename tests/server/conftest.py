"""The real inference server behind the gateway, the real SDK in front of it, a weights provider behind both.

    SDK or a plain client ── Gateway (cachegate serve) ── Server (recorder, inference) ── Provider

All live as long as the session; a test has keys of its own, and reads what the server noted since it began.
The server's models are tenants_models.py's. `clip/*`, `sam2/*` and `classifiers/*` are published, no other
core model is.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.directory.edits import keys
from gateway.identity.new_keys import KeyOrder, import_key, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import TenantId

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "engine")]  # the modules beside us; models and provider are the engine's

from http_client import Answer, post, send
from provider import Provider
from sdk import Sdk
from tenants_models import ALIAS, ALIASES, tenants_models
from upstream import PYTHON, Note, Server

BUILD_SECONDS = 240.0
SERVICE_KEY = "the-operators-key-of-the-inference-server"
PUBLISHED = ("clip/*", "sam2/*", "classifiers/*")


@dataclass
class Upstream:
    """The server with the provider behind it."""

    server: Server
    provider: Provider


@pytest.fixture(scope="session")
def _upstream(tmp_path_factory):
    """Server and models are got ready at once: each takes long."""
    if not (PYTHON.exists() and PYTHON.parents[1].joinpath("ready").exists()):
        pytest.fail("no .venv-server here: `make test-server` makes it")
    folder = tmp_path_factory.mktemp("models")
    tenants, core = folder / "tenants", folder / "core"
    with Provider(tenants_models(tenants, core), ALIASES).running() as provider:
        server = Server(provider.api_url, ALLOW_API_KEY_FROM_HEADERS="True")
        try:
            with ThreadPoolExecutor(2) as pool:
                list(
                    pool.map(
                        _build,
                        (HERE.parent / "engine" / "models.py", HERE / "core_models.py"),
                        (tenants, core),
                    )
                )
            server.await_ready()
            yield Upstream(server, provider)
        finally:
            server.stop()


def _build(script: Path, folder: Path) -> None:
    done = subprocess.run(
        [PYTHON, script, folder],
        check=False,
        timeout=BUILD_SECONDS,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder.parent), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def upstream(_upstream):
    """The server, whose notes begin now; nobody but the operator has a right at the provider."""
    provider = _upstream.provider
    provider.reset()
    provider.grant(SERVICE_KEY, "*")
    _upstream.server.notes.mark()
    return _upstream


@pytest.fixture(scope="session")
def sdk():
    running = Sdk()
    yield running
    running.stop()


@dataclass(frozen=True)
class TenantKey:
    """A tenant's key, as the tenant has it, and its id."""

    tenant: str
    token: str
    key_id: str


@dataclass
class Front:
    """A gateway in front of the server."""

    installation: Any
    gateway: Any
    upstream: Upstream
    mount: str = "/inference"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.wire.port}{self.mount}"

    @property
    def notes(self) -> Any:
        return self.upstream.server.notes

    def key(self, tenant: str = "acme") -> TenantKey:
        """A new key of ours."""
        return self.installation.in_session(lambda session: _new_key(session, tenant))

    def platform_key(self, tenant: str = "acme", *patterns: str) -> TenantKey:
        """A new key of the platform that the gateway knows by its hash, and the provider with these rights."""
        token = secrets.token_hex(10)
        self.upstream.provider.grant(token, *(patterns or (f"{tenant}/*",)))
        return self.installation.in_session(lambda session: _imported_key(session, tenant, token))

    def revoke(self, key: TenantKey) -> None:
        """When this returns, no worker starts anything for the key any more (I6)."""
        self.installation.in_session(lambda session: _revoke(session, key))

    def post(self, target: str, document: Any, key: TenantKey | None = None, **more: Any) -> Answer:
        return post(self.url, target, document, None if key is None else key.token, **more)

    def send(self, method: str, target: str, body: bytes | None = None, headers: Any = ()) -> Answer:
        return send(self.url, method, target, body, headers)

    def record(self, answer: Answer) -> dict[str, Any]:
        """The decision that an answer names."""
        record_id = answer.header("cachegate-record")
        assert record_id is not None, (answer.status, answer.headers)
        return next(one for one in self.installation.records() if one.get("id") == record_id)

    def reason(self, answer: Answer) -> str:
        return str(self.record(answer)["reason"])

    def sent(self) -> list[Note]:
        """What the gateway sent to the server since the test began, but for its own probes."""
        return [note for note in self.notes.requests() if note.path not in ("/healthz", "/readiness", "/info")]


async def _new_key(session, tenant: str) -> TenantKey:
    order = KeyOrder(now=session.clock.now(), kind=KeyKind.TENANT, tenant=TenantId(tenant))
    new = issue_key(order, environment="test", peppers=session.peppers)
    return await _store(session, new, tenant, new.token)


async def _imported_key(session, tenant: str, token: str) -> TenantKey:
    order = KeyOrder(now=session.clock.now(), kind=KeyKind.TENANT, tenant=TenantId(tenant))
    new = import_key(order, sha256_hex=sha256(token.encode()).hexdigest(), peppers=session.peppers)
    return await _store(session, new, tenant, token)


async def _store(session, new, tenant, token) -> TenantKey:
    await session.perform(
        "keys.create",
        lambda changes: keys.create_key(changes, key=new.key, digest=new.digest),
        tenant=TenantId(tenant),
        key_id=new.key.key_id,
    )
    return TenantKey(tenant, token, new.key.key_id)


async def _revoke(session, key: TenantKey) -> None:
    now = session.clock.now()
    await session.perform(
        "keys.revoke",
        lambda changes: keys.revoke_key(changes, key_id=key.key_id, now=now),
        key_id=key.key_id,
    )


@pytest.fixture(scope="session")
def _fronts(_upstream, new_installation):
    """Gateways by their settings, each started when it is first asked for."""
    running: dict[Any, Front] = {}

    def find(**settings: str) -> Front:
        wanted = tuple(sorted(settings.items()))
        if wanted not in running:
            running[wanted] = _serve(new_installation, _upstream, settings)
        return running[wanted]

    yield find
    for front in running.values():
        front.gateway.stop()
        assert "Traceback" not in front.gateway.log(), front.gateway.log()
        front.installation.verify_audit()


def _serve(new_installation, upstream: Upstream, settings: dict[str, str]) -> Front:
    wanted = {"INFERENCE_URL": upstream.server.url, "INFERENCE_KEY": SERVICE_KEY} | settings
    environment = {f"CACHEGATE_{name}": value for name, value in wanted.items() if value}
    installation = new_installation("front", **environment)
    for tenant in ("acme", "globex"):
        installation.run("tenants", "create", tenant)
        installation.run("models", "own", tenant, f"{tenant}/*")
    installation.run("models", "publish", *PUBLISHED)
    installation.run("models", "alias", ALIAS, ALIASES[ALIAS])
    return Front(installation, installation.serve(workers=2), upstream, settings.get("INFERENCE_MOUNT", "/inference"))


@pytest.fixture
def front(_fronts, upstream):
    """The gateway that most tests are about: its facts and keys are ours."""
    return _fronts()


@pytest.fixture
def front_with(_fronts, upstream):
    """A gateway with other settings: `front_with(INFERENCE_KEY="")`."""
    return _fronts
