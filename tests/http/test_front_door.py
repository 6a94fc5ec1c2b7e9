"""The front door over real sockets, before a small server that does what a real inference server never would.

The real server and its SDK are in `tests/server`.
"""

from __future__ import annotations

import json
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.model.facts import Scope
from tests import tenant_keys

sys.path.append(str(Path(__file__).parent))  # the server beside us

from inference_stand_in import Reply, StandIn
from weights_provider import WeightsProvider

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
        return self.installation.in_session(lambda session: tenant_keys.create(session, tenant, **order))

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
            **{
                "CACHEGATE_INFERENCE_KEY": SERVICE_KEY,
                "CACHEGATE_INFERENCE_MAX_BODY_MEGABYTES": "1",
                "CACHEGATE_INFERENCE_MOUNT": mount or "/",
                "CACHEGATE_INFERENCE_ORIGINS": "https://app.example",
                **more,
            },
        )
        if not more.get("CACHEGATE_INFERENCE_KEY", SERVICE_KEY):
            del installation.environment["CACHEGATE_INFERENCE_KEY"]
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


def said(model):
    headers = ("content-type", "application/json"), ("x-model-id", model), ("x-model-load-time", "3")
    return Reply(headers=headers, pieces=(b'{"predictions":[]}',))


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


# Who may


def test_forbidden_and_absent_are_one_answer_and_nothing_is_sent(front, acme):
    token, _ = acme
    forbidden, absent = (front.detect(model, token) for model in ("globex/1", "nobody/7"))
    assert forbidden.status == 404
    assert forbidden.comparable() == absent.comparable()
    assert front.reason(forbidden) == front.reason(absent) == "not-permitted"
    assert front.asked() == []


def test_one_refused_model_of_several_refuses_the_request(front, acme):
    token, _ = acme
    front.installation.run("models", "publish", "pp_ocr/*", "pp-ocrv6-det/*")
    front.reply("/ocr/pp-ocr", said("pp_ocr/small-small"))
    refused = front.post("/ocr/pp-ocr", {"image": IMAGE}, token)
    assert (refused.status, front.reason(refused), front.asked()) == (404, "not-permitted", [])
    assert front.records(refused)["resource"]["requested"] == "pp-ocrv6-rec/small"
    front.installation.run("models", "publish", "pp-ocrv6-rec/*")
    answer = front.post("/ocr/pp-ocr", {"image": IMAGE}, token)
    assert answer.status == 200
    front.installation.outcome_of(answer.record_id)
    records = front.installation.records()
    key_id = front.records(answer)["key_id"]
    decided = [
        one["resource"]["requested"]
        for one in records
        if one["kind"] == "decision"
        and one["decision"] == "allow"
        and one.get("key_id") == key_id
        and one["request"]["route"] == "{mount}/ocr/pp-ocr"
    ]
    assert {"pp-ocrv6-det/small", "pp-ocrv6-rec/small"} < set(decided)
    first = records.index(front.records(answer))
    group = records[first : first + len(decided)]
    assert [one["resource"]["requested"] for one in group] == decided, "in one write, one after the other"


def test_a_key_revoked_after_the_load_is_refused_at_the_next_request(front):
    token, key_id = front.key("acme")
    front.reply(ADD, Reply(pieces=(b'{"models":[{"model_id":"acme/1","task_type":"x"}]}',)))
    front.reply(DETECT, said("acme/1"))
    assert front.post(ADD, {"model_id": "acme/1", "api_key": token}).status == 200
    front.revoke(key_id)
    refused = front.post(DETECT, {"model_id": "acme/1", "image": IMAGE, "api_key": token})
    assert (refused.status, front.reason(refused)) == (401, "revoked-key")
    assert [one.target for one in front.asked()] == [f"{ADD}?overlap=none"]  # no legacy route, if ADD is off


def test_a_key_without_the_scope_or_no_key_sends_nothing(front):
    reader, _ = front.key("acme", scopes=frozenset({Scope.READ}))
    scopeless, nobody, unknown = (front.detect("acme/1", key) for key in (reader, None, "sk-unknown-1"))
    assert (scopeless.status, front.reason(scopeless)) == (403, "missing-scope")
    assert (nobody.status, front.reason(nobody)) == (401, "no-credential")
    assert (unknown.status, front.reason(unknown)) == (401, "unknown-key")
    assert front.asked() == []


def test_two_differing_keys_are_refused_and_two_equal_ones_are_one(front, acme):
    token, _ = acme
    other, _ = front.key("globex")
    front.reply(DETECT, said("acme/1"))
    refused = front.detect("acme/1", token, api_key=other)
    assert (refused.status, front.reason(refused)) == (400, "conflicting-credentials")
    assert front.asked() == []
    same = front.post(f"{DETECT}?api_key={token}", {"model_id": "acme/1", "image": IMAGE, "api_key": token})
    assert same.status == 200


def test_a_key_in_a_body_is_in_no_record(front, acme):
    token, _ = acme
    agent = (("User-Agent", f"sdk {token}"),)
    front.reply(DETECT, said("acme/1"))
    answer = front.post(DETECT, {"model_id": "acme/1", "image": IMAGE, "api_key": token}, headers=agent)
    assert answer.status == 200
    assert token not in json.dumps(front.installation.records())
    assert token not in front.gateway.log()


def test_a_tenant_with_a_server_of_its_own_is_sent_there_alone(front, acme):
    token, _ = acme
    north, _ = front.key("north")
    front.reply(DETECT, said("north/1"))
    assert front.detect("north/1", north).status == 200
    assert len(front.bound.asked()) == 1
    front.reply(DETECT, said("public/x"))
    for number in range(8):
        front.detect(f"acme/{number}", token)
    assert len(front.bound.asked()) == 1


# What comes back


def test_an_answer_with_another_model_is_not_sent_and_alarms(front, acme, eventually):
    token, _ = acme
    front.reply(DETECT, Reply(headers=(("x-model-id", "globex/1"),), pieces=(b'{"predictions":', b"1}")))
    answer = front.detect("acme/1", token)
    assert (answer.status, answer.json()["type"]) == (503, "urn:cachegate:problem:unexpected-model")
    assert b"predictions" not in answer.body
    eventually(lambda: any(server.client_left.is_set() for server in front.servers))
    outcome = front.installation.outcome_of(answer.record_id)
    assert (outcome["reason"], outcome["ending"], outcome["status"]) == ("unexpected-model", "failed", 503)
    explained = front.installation.run("explain", "--record", answer.record_id).stdout
    assert "unexpected-model" in explained
    assert outcome["upstream"]["server"] in explained
    counted = [
        value
        for name, value in front.gateway.metrics().items()
        if name.startswith("cachegate_unexpected_models_total")
    ]
    assert sum(counted) >= 1


def named(model):
    return b'{"resolved_model":{"model_id":"%s"},"predictions":[]}' % model.encode()


@pytest.mark.parametrize("size", [7, 1000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_model_that_nobody_could_know_of_is_not_named_in_a_prediction(front, acme, size, is_chunked):
    for model, shown in (("acme/1", "acme/1"), ("globex/7", "")):
        text = named(model)
        pieces = tuple(text[start : start + size] for start in range(0, len(text), size))
        front.reply(DETECT, replace(said("acme/1"), pieces=pieces, length=-1 if is_chunked else len(text)))
        front_go_on(front)
        answer = front.detect("acme/1", acme[0])
        body = b"".join(answer.body.split(b"\r\n")[1::2]) if is_chunked else answer.body
        assert json.loads(body) == {"resolved_model": {"model_id": shown}, "predictions": []}


@pytest.mark.parametrize(
    "headers",
    [
        (("content-type", "application/json"), ("content-encoding", "gzip")),
        (("content-type", "application/json; charset=utf-16"),),
    ],
)
def test_a_prediction_that_cannot_be_read_is_not_passed_on(front, acme, headers):
    front.reply(DETECT, Reply(headers=headers, pieces=(b"\x1f\x8b not for our eyes",)))
    answer = front.detect("acme/1", acme[0])
    assert (answer.status, front.installation.outcome_of(answer.record_id)["reason"]) == (
        503,
        "inference-unavailable",
    )


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500])
def test_an_error_of_the_server_is_ours(front, acme, status):
    token, _ = acme
    text = json.dumps({"message": f"key {SERVICE_KEY} of globex/9 is bad"}).encode()
    front.reply(DETECT, Reply(status=status, pieces=(text,)))
    answer = front.detect("acme/1", token)
    assert answer.status >= 400
    assert answer.header("content-type") == "application/problem+json"
    assert SERVICE_KEY.encode() not in answer.body
    assert b"globex" not in answer.body
    assert answer.json()["record"] == answer.record_id
    assert front.installation.outcome_of(answer.record_id)["upstream"]["status"] == status


def test_what_a_request_took_of_a_server_is_given_back(front, acme):
    """A tenant has a share of each server: none of it may be lost, however a request ends."""
    for status in (200, 500):
        front.reply(DETECT, Reply(status=status))
        for _ in range(35):
            assert front.detect("acme/1", acme[0]).status in {200, 502}


def test_a_redirect_of_the_server_is_not_passed_on(front, acme):
    front.reply(DETECT, Reply(status=302, headers=(("location", "http://other/"),)))
    answer = front.detect("acme/1", acme[0])
    assert (answer.status, answer.header("location")) == (503, None)


def test_an_answer_streams(front, acme):
    token, _ = acme
    front.reply(DETECT, Reply(pieces=(b"first", b"second"), length=-1))
    body = json.dumps({"model_id": "acme/1", "image": IMAGE}).encode()
    raw = front.raw("POST", DETECT, body, (("Content-Type", "application/json"),), token)
    with front.wire.connect() as connection:
        connection.sendall(raw)
        received = b""
        while b"first" not in received:
            received += connection.recv(1 << 16)
        assert b"second" not in received
        front_go_on(front)
        while piece := connection.recv(1 << 16):
            received += piece
    assert received.endswith(b"6\r\nsecond\r\n0\r\n\r\n")


def front_go_on(front):
    for server in (*front.servers, front.bound):
        server.go_on.set()


def begin(front, token, path=DETECT, model="acme/1"):
    """A connection with a request that its server has received."""
    body = json.dumps({"model_id": model, "image": IMAGE}).encode()
    connection = front.wire.connect(60)
    connection.sendall(front.raw("POST", path, body, (("Content-Type", "application/json"),), token))
    return connection


def test_a_revocation_cuts_an_answer_that_has_begun(front, eventually):
    token, key_id = front.key("acme")
    front.reply(DETECT, Reply(pieces=(b"first", b"second"), length=-1))
    connection = begin(front, token)
    received = b""
    while b"first" not in received:
        received += connection.recv(1 << 16)
    front.revoke(key_id)
    with suppress(ConnectionError):
        assert connection.recv(1 << 16) == b""
    connection.close()
    eventually(lambda: any(server.client_left.is_set() for server in front.servers))
    [outcome] = eventually(lambda: outcomes_of(front, key_id))
    assert (outcome["ending"], outcome["upstream"]["bytes"]) == ("revoked", 5)


def outcomes_of(front, key_id):
    records = front.installation.records()
    return [one for one in records if one["kind"] == "outcome" and one.get("key_id") == key_id]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(waits=True),
        Reply(pieces=(b"first", b"second"), length=11),
        Reply(pieces=(b"first", b"second"), length=-1),
    ],
)
def test_when_the_client_leaves_the_servers_connection_is_closed(front, eventually, reply):
    token, key_id = front.key("acme")
    front.reply(DETECT, reply)
    connection = begin(front, token)
    eventually(lambda: any(server.busy.is_set() for server in front.servers))
    connection.close()
    eventually(lambda: any(server.client_left.is_set() for server in front.servers))
    [outcome] = eventually(lambda: outcomes_of(front, key_id))
    assert outcome["ending"] == "client-gone"


def test_an_answer_that_breaks_off_is_cut_and_not_completed(front, acme):
    token, _ = acme
    front.reply(DETECT, Reply(pieces=(b"half",), length=100_000, breaks_off=True))
    answer = front.detect("acme/1", token)
    assert (answer.status, answer.is_cut) == (200, True)
    assert front.installation.outcome_of(answer.record_id)["ending"] == "failed"


def test_a_small_answer_that_breaks_off_is_not_begun(front, acme):
    token, _ = acme
    front.reply(DETECT, Reply(pieces=(b"half",), length=8, breaks_off=True))
    answer = front.detect("acme/1", token)
    assert (answer.status, answer.json()["type"]) == (503, "urn:cachegate:problem:inference-unavailable")
    assert b"half" not in answer.body
    outcome = front.installation.outcome_of(answer.record_id)
    assert (outcome["ending"], outcome["reason"]) == ("failed", "inference-unavailable")
    assert (outcome["upstream"]["status"], outcome["upstream"]["bytes"]) == (200, 4)


def test_a_request_that_was_sent_is_not_sent_again(front, acme):
    """A prediction may run, and cost, only once."""
    front.reply(DETECT, Reply(drops=True))
    answer = front.detect("acme/1", acme[0])
    assert (answer.status, answer.json()["type"]) == (503, "urn:cachegate:problem:inference-unavailable")
    assert len(front.asked()) == 1
    outcome = front.installation.outcome_of(answer.record_id)
    assert (outcome["reason"], outcome["upstream"]["status"]) == ("inference-unavailable", 0)


def test_a_right_that_ends_while_the_server_works_ends_the_answer(front, acme, eventually):
    """The last check is before the first byte; the server is asked once, however often it is decided."""
    token, _ = acme
    grant = ("--tenant", "acme", "--models", "globex/7", "--actions", "infer")
    front.installation.run("grants", "add", *grant)
    front.reply(DETECT, Reply(waits=True, headers=(("x-model-id", "globex/7"),)))
    with begin(front, token, model="globex/7") as connection:
        eventually(lambda: any(server.busy.is_set() for server in front.servers))
        front.installation.run("grants", "remove", *grant)
        front_go_on(front)
        answer = front.wire.read(connection)
    assert (answer.status, front.reason(answer)) == (404, "not-permitted")
    assert len(front.asked()) == 1


def test_an_answer_is_kept_where_the_request_is_decided_anew_and_allowed(front, acme, eventually):
    token, _ = acme
    front.reply(DETECT, Reply(waits=True, headers=(("x-model-id", "acme/1"),), pieces=(b"[1]",)))
    with begin(front, token) as connection:
        eventually(lambda: any(server.busy.is_set() for server in front.servers))
        front.installation.run("models", "publish", "acme/1")
        front_go_on(front)
        answer = front.wire.read(connection)
    assert (answer.status, answer.body) == (200, b"[1]")
    assert len(front.asked()) == 1
    front.installation.run("models", "unpublish", "acme/1")


# What goes in


def test_a_body_where_the_handler_reads_none_is_refused(front, acme):
    answer = front.wire.send(front.raw("GET", REGISTRY, b"{}", key=acme[0]))
    assert (answer.status, front.reason(answer)) == (400, "malformed-body")
    assert front.asked() == []


def test_closed_and_unknown_routes_are_refused_before_any_body_is_read(front, acme):
    token, _ = acme
    expects = (("Expect", "100-continue"), ("Content-Length", "1000"))
    for path, reason in (("/model/clear", "closed-route"), ("/workflows/other", "closed-route")):
        answer = front.wire.send(front.raw("POST", path, headers=expects, key=token))
        assert (answer.status, front.reason(answer)) == (404, reason), path
    assert front.get("/logs", token).status == 404
    assert front.asked() == []


@pytest.mark.parametrize("place", ["header", "query"])
@pytest.mark.parametrize("kind", ["unknown", "mistyped", "revoked"])
def test_a_key_in_the_head_that_is_refused_is_refused_before_any_body_is_read(front, place, kind):
    token, key_id = front.key("acme")
    if kind == "revoked":
        front.revoke(key_id)
    elif kind == "unknown":
        token = "some-other-key"
    else:
        token = token[:-1] + ("a" if token[-1] != "a" else "b")
    path = DETECT if place == "header" else f"{DETECT}?api_key={token}"
    expects = (("Expect", "100-continue"), ("Content-Length", "1000"), ("Content-Type", "application/json"))
    answer = front.wire.send(
        front.raw("POST", path, headers=expects, key=token if place == "header" else None)
    )
    assert answer.status == 401
    record = front.records(answer)
    assert (
        record["reason"]
        == {"unknown": "unknown-key", "mistyped": "mistyped-key", "revoked": "revoked-key"}[kind]
    )
    assert token not in json.dumps(record)
    assert front.asked() == []


def test_keys_in_the_head_that_differ_are_refused_before_any_body_is_read(front, acme):
    expects = (("Expect", "100-continue"), ("Content-Length", "1000"), ("Content-Type", "application/json"))
    answer = front.wire.send(front.raw("POST", f"{DETECT}?api_key=other", headers=expects, key=acme[0]))
    assert (answer.status, front.reason(answer)) == (400, "conflicting-credentials")


def test_a_client_that_expects_it_is_told_to_send_its_body(front, acme):
    token, _ = acme
    front.reply(DETECT, said("acme/1"))
    body = json.dumps({"model_id": "acme/1", "image": IMAGE}).encode()
    head = front.raw(
        "POST",
        DETECT,
        headers=(
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Expect", "100-continue"),
        ),
        key=token,
    )
    with front.wire.connect() as connection:
        connection.sendall(head)
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert front.wire.read(connection).status == 200
    assert front.asked()[0].header("expect") is None


def test_a_body_beyond_the_limit_is_refused_however_it_comes(front, acme):
    token, _ = acme
    large = b'{"model_id":"acme/1","x":"' + b"x" * (1 << 20) + b'"}'
    json_type = ("Content-Type", "application/json")
    announced = front.wire.send(front.raw("POST", DETECT, large, (json_type,), token))
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large)
    chunked = front.wire.send(
        front.raw("POST", DETECT, chunks, (json_type, ("Transfer-Encoding", "chunked")), token)
    )
    for answer in (announced, chunked):
        assert (answer.status, front.reason(answer)) == (413, "body-too-large")
    streamed = front.wire.send(
        front.raw(
            "POST",
            "/acme/1",
            chunks,
            (("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked")),
            token,
        )
    )
    assert streamed.status == 413
    assert front.installation.outcome_of(streamed.record_id)["reason"] == "body-too-large"


def test_the_body_of_the_legacy_route_streams(front, acme):
    token, _ = acme
    front.reply("/acme/1", said("acme/1"))
    content = b"aGVsbG8=" * 9000
    answer = front.wire.send(
        front.raw("POST", f"/acme/1?api_key={token}", content, (("Content-Type", "application/json"),))
    )
    assert answer.status == 200
    [sent] = front.asked()
    assert sha256(sent.body).digest() == sha256(content).digest()
    assert sent.header("content-length") == str(len(content))
    assert token not in sent.target


def test_what_the_hop_before_says_of_itself_is_not_passed_on(front, acme):
    token, _ = acme
    front.reply(DETECT, said("acme/1"))
    headers = (
        ("X-Forwarded-For", "1.2.3.4"),
        ("Forwarded", "for=1.2.3.4"),
        ("X-Workspace-Id", "other"),
        ("Cookie", "a=b"),
        ("TE", "trailers"),
        ("Content-Type", "application/json"),
    )
    body = json.dumps({"model_id": "acme/1", "image": IMAGE}).encode()
    assert front.wire.send(front.raw("POST", DETECT, body, headers, token)).status == 200
    [sent] = front.asked()
    names = {name for name, _ in sent.headers}
    assert names <= {"host", "authorization", "content-type", "content-length", "accept", "accept-encoding"}
    assert sent.header("host") in {server.name for server in front.servers}


def test_websockets_are_refused(front, acme):
    upgrade = (("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
    answer = front.get("/info", acme[0], upgrade)
    assert (answer.status, front.reason(answer)) == (400, "malformed-request")


def test_other_methods_are_refused_and_told_which_there_are(front, acme):
    answer = front.wire.send(front.raw("PUT", DETECT, key=acme[0]))
    assert (answer.status, front.reason(answer)) == (405, "method-not-allowed")
    assert front.get(DETECT, acme[0]).status in {400, 404}  # a request for the model infer/object_detection


# What the gateway answers


def test_info_and_health_need_no_key_and_no_server(front):
    info = front.get("/info")
    assert (info.status, set(info.json())) == (200, {"name", "version", "uuid"})
    assert front.get("/healthz").json() == {"status": "healthy"}
    assert front.get("/readiness").json() == {"status": "ready"}
    assert front.asked() == []


def test_the_registry_shows_what_the_caller_may_infer_of_all_servers(front, acme):
    token, key_id = acme
    listed = [{"model_id": one, "task_type": "t"} for one in ("acme/1", "globex/1", "public/2")]
    front.servers[0].replies[REGISTRY] = Reply(pieces=(json.dumps({"models": listed}).encode(),))
    front.servers[1].replies[REGISTRY] = Reply(
        pieces=(json.dumps({"models": [{"model_id": "acme/9", "task_type": "t"}]}).encode(),)
    )
    front.bound.replies[REGISTRY] = Reply(
        pieces=(json.dumps({"models": [{"model_id": "acme/5", "task_type": "t"}]}).encode(),)
    )
    answer = front.get(f"{REGISTRY}?api_key={token}")
    assert answer.status == 200
    assert [one["model_id"] for one in answer.json()["models"]] == ["acme/1", "acme/9", "public/2"]
    assert {one.header("authorization") for one in front.asked()} == {f"Bearer {SERVICE_KEY}"}
    decision = front.records(answer)
    assert (decision["action"], decision["key_id"]) == ("identify", key_id)
    assert front.get(REGISTRY).status == 401


def test_pages_of_the_listed_origins_may_call_and_no_others(front, acme):
    token, _ = acme
    asks = (("Access-Control-Request-Method", "POST"),)
    allowed = front.wire.send(
        front.raw("OPTIONS", DETECT, headers=(("Origin", "https://app.example"), *asks))
    )
    other = front.wire.send(front.raw("OPTIONS", DETECT, headers=(("Origin", "https://evil.example"), *asks)))
    assert (allowed.status, other.status) == (204, 204)
    assert allowed.header("access-control-allow-origin") == "https://app.example"
    assert other.header("access-control-allow-origin") is None
    assert front.asked() == []
    front.reply(DETECT, said("acme/1"))
    body = json.dumps({"model_id": "acme/1", "image": IMAGE}).encode()
    for model_key, status in ((token, 200), (None, 401)):
        headers = (("Origin", "https://app.example"), ("Content-Type", "application/json"))
        answer = front.wire.send(front.raw("POST", DETECT, body, headers, model_key))
        assert (answer.status, answer.header("access-control-allow-origin")) == (
            status,
            "https://app.example",
        )


def test_images_by_url_or_file_are_refused_and_nothing_is_sent(front, acme):
    token, _ = acme
    for kind, value in (
        ("url", "https://images.example/1.png"),
        ("URL", "http://127.0.0.1/"),
        ("file", "/etc/hosts"),
    ):
        answer = front.detect("acme/1", token, image={"type": kind, "value": value})
        assert (answer.status, answer.json()["type"]) == (400, "urn:cachegate:problem:forbidden-image"), kind
    assert front.asked() == []


def test_what_the_record_says_of_an_image_names_no_url(front, acme):
    token, _ = acme
    front.detect("acme/1", token, image={"type": "url", "value": "https://images.example/?sig=SIGNED-1"})
    assert "SIGNED-1" not in json.dumps(front.installation.records())
    assert "SIGNED-1" not in front.gateway.log()


def test_what_cannot_be_recorded_is_not_sent(front, acme, eventually):
    """I5: the decision is in the log before the server has the request."""
    [worker] = front.gateway.worker_pids()
    front.reply(DETECT, said("acme/1"))
    limits = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        answer = front.detect("acme/1", acme[0])
    finally:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)
    assert (answer.status, front.asked()) == (503, [])
    eventually(lambda: front.detect("acme/1", acme[0]).status == 200)


# Other installations


def test_a_server_that_is_not_there_is_passed_over(new_installation):
    for front in front_of(new_installation, "one-gone", CACHEGATE_CANARY_SECONDS="0"):
        token, _ = front.key("acme")
        for server in front.servers[:1]:
            server.stop()
        alive = front.servers[1]
        statuses = []
        for number in range(6):
            alive.replies[DETECT] = said(f"acme/{number}")
            statuses.append(front.detect(f"acme/{number}", token).status)
        assert statuses == [200] * 6
        alive.stop()
        alive.replies[DETECT] = Reply(drops=True)  # where a connection is still kept
        answer = front.detect("acme/1", token)
        assert (answer.status, answer.json()["type"]) == (503, "urn:cachegate:problem:inference-unavailable")


def test_at_the_root_our_own_routes_come_first(new_installation):
    for front in front_of(new_installation, "at-the-root", mount=""):
        token, _ = front.key("acme")
        assert front.get("/v1/whoami", token).json()["tenant"] == "acme"
        front.reply(DETECT, said("acme/1"))
        assert front.detect("acme/1", token).status == 200
        for path in ("/v1/3", "/%761/3", "/models/1", "/admin/1"):
            answer = front.wire.send(front.raw("POST", path, b"aGVsbG8=", key=token))
            assert (answer.status, front.reason(answer)) == (400, "reserved-path"), path
        assert len(front.asked()) == 1


def test_without_a_service_key_keys_of_ours_run_nothing(new_installation):
    for front in front_of(new_installation, "no-service-key", CACHEGATE_INFERENCE_KEY=""):
        token, _ = front.key("acme")
        answer = front.detect("acme/1", token)
        assert (answer.status, answer.json()["type"]) == (403, "urn:cachegate:problem:no-service-key")
        assert front.installation.outcome_of(answer.record_id)["reason"] == "no-service-key"
        assert front.asked() == []


def test_what_a_model_brings_is_authorised_before_anything_is_sent(new_installation):
    """The provider tells the key that goes in what the server would load with it."""
    with WeightsProvider().running() as provider:
        upstream = {"CACHEGATE_UPSTREAM": provider.url, "CACHEGATE_PRIVATE_UPSTREAMS": "on"}
        for front in front_of(new_installation, "brought", **upstream):
            token, _ = front.key("acme")
            front.reply(DETECT, said("acme/3"))
            for child, brought in (("acme/3", "acme/1"), ("acme/4", "globex/1"), ("acme/5", "acme/4")):
                provider.offer(child, {}, modelDependencies=[{"name": "x", "modelId": brought}])
            provider.offer("globex/2", {}, asked_as="acme/6")
            assert front.detect("acme/3", token).status == 200
            asked = provider.asked("/models/v1/external/weights")
            assert {one.headers["authorization"] for one in asked} == {f"Bearer {SERVICE_KEY}"}
            assert len(front.asked()) == 1
            for model, refused in (("acme/4", "globex/1"), ("acme/5", "globex/1"), ("acme/6", "globex/2")):
                answer = front.detect(model, token)
                assert (answer.status, front.reason(answer)) == (404, "not-permitted"), model
                assert front.records(answer)["resource"]["requested"] == refused
            # It was loaded when its name stood for another model.
            front.reply(DETECT, replace(said("acme/3"), pieces=(named("globex/1"),)))
            answer = front.detect("acme/3", token)
            assert (answer.status, answer.json()["type"]) == (503, "urn:cachegate:problem:unexpected-model")
            front.reply(DETECT, replace(said("acme/3"), pieces=(named("acme/1"),)))
            assert front.detect("acme/3", token).json()["resolved_model"] == {"model_id": "acme/1"}
            for server in front.servers:
                server.seen.clear()
            front.reply(DETECT, said("acme/3"))
            assert front.detect("acme/3", token).status == 200
            before = len(provider.seen)
            assert front.detect("globex/9", token).status == 404
            assert len(provider.seen) == before, "nothing is asked about what the caller may not have"
            provider.is_silent = True
            undecided = front.detect("acme/7", token)
            assert (undecided.status, front.reason(undecided)) == (503, "upstream-undecided")
            assert len(front.asked()) == 1


def test_a_key_of_the_platform_passes_through_as_the_tenants_own(new_installation):
    with WeightsProvider().running() as provider:
        upstream = {
            "CACHEGATE_UPSTREAM": provider.url,
            "CACHEGATE_PRIVATE_UPSTREAMS": "on",
            "CACHEGATE_AUTHORITY": "platform",
        }
        provider.offer("stark/1", {})
        for front in front_of(new_installation, "of-the-platform", **upstream):
            front.reply(DETECT, said("stark/1"))
            document = {"model_id": "stark/1", "image": IMAGE, "api_key": "sk-of-the-platform-1"}
            answer = front.post(DETECT, document, headers=(("User-Agent", "sdk sk-of-the-platform-1"),))
            assert answer.status == 200, (front.reason(answer), answer.body)
            [sent] = front.asked()
            assert sent.header("authorization") == "Bearer sk-of-the-platform-1"
            assert "sk-of-the-platform-1" not in json.dumps(front.installation.records())
            refused = front.detect("stark/2", None, api_key="sk-of-the-platform-1")
            assert refused.status == 404
            assert len(front.asked()) == 1


def test_without_a_server_there_is_no_front_door(new_installation):
    installation = new_installation("no-front-door", CACHEGATE_INFERENCE_KEY=SERVICE_KEY)
    gateway = installation.serve(workers=1)
    try:
        for path in ("/inference/info", "/inference/model/registry", "/info"):
            assert gateway.wire.get(path, installation.admin_key).json()["type"].endswith(":not-found")
    finally:
        gateway.stop()
