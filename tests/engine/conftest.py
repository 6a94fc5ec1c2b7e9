"""The real engine as clients, a provider that implements the real protocol, and gateways between the two.

A guarded test has these in a row, each a real process or server:

    Client (the engine) ── Window ── Gateway (cachegate serve) ── Provider (API and storage)

The operator's own engine has filled the cache that the gateway guards, once a session; tenants load into
homes of their own. Gateways live as long as the session; every test has keys of its own, so that it may
revoke them.
"""

from __future__ import annotations

import secrets
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from tests import tenant_keys

sys.path.append(str(Path(__file__).parent))  # the modules beside us, as the benchmarks import theirs

from catalogue import (
    ALIAS,
    ALIASES,
    FIRST_OF_MANY,
    FORGED,
    FRESH,
    KEPT_OUT,
    MANY,
    PACKAGE,
    SECOND_OF_MANY,
    UNHASHED,
    catalogue,
)
from provider import Provider
from tenant import ASK_EVERY_TIME, PYTHON, Client, Engine, Outcome
from window import Request, Window


@pytest.fixture(scope="session")
def engine():
    if not PYTHON.exists():
        pytest.fail("no .venv-engine here: `make test-engine` makes it")
    running = Engine()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def files(engine, tmp_path_factory):
    """The built files of all models."""
    folder = tmp_path_factory.mktemp("models")
    engine.build_models(folder)
    return folder


@pytest.fixture(scope="session")
def _provider(files):
    with Provider(catalogue(files), ALIASES).running() as provider:
        yield provider


@pytest.fixture
def provider(_provider):
    """The provider as it is at first, for this test alone."""
    _provider.reset()
    yield _provider
    _provider.reset()


@pytest.fixture
def unseen(provider):
    """A model of acme's that nobody ever asked for: nothing of it is remembered anywhere."""
    model_id = f"acme/unseen-{secrets.token_hex(4)}/1"
    provider.models[model_id] = replace(provider.models[FRESH], model_id=model_id)
    yield model_id
    del provider.models[model_id]


@pytest.fixture
def start(engine):
    """Start clients that end with the test: `start(home, **variables)`."""
    with ExitStack() as stack:
        yield lambda home, **more: stack.enter_context(engine.client(home, **more))


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@dataclass(frozen=True)
class Filled:
    """A cache that the operator's engine filled, and what its models predict."""

    root: Path
    loads: dict[Any, Outcome]

    def prediction(self, model: str, package: str | None = None) -> Any:
        return self.loads[model, package].prediction


@pytest.fixture(scope="session")
def filled(engine, files, _provider, tmp_path_factory):
    """The operator loads every model but those that are kept out, straight from the provider."""
    root = tmp_path_factory.mktemp("shared") / "cache"
    _provider.reset()
    key = platform_key()
    _provider.grant(key, "*")
    variables = {"ROBOFLOW_API_HOST": _provider.api_url, "OFFLINE_MODE_WARM_UP": "true"}
    wanted = [
        *((model, None) for model in _provider.models if model not in (MANY, *KEPT_OUT)),
        *((MANY, package) for package in (FIRST_OF_MANY, SECOND_OF_MANY)),
        (ALIAS, None),
    ]
    # With ranges, no large file without a digest loads: test_unhashed.py says why.
    with _provider.behaving("storage", has_ranges=False), engine.client(root, **variables) as operator:
        loads = {
            (model, package): operator.load(
                model, key, model_package_id=package, download_files_without_hash=model in UNHASHED
            ).loaded()
            for model, package in wanted
        }
    _provider.reset()
    # Somebody who may write there gives globex a package of that name with acme's blob in it.
    weights = (files / "cars" / "weights.onnx").read_bytes()
    write_sample_cache(root, [SampleModel(model_id=FORGED, packages={PACKAGE: {"weights.onnx": weights}})])
    return Filled(root, loads)


def platform_key() -> str:
    """A key as the platform gives them out; never the same twice."""
    return secrets.token_hex(10)


@dataclass
class Tenant:
    """A tenant's key, and whose it is."""

    name: str
    key: str
    key_id: str | None = None


@dataclass
class Guarded:
    """A gateway, the window in front of it, and the provider behind it."""

    installation: Any
    gateway: Any
    window: Window
    provider: Provider | None
    authority: str
    _before: int = field(default=0)

    def tenant(self, name: str, *patterns: str) -> Tenant:
        """A new key of this tenant, known where the authority looks."""
        tenant = Tenant(name, platform_key())
        if self.provider is not None:
            self.provider.grant(tenant.key, *(patterns or (f"{name}/*",)))
        if self.authority == "local":
            tenant.key_id = self.installation.in_session(
                lambda session: tenant_keys.take_in(session, name, tenant.key)
            )
        return tenant

    def revoke(self, tenant: Tenant) -> None:
        """When this returns, no worker starts anything for the key any more (I6)."""
        self.installation.in_session(lambda session: tenant_keys.revoke(session, tenant.key_id))

    def variables(self, way: str) -> dict[str, str]:
        """What a tenant sets."""
        if way == "host":
            return {"ROBOFLOW_API_HOST": self.window.url}
        # The engine wraps whatever API it would have asked; without a provider, the one it knows.
        host = {} if self.provider is None else {"ROBOFLOW_API_HOST": self.provider.api_url}
        return {"SECURE_GATEWAY": self.window.url, **host}

    @property
    def requests(self) -> list[Request]:
        """What clients asked since this test began."""
        return self.window.requests[self._before :]

    def downloads(self, method: str | None = None) -> list[Request]:
        return [one for one in self.requests if one.is_download and method in (None, one.method)]

    def begin(self) -> Guarded:
        self._before = len(self.window.requests)
        return self


@pytest.fixture(scope="session")
def _gateways(filled, _provider, new_installation):
    """Gateways by their settings, each started when it is first asked for."""
    running: dict[Any, Guarded] = {}

    def find(*, authority: str, has_upstream: bool, relay: bool, shared_links: str) -> Guarded:
        wanted = authority, has_upstream, relay, shared_links
        if wanted not in running:
            relays = "on" if relay else "off"
            settings = {"AUTHORITY": authority, "RELAY": relays, "SHARED_LINKS": shared_links}
            provider = _provider if has_upstream else None
            running[wanted] = _serve(new_installation, filled.root, provider, settings)
        return running[wanted]

    yield find
    for guarded in running.values():
        guarded.gateway.stop()
        guarded.window.close()
        assert "Traceback" not in guarded.gateway.log(), guarded.gateway.log()
        guarded.installation.verify_audit()


def _serve(new_installation, root, provider, settings) -> Guarded:
    window = Window()
    settings |= {"CACHE_ROOT": str(root), "PUBLIC_URL": window.url}
    if provider is not None:
        settings |= {"UPSTREAM": provider.api_url, "PRIVATE_UPSTREAMS": "on"}  # it is on loopback
    environment = {f"CACHEGATE_{name}": value for name, value in settings.items()}
    installation = new_installation("guarded", **environment)
    for tenant in ("acme", "globex"):
        installation.run("tenants", "create", tenant)
        installation.run("models", "own", tenant, f"{tenant}/*")
    installation.run("models", "alias", ALIAS, ALIASES[ALIAS])
    gateway = installation.serve(workers=2)
    window.port = gateway.wire.port
    return Guarded(installation, gateway, window, provider, settings["AUTHORITY"])


@pytest.fixture
def guard(_gateways, provider):
    """The gateway with these settings; by default the facts are ours and a provider is behind it."""

    def find(*, authority="local", has_upstream=True, relay=False, shared_links="any") -> Guarded:
        return _gateways(
            authority=authority, has_upstream=has_upstream, relay=relay, shared_links=shared_links
        ).begin()

    return find


@pytest.fixture
def guarded(guard):
    """The gateway that most tests are about."""
    return guard()


@pytest.fixture
def join(start, tmp_path):
    """Start a tenant's client behind a gateway: `join(guarded, way, "acme")`."""

    def run(guarded: Guarded, way: str, name: str, **variables: str) -> Client:
        wanted = ASK_EVERY_TIME | guarded.variables(way) | variables
        return start(tmp_path / f"home-of-{name}", **wanted)

    return run
