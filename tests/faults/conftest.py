"""Fixtures: a small site for a test to damage: one tenant, one model, one key, and its own gateway."""

from __future__ import annotations

import os
import random
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from gateway.adapters.sample_cache import SampleModel, sample_directory, write_sample_cache
from gateway.directory.edits import keys as key_operations
from gateway.directory.edits.models import add_alias, own
from gateway.directory.edits.tenants import create_tenant
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import parse_model_id, parse_pattern, parse_tenant_id

if TYPE_CHECKING:
    from pathlib import Path

MODEL, PACKAGE = "acme/cars/1", "pkgA1"
SMALL = b"small enough to be sent at once\n"
SMALL_PATH = f"/v1/models/{MODEL}/-/{PACKAGE}/small.bin"
BIG_PATH = f"/v1/models/{MODEL}/-/{PACKAGE}/big.bin"
BIG_BYTES = 24 << 20  # more than all the socket buffers between two ends


@dataclass(frozen=True, kw_only=True)
class Site:
    """An installation with something in it."""

    installation: Any
    token: str = field(repr=False)
    key_id: str
    big: bytes | None = field(repr=False, default=None)

    @property
    def blobs(self) -> Path:
        return self.installation.cache_root / "shared-blobs"

    def place_of(self, handle: str) -> Path:
        """The path of a file's content: its blob."""
        package = self.installation.cache_root / "models-cache" / sample_directory(MODEL) / PACKAGE
        return package.joinpath(handle).readlink()

    def valkey_pid(self) -> int:
        return int((self.installation.state / "valkey" / "valkey.pid").read_text())

    @contextmanager
    def stopped_valkey(self):
        """Within it, the server is reachable but does not answer, as if the network dropped everything."""
        pid = self.valkey_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def records(self, kind: str, **members: Any) -> list[dict[str, Any]]:
        """The audit records of a kind that have these members."""
        return [
            one
            for one in self.installation.records()
            if one["kind"] == kind and all(one.get(name) == value for name, value in members.items())
        ]


@pytest.fixture
def site(installation):
    """A tenant that owns a model with a small file."""
    return furnish(installation, {"small.bin": SMALL})


@pytest.fixture
def site_with_big_file(installation):
    """The same, and a file that takes many steps to send."""
    big = random.Random(7).randbytes(1 << 20) * (BIG_BYTES >> 20)
    big = big[:-4] + b"end\n"
    return furnish(installation, {"small.bin": SMALL, "big.bin": big}, big=big)


@pytest.fixture(scope="module")
def furnished_site(new_installation):
    """One for a whole module, whose tests put everything back."""
    return furnish(new_installation("site"), {"small.bin": SMALL})


@pytest.fixture
def furnish_with(installation):
    """The same with other files."""
    return lambda files: furnish(installation, files)


def furnish(installation, files, **more):
    write_sample_cache(installation.cache_root, [SampleModel(model_id=MODEL, packages={PACKAGE: files})])
    token, key_id = installation.in_session(_furnish)
    return Site(installation=installation, token=token, key_id=key_id, **more)


async def _furnish(session):
    now, acme = session.clock.now(), parse_tenant_id("acme")
    order = KeyOrder(now=now, kind=KeyKind.TENANT, tenant=acme)
    new = issue_key(order, environment="test", peppers=session.peppers)

    async def work(changes):
        await create_tenant(changes, tenant_id=acme, name="Acme", now=now)
        await own(changes, tenant_id=acme, patterns=[parse_pattern("acme/*")])
        await add_alias(changes, alias=parse_model_id("cars"), canonical=parse_model_id(MODEL))
        await key_operations.create_key(changes, key=new.key, digest=new.digest)

    await session.perform("site.furnish", work)
    return new.token, new.key.key_id


@pytest.fixture
def serve():
    """Serve an installation for one test; no traceback may be in its log at the end."""
    running = []

    def start(installation, *, workers=1, is_awaited=True, **environment):
        installation.environment.update(environment)
        gateway = installation.serve(workers=workers, is_awaited=is_awaited)
        running.append(gateway)
        return gateway

    yield start
    for gateway in running:
        gateway.stop()
        assert "Traceback" not in gateway.log(), gateway.log()


class Paths:
    """What the site serves."""

    small, big = SMALL_PATH, BIG_PATH
    alias = f"/v1/models/cars/-/{PACKAGE}/small.bin"
    content = SMALL


@pytest.fixture(scope="session")
def paths():
    return Paths()
