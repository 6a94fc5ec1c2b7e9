"""The front door over real sockets, before a small server that does what a real inference server never would.

The real server and its SDK are in `tests/server`.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.directory.edits import keys
from gateway.identity.new_keys import KeyOrder, import_key, issue_key
from gateway.model.facts import KeyKind, Scope
from gateway.model.names import TenantId

sys.path.append(str(Path(__file__).parent))  # the server beside us

from inference_stand_in import Reply, StandIn

SERVICE_KEY = "the-operators-own-key-1"
DETECT, ADD, REGISTRY = "/infer/object_detection", "/model/add", "/model/registry"
IMAGE = {"type": "base64", "value": "aGVsbG8="}


@dataclass
class Front:
    """A gateway in front of two servers, and one that is bound to tenant north."""

    installation: Any
    gateway: Any
    servers: list[StandIn]
    bound: StandIn
    mount: str = "/inference"

    @property
    def wire(self):
        return self.gateway.wire

    def key(self, tenant, **order):
        async def make(session):
            new = issue_key(
                KeyOrder(now=session.clock.now(), kind=KeyKind.TENANT, tenant=TenantId(tenant), **order),
                environment="test",
                peppers=session.peppers,
            )
            await session.perform(
                "keys.create",
                lambda changes: keys.create_key(changes, key=new.key, digest=new.digest),
                tenant=tenant,
                key_id=new.key.key_id,
            )
            return new.token, new.key.key_id

        return self.installation.in_session(make)

    def revoke(self, key_id):
        self.installation.run("keys", "revoke", key_id)

    def raw(self, method, path, body=b"", headers=(), key=None):
        lines = [f"{method} {self.mount}{path} HTTP/1.1", "Host: gateway", "Connection: close"]
        if key is not None:
            lines.append(f"Authorization: Bearer {key}")
        if body and not any(name.lower() == "transfer-encoding" for name, _ in headers):
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    def post(self, path, document, key=None, headers=()):
        body = json.dumps(document).encode()
        return self.wire.send(
            self.raw("POST", path, body, (("Content-Type", "application/json"), *headers), key)
        )

    def get(self, path, key=None, headers=()):
        return self.wire.send(self.raw("GET", path, key=key, headers=headers))

    def detect(self, model, key, **more):
        return self.post(DETECT, {"model_id": model, "image": IMAGE, **more}, key)

    def reply(self, path, reply):
        for server in (*self.servers, self.bound):
            server.replies[path] = reply

    def asked(self):
        return [one for server in (*self.servers, self.bound) for one in server.asked()]

    def records(self, answer):
        records = self.installation.records()
        return next(one for one in records if one["id"] == answer.record_id)

    def reason(self, answer):
        return self.records(answer)["reason"]


@pytest.fixture(scope="module")
def front(new_installation):
    yield from front_of(new_installation, "front-door")


def front_of(new_installation, name, mount="/inference", **more):
    servers, bound = [StandIn(), StandIn()], StandIn()
    with servers[0].running(), servers[1].running(), bound.running():
        installation = new_installation(
            name,
            CACHEGATE_INFERENCE_URL=",".join((*(one.url for one in servers), f"north={bound.url}")),
            CACHEGATE_INFERENCE_KEY=SERVICE_KEY,
            CACHEGATE_INFERENCE_MAX_BODY_MEGABYTES="1",
            CACHEGATE_INFERENCE_MOUNT=mount or "/",
            **more,
        )
        installation.run("tenants", "create", "acme")
        installation.run("tenants", "create", "globex")
        installation.run("tenants", "create", "north")
        installation.run("models", "own", "acme", "acme/*")
        installation.run("models", "own", "globex", "globex/*")
        installation.run("models", "own", "north", "north/*")
        installation.run("models", "publish", "public/*")
        gateway = installation.serve(workers=1)
        try:
            yield Front(installation, gateway, servers, bound, mount)
        finally:
            gateway.stop()
        assert "Traceback" not in gateway.log(), gateway.log()
        installation.verify_audit()


@pytest.fixture(autouse=True)
def _at_first(request):
    if "front" in request.fixturenames:
        front = request.getfixturevalue("front")
        for server in (*front.servers, front.bound):
            server.reset()


@pytest.fixture(scope="module")
def acme(front):
    return front.key("acme")


def said(model, **more):
    return Reply(
        headers=(("content-type", "application/json"), ("x-model-id", model), ("x-model-load-time", "3"))
        + tuple(more.items()),
        pieces=(b'{"predictions":[]}',),
    )


def test_a_request_goes_out_with_the_operators_key_and_its_answer_comes_back(front, acme):
    token, key_id = acme
    front.reply(DETECT, said("acme/1"))
    answer = front.detect("acme/1", token, api_key=token)
    assert (answer.status, answer.body) == (200, b'{"predictions":[]}')
    assert answer.header("x-model-load-time") is None
    [sent] = front.asked()
    assert sent.header("authorization") == f"Bearer {SERVICE_KEY}"
    assert token.encode() not in sent.body
    assert "api_key" not in sent.json()
    assert sent.json()["model_id"] == "acme/1"
    decision = front.records(answer)
    assert (decision["decision"], decision["action"], decision["key_id"]) == ("allow", "infer", key_id)
    assert decision["resource"]["requested"] == "acme/1"
    assert decision["request"]["route"] == "{mount}/infer/object_detection"
    outcome = front.installation.outcome_of(answer.record_id)
    assert (outcome["ending"], outcome["status"]) == ("relayed", 200)
    upstream = outcome["upstream"]
    assert upstream["server"] in {server.name for server in front.servers}
    assert (upstream["status"], upstream["bytes"]) == (200, len(answer.body))
