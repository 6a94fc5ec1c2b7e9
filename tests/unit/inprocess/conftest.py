"""The demo's data on a real server, a guarded process, and a caller that behaves like the engine."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from gateway.directory.edits.grants import add_grants
from gateway.directory.edits.keys import create_key, revoke_key
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.inprocess.engine import EngineErrors
from gateway.inprocess.process import GuardedProcess
from gateway.model.facts import KeyKind
from gateway.model.names import PackageId, Pattern, TenantId
from gateway.operations.session import open_session

if TYPE_CHECKING:
    from gateway.configuration.settings import Settings
    from gateway.demo.world import DemoWorld


@dataclass
class Installed:
    """Where the installation is, what is in it, and what an operator would do with it."""

    settings: Settings
    world: DemoWorld

    def token(self, name: str) -> str:
        return self.world.keys[name].token

    def new_key(self, tenant: str, *networks: str) -> tuple[str, str]:
        """A key for one test: its token and its id."""

        async def work() -> tuple[str, str]:
            async with open_session(self.settings) as session:
                order = KeyOrder(
                    now=session.clock.now(),
                    kind=KeyKind.TENANT,
                    tenant=TenantId(tenant),
                    networks=networks,
                )
                new = issue_key(order, environment="demo", peppers=session.peppers)
                await session.perform(
                    "keys.create", lambda changes: create_key(changes, key=new.key, digest=new.digest)
                )
                return new.token, new.key.key_id

        return asyncio.run(work())

    def revoke(self, key_id: str) -> None:
        async def work() -> None:
            async with open_session(self.settings) as session:
                await session.perform(
                    "keys.revoke",
                    lambda changes: revoke_key(changes, key_id=key_id, now=session.clock.now()),
                    key_id=key_id,
                )

        asyncio.run(work())

    def grant(self, tenant: str, model: str, *packages: str, actions: tuple[str, ...] = ("infer",)) -> None:
        async def work() -> None:
            async with open_session(self.settings) as session:
                await session.perform(
                    "grants.add",
                    lambda changes: add_grants(
                        changes,
                        tenant_id=TenantId(tenant),
                        models=[Pattern(model)],
                        packages=[PackageId(one) for one in packages],
                        actions=list(actions),
                    ),
                    tenant=tenant,
                )

        asyncio.run(work())

    def record(self, record_id: str) -> dict[str, Any]:
        return next(one for one in self.records() if one["id"] == record_id)

    def records(self) -> list[dict[str, Any]]:
        paths = sorted(self.settings.audit_folder.glob("*.jsonl"))
        lines = (line for path in paths for line in path.read_bytes().split(b"\n")[:-1])
        return [json.loads(line) for line in lines]


@dataclass
class FakeEngine:
    """Calls an access manager's hooks in the engine's order, and keeps what it did between them.

    `canonical` and `packages` are what the provider would answer.
    """

    errors: EngineErrors
    canonical: dict[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ("pkgA1",)
    dependencies: tuple[str, ...] = ()
    cached: str | None = None
    events: list[str] = field(default_factory=list)
    during_load: Any = None

    def load(self, manager: Any, model: str, key: str | None, digest: str = "d1") -> str:
        if manager.is_model_access_forbidden(model_id=model, api_key=key):
            raise self.errors.unauthorized
        canonical = self.canonical.get(model, model)
        kept = self._kept(manager, model, key, digest)
        if kept is not None:
            return kept
        if self.cached is not None and manager.is_model_package_access_granted(
            model_id=canonical, package_id=self.cached, api_key=key
        ):
            self.events.append("from cache")
            return f"{canonical}/{self.cached}"
        self.events.append("metadata")
        if canonical != model:
            manager.on_model_alias_discovered(alias=model, model_id=canonical)
        for one in self.dependencies:
            manager.on_model_dependency_discovered(
                base_model_id=one, base_model_package_id=None, dependent_model_id=canonical
            )
        for package in self.packages:
            manager.on_model_package_access_granted(Identifiers(canonical, package, key))
        kept = self._kept(manager, model, key, digest)
        if kept is not None:
            return kept
        for one in self.dependencies:
            FakeEngine(self.errors, events=self.events).load(manager, one, key, f"{digest}-{one}")
        return self._load_any(manager, canonical, key)

    def _kept(self, manager, model, key, digest):
        return manager.retrieve_model_instance(
            model_id=model, package_id=None, api_key=key, loading_parameter_digest=digest
        )

    def _load_any(self, manager, canonical, key):
        for package in self.packages:
            self.events.append(f"download {canonical}/{package}")
            if self.during_load is not None:
                self.during_load()
            model = f"{canonical}/{package}"
            try:
                manager.on_model_loaded(
                    model=model,
                    access_identifiers=Identifiers(canonical, package, key),
                    model_storage_path="/x",
                )
            except Exception:  # noqa: BLE001 -- as the engine does: the next package is tried
                continue
            return model
        raise self.errors.exhausted


@dataclass(frozen=True)
class Identifiers:
    model_id: str
    package_id: str
    api_key: str | None


@pytest.fixture(scope="session")
def installed(copy_of_demo):
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    made = copy_of_demo(folder)
    yield Installed(made.settings, made.world)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def process(installed):
    """Not for the whole session: its threads would go on beside tests that look at threads and parsers."""
    with GuardedProcess(installed.settings) as process:
        yield process


@pytest.fixture
def errors():
    names = [one.name for one in msgspec.structs.fields(EngineErrors)]
    return EngineErrors(**{name: type(name, (Exception,), {}) for name in names})


@pytest.fixture
def engine(errors):
    return FakeEngine(errors)
