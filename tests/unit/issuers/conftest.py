"""A real Valkey, a real issuer, and what a worker makes of both."""

from __future__ import annotations

import socket
from urllib.parse import unquote, urlsplit

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.key_set_client import KeySetClient
from gateway.adapters.redis_store import RedisStore
from gateway.directory.edits.changes import change
from gateway.directory.edits.tenants import create_tenant
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.issuers.key_sets import KeySets
from gateway.model.facts import Scope
from gateway.model.issuers import ClaimMatch, Issuer, MappingRule
from gateway.model.names import TenantId
from gateway.registrar import Done
from tests import outside_issuer


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    issuer = outside_issuer.Issuer(tmp_path_factory.mktemp("issuer"))
    yield issuer
    issuer.stop()


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory):
    with EmbeddedValkey(tmp_path_factory.mktemp("state")).running() as url:
        yield url


@pytest.fixture
async def store(valkey_url):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(unquote(urlsplit(valkey_url).path))
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(64) == b"+OK\r\n"
    store = RedisStore(valkey_url)
    yield store
    await store.close()


@pytest.fixture
def listing(store):
    return Listing(PlainFacts(store))


@pytest.fixture
def document(outside):
    """The issuer as a document describes it."""
    return Issuer(
        source="policies:issuers/ci",
        url=outside.url,
        audience=outside_issuer.AUDIENCE,
        key_set_url=outside.key_set_url,
        algorithms=("RS256",),
        types=("jwt",),
        leeway_seconds=0,
        max_lifetime_seconds=600,
        max_bindings=3,
        rules=(
            MappingRule(
                name="main",
                tenant=TenantId("acme"),
                claims=(ClaimMatch(claim="ref", values=("main",)),),
                scopes=frozenset({Scope.READ}),
            ),
        ),
    )


@pytest.fixture
async def in_force(store, document):
    async def put(changes):
        await create_tenant(changes, tenant_id=TenantId("acme"), name="", now=1.0)
        await changes.put_issuer(document)

    await change(store, put)
    return document


@pytest.fixture
def recorded(store):
    """Makes changes as the registrar does, and keeps what they said of themselves."""
    kept = []

    async def perform(what, operation):
        kept.append(what)
        return Done(*await change(store, operation))

    perform.kept = kept
    return perform


@pytest.fixture
async def build_worker(store, outside, recorded, monkeypatch):
    """Make the key sets of a worker."""
    monkeypatch.setenv("SSL_CERT_FILE", outside.authority)
    outside.behave("well")
    made = []

    def build(name="w"):
        failures = []
        worker = KeySets(
            client=KeySetClient(private_issuers=True),
            store=store,
            perform=recorded,
            forget=lambda _names: None,
            clock=SystemClock(),
            worker=name,
            on_failure=failures.append,
        )
        worker.failures = failures
        made.append(worker)
        return worker

    yield build
    for one in made:
        await one.close()
