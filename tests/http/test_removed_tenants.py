"""Off-boarding over real sockets, by two workers with warm memories, and what a tenant of the same name gets.

The attacker is a former customer who kept everything: a key, a token, signed links, a transfer that has
begun; and somebody else takes the name. All of it is tried at once.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from functools import partial
from urllib.parse import urlencode, urlsplit

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.edits.keys import create_key
from gateway.directory.edits.tenants import create_tenant
from gateway.directory.removal import taking
from gateway.identity.new_keys import KeyOrder, KeyState, issue_key
from gateway.model.errors import Conflict
from gateway.model.facts import KeyKind
from gateway.model.names import TenantId
from gateway.operations.listings import list_keys
from gateway.operations.removal import RESTORABLE_SECONDS, remove_tenant
from tests.conftest import request_bytes

PUBLIC_URL = "https://models.example"
LARGE_WEIGHTS = random.Random(7).randbytes(24 << 20)  # more than the buffers of two sockets and a step hold
CACHE = [
    SampleModel(model_id="acme/1", packages={"pkgA1": {"weights.onnx": b"acme's own\n" * 30}}),
    SampleModel(model_id="acme/large", packages={"pkgL1": {"weights.onnx": LARGE_WEIGHTS}}),
    SampleModel(model_id="globex/1", packages={"pkgG1": {"weights.onnx": b"lent to acme\n" * 30}}),
]
OWN, LENT = "/v1/models/acme/1/-/pkgA1/weights.onnx", "/v1/models/globex/1/-/pkgG1/weights.onnx"
LARGE = "/v1/models/acme/large/-/pkgL1/weights.onnx"


class Site:
    def __init__(self, installation, gateway):
        self.installation, self.gateway, self.wire = installation, gateway, gateway.wire
        self.run = installation.run

    def key(self, tenant):
        return self.installation.json("keys", "create", "--tenant", tenant)["token"]

    def token(self, key):
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": key,
            "subject_token_type": "urn:cachegate:token-type:api-key",
        }
        body = urlencode(form).encode()
        headers = (("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(body))))
        answer = self.wire.send(request_bytes("POST", "/v1/token", headers=headers, is_last=True) + body)
        return answer.json()["access_token"]

    def statuses(self, key=None, *paths):
        """What each worker answers, by connections of their own."""
        return {self.wire.get(path, key).status for path in paths or (OWN, LENT) for _ in range(8)}


@pytest.fixture(scope="module")
def site(new_installation):
    installation = new_installation("removed", CACHEGATE_PUBLIC_URL=PUBLIC_URL)
    write_sample_cache(installation.cache_root, CACHE)
    for tenant in ("globex", "initech"):
        installation.run("tenants", "create", tenant)
    installation.run("models", "own", "globex", "globex/*")
    gateway = installation.serve(workers=2)
    try:
        yield Site(installation, gateway)
    finally:
        gateway.stop()
    assert "Traceback" not in gateway.log(), gateway.log()
    installation.verify_audit()


@pytest.fixture
def acme(site):
    """A tenant with models of its own, which others may read, and something lent to it."""
    for arguments in (
        ("tenants", "create", "acme"),
        ("models", "own", "acme", "acme/*"),
        ("grants", "add", "--tenant", "acme", "--models", "globex/*"),
        ("grants", "add", "--tenant", "initech", "--models", "acme/1"),
    ):
        site.run(*arguments)
    yield site.key("acme")
    site.installation.run("tenants", "remove", "acme", "--yes", status=None)


def furnish_again(site):
    """Somebody else gets the name, and the same patterns."""
    site.run("tenants", "create", "acme")
    site.run("models", "own", "acme", "acme/*")
    site.run("grants", "add", "--tenant", "acme", "--models", "globex/*")
    return site.key("acme")


def test_nothing_that_a_former_tenant_kept_opens_anything_when_its_name_is_taken(site, acme):
    wire = site.wire
    token = site.token(acme)
    listed = wire.get("/models/v1/external/weights?modelId=acme/1", acme).body
    link = next(text for text in listed.decode().split('"') if text.startswith(f"{PUBLIC_URL}/d/"))
    link = urlsplit(link)._replace(scheme="", netloc="").geturl()
    other = site.key("initech")
    assert site.statuses(acme) == site.statuses(token) == site.statuses(None, link) == {200}
    assert site.statuses(other, OWN) == {200}

    removed = site.installation.json("tenants", "remove", "acme", "--yes")
    assert (removed["sure"], removed["workers"]) == (True, 2)
    assert site.statuses(acme) == site.statuses(token) == site.statuses(None, link) == {401}
    assert site.statuses(other, OWN) == {404}

    new = furnish_again(site)
    assert site.statuses(new) == {200}
    assert site.statuses(acme) == site.statuses(token) == site.statuses(None, link) == {401}
    assert site.statuses(other, OWN) == {404}  # what was granted on the former tenant's models is gone
    said = site.installation.json("tenants", "show", "acme")
    records = [one for one in site.installation.records() if one.get("tenant") == "acme"]
    assert said["record_id"] in {one.get("tenant_record") for one in records}
    of_both = {one.get("tenant_record") for one in records if one["kind"] == "decision"}
    assert {removed["plan"]["record_id"], said["record_id"]} <= of_both


def test_a_restored_tenant_needs_new_keys(site, acme):
    other = site.key("initech")
    site.run("tenants", "remove", "acme", "--yes")
    restored = site.installation.json("tenants", "restore", "acme")
    assert (restored["sure"], restored["left"]) == (True, [])
    assert site.statuses(acme) == {401}
    assert site.statuses(other, OWN) == {200}
    assert site.statuses(site.key("acme")) == {200}


def test_a_transfer_that_has_begun_is_cut(site, acme):
    with site.wire.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        connection.sendall(request_bytes("GET", LARGE, acme))
        received = len(connection.recv(1 << 14))
        site.run("tenants", "remove", "acme", "--yes")
        try:
            while piece := connection.recv(1 << 16):
                received += len(piece)
        except ConnectionError:
            pass
    assert received < len(LARGE_WEIGHTS)


def test_keys_that_are_created_while_a_tenant_is_removed_do_not_live(site, acme):
    """Another operator creates keys as fast as possible, through the whole removal and beyond."""
    made, is_over = [], threading.Event()

    async def create(session):
        while not is_over.is_set():
            order = KeyOrder(now=session.clock.now(), kind=KeyKind.TENANT, tenant=TenantId("acme"))
            new = issue_key(order, environment="live", peppers=session.peppers)
            try:
                await session.perform(
                    "keys.create", partial(create_key, key=new.key, digest=new.digest), wait=False
                )
            except Conflict:
                continue
            made.append(new)

    creating = threading.Thread(target=lambda: site.installation.in_session(create))
    creating.start()
    try:
        while len(made) < 3:
            assert creating.is_alive()
        site.installation.in_session(
            lambda session: remove_tenant(session, TenantId("acme"), RESTORABLE_SECONDS)
        )
    finally:
        is_over.set()
        creating.join()
    keys = site.installation.in_session(lambda session: list_keys(session, None))
    states = {key.key_id: key.state for key in keys if key.tenant == "acme"}
    assert {one.key.key_id for one in made} <= states.keys()
    assert set(states.values()) == {KeyState.REVOKED}
    assert {site.wire.get(OWN, one.token).status for one in made} == {401}


def test_two_operators_that_create_a_tenant_at_once_make_one_record(site):
    async def create(session):
        create = partial(create_tenant, tenant_id=TenantId("hooli"), name="hooli", now=1.0)
        work = [session.perform("tenants.create", create, wait=False) for _ in range(8)]
        return [done.result.is_changed for done in await asyncio.gather(*work)]

    assert sorted(site.installation.in_session(create)) == [False] * 7 + [True]
    record_id = site.installation.json("tenants", "show", "hooli")["record_id"]
    key_id = site.installation.json("keys", "create", "--tenant", "hooli")["key_id"]
    assert site.installation.json("keys", "show", key_id)["tenant_record"] == record_id


def test_two_operators_that_remove_a_tenant_at_once_remove_it_once(site, acme):
    async def remove(session):
        work = [remove_tenant(session, TenantId("acme"), RESTORABLE_SECONDS) for _ in range(2)]
        return await asyncio.gather(*work, return_exceptions=True)

    results = site.installation.in_session(remove)
    assert any(not isinstance(one, Exception) for one in results)
    assert all(isinstance(one, Conflict) for one in results if isinstance(one, Exception))
    assert site.statuses(acme) == {401}
    stages = {one["stage"] for one in site.installation.json("tenants", "removed")}
    assert "removing" not in stages
    assert "acme" not in [one["tenant"] for one in site.installation.json("tenants", "list")]


def test_the_first_step_alone_refuses_all_keys_in_all_workers(site, acme):
    """A removal that is interrupted after it: the tenant is shut out already."""
    assert site.statuses(acme) == {200}
    begin = partial(
        taking.begin_removal,
        tenant_id=TenantId("acme"),
        removal_id="rem_interrupted",
        now=0.0,
        restorable_seconds=RESTORABLE_SECONDS,
    )
    site.installation.in_session(lambda session: session.perform("tenants.remove", begin, tenant="acme"))
    assert site.statuses(acme) == {401}
    reasons = {one["reason"] for one in site.installation.records() if one.get("decision") == "deny"}
    assert "removed-tenant" in reasons
