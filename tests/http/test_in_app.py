"""The guard in somebody else's app, under the servers that other people use: one table for all three.

`guarded_app.py` is the app. Each server is a real process; the facts are in a real Valkey.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
from contextlib import ExitStack, contextmanager, suppress
from hashlib import md5, sha256

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from tests.conftest import request_bytes, wait_until
from tests.http.app_servers import SERVERS, running

pytestmark = pytest.mark.slow

LARGE = random.Random(7).randbytes((48 << 20) + 3)
SMALL = b"small\n"
FILES = "/files/acme/cars/1/-/pkgA1/"
THEIRS = "/files/globex/vans/1/-/pkgG1/weights.onnx"
SECRET = b"globex keeps this to itself\n"


@pytest.fixture(scope="module")
def furnished(new_installation):
    """An installation with two tenants, whose embedded server runs as long as this module does."""
    from gateway.configuration.sources import load_settings  # noqa: PLC0415
    from gateway.operations.session import fact_server  # noqa: PLC0415 -- settings are read when it is known which

    installation = new_installation("in-app", CACHEGATE_LEASE_MILLISECONDS="5000")
    models = {
        "acme/cars/1": {"pkgA1": {"weights.onnx": LARGE, "small.txt": SMALL}},
        "globex/vans/1": {"pkgG1": {"weights.onnx": SECRET}},
    }
    write_sample_cache(
        installation.cache_root,
        [SampleModel(model_id=model, packages=packages) for model, packages in models.items()],
    )
    for tenant in ("acme", "globex"):
        installation.run("tenants", "create", tenant)
        installation.run("models", "own", tenant, f"{tenant}/*")
    installation.run("models", "alias", "acme-cars", "acme/cars/1")
    with fact_server(load_settings(installation.variables())) as url:
        yield installation, url
    installation.verify_audit()  # the chains of all processes ended whole


@pytest.fixture(scope="module")
def serving(furnished, new_wire, tmp_path_factory):
    """Run an app of ours under a server: `with serving("uvicorn", "guarded_app:app") as served`."""
    installation, url = furnished

    @contextmanager
    def run(server, app="guarded_app:app", *, ready="/ready", **more):
        environment = installation.variables() | {"CACHEGATE_REDIS_URL": url}
        folder = tmp_path_factory.mktemp(server)
        with running(server, app, new_wire(), environment, folder, **more) as served:
            if ready:
                await_ready(served, ready)
            yield served

    return run


def await_ready(served, path):
    def is_ready():
        assert served.process.poll() is None, served.log()
        with suppress(OSError, AssertionError):
            answer = served.wire.get(path)
            return answer.status == 200 and all(json.loads(answer.body).values())
        return False

    wait_until(is_ready)


@pytest.fixture(scope="module", params=SERVERS)
def served(request, serving):
    """The app under one of the servers; tests that end it have one of their own."""
    with serving(request.param) as served:
        yield served
    assert served.has("ended"), served.log()  # the app's own lifespan ended


@pytest.fixture(scope="module")
def acme(furnished):
    return furnished[0].json("keys", "create", "--tenant", "acme")


@pytest.fixture(scope="module")
def globex(furnished):
    return furnished[0].json("keys", "create", "--tenant", "globex")


@pytest.fixture
def token(acme):
    return acme["token"]


def post(wire, path, token, body=b"", *headers):
    head = request_bytes("POST", path, token, (("Content-Length", str(len(body))), *headers), is_last=True)
    return wire.send(head + body)


def test_the_owner_gets_the_file_and_its_parts_as_on_our_own_server(served, token, furnished):
    installation, _ = furnished
    whole = served.wire.get(FILES + "weights.onnx", token)
    assert (whole.status, whole.body) == (200, LARGE)
    assert whole.header("etag") == f'"{sha256(LARGE).hexdigest()}"'
    part = served.wire.get(FILES + "weights.onnx", token, headers=(("Range", "bytes=100-2000000"),))
    assert (part.status, part.body) == (206, LARGE[100:2_000_001])
    seen = (("If-None-Match", whole.header("etag")),)
    assert served.wire.get(FILES + "weights.onnx", token, headers=seen).status == 304
    unmet = served.wire.get(FILES + "weights.onnx", token, headers=(("If-Match", '"x"'),))
    assert (unmet.status, unmet.header("content-type")) == (412, "application/problem+json")
    head = served.wire.head(FILES + "weights.onnx", token)
    assert (head.status, head.body, head.header("content-length")) == (200, b"", str(len(LARGE)))
    by_digest = f"/blobs/{md5(SMALL, usedforsecurity=False).hexdigest()}"
    assert served.wire.get(by_digest, token).body == SMALL
    for answer, size in ((whole, len(LARGE)), (part, len(part.body)), (head, 0)):
        outcome = installation.outcome_of(answer.record_id)
        assert (outcome["bytes"], outcome["ending"]) == (size, "complete")


def test_forbidden_and_absent_are_one_answer(served, token):
    def without(answer):
        hidden = {"date", "cachegate-record", "traceparent"}
        headers = sorted(pair for pair in answer.headers if pair[0] not in hidden)
        return answer.status, headers, answer.body.replace(answer.record_id.encode(), b"")

    theirs = f"/blobs/{md5(SECRET, usedforsecurity=False).hexdigest()}"
    pairs = [
        (THEIRS, "/files/globex/nothing/1/-/pkgG1/weights.onnx"),
        (theirs, "/blobs/" + "0" * 32),
        ("/stream/globex/vans/1", "/stream/globex/nothing/1"),
    ]
    for method in ("GET", "HEAD"):
        for hidden, absent in pairs[: 2 if method == "HEAD" else 3]:
            first, second = (served.wire.request(method, one, token) for one in (hidden, absent))
            assert first.status == 404
            assert without(first) == without(second)
    asked = [
        post(served.wire, "/infer", token, json.dumps({"model_id": one}).encode())
        for one in ("globex/vans/1", "globex/nothing/1")
    ]
    assert asked[0].status == 404
    assert without(asked[0]) == without(asked[1])


@pytest.mark.parametrize("path", [FILES + "small.txt", "/me", "/stream/acme/cars/1"])
def test_nobody_is_401_and_a_key_in_the_url_is_400(served, token, path):
    assert served.wire.get(path).status == 401
    assert served.wire.get(path, "cg_live_nonsense").status == 401
    assert served.wire.get(f"{path}?api_key={token}").status == 400


def test_the_handler_has_the_principal_and_the_receipt_at_hand(served, acme, furnished):
    installation, _ = furnished
    answer = post(served.wire, "/infer/acme-cars", acme["token"], b"x" * 1000)
    told = json.loads(answer.body)
    assert (told["model"], told["path"], told["size"]) == ("acme/cars/1", "acme-cars", 1000)
    assert (told["tenant"], told["client"], told["action"]) == ("acme", "127.0.0.1", "infer")
    assert told["record"] == answer.record_id
    assert told["state"] == "yes"  # of the app's own lifespan
    [record] = [one for one in installation.records() if one["id"] == answer.record_id]
    assert record["request"]["route"] == "/infer/{model:path}"
    assert record["key_id"] == acme["key_id"]


def test_the_model_may_stand_in_the_body_which_reaches_the_app_unchanged(served, token):
    body = json.dumps({"model_id": "acme/cars/1", "image": "é" * 100}).encode()
    answer = post(served.wire, "/infer", token, body, ("Content-Type", "application/json"))
    told = json.loads(answer.body)
    assert (told["model"], told["body"]) == ("acme/cars/1", json.loads(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"model_id": "globex/vans/1", "model_id": "acme/cars/1"}',
        b'{"model_id": "acme/cars/1", "model\\u005fid": "globex/vans/1"}',
        b'{"model_id": ["acme/cars/1"]}',
        b'{"other": 1}',
        b"not JSON",
        b"[" * 10_000,
        b'{"model_id": "acme//cars"}',
        b"",
    ],
)
def test_a_body_that_could_be_read_in_two_ways_or_names_no_model_is_refused(served, token, body):
    assert post(served.wire, "/infer", token, body).status == 400


def test_a_body_over_the_limit_is_refused_however_it_is_sent(served, token):
    large = b"x" * ((1 << 20) + 1)
    for path in ("/infer/acme/cars/1", "/infer"):
        head = (("Content-Length", str(len(large))),)
        announced = request_bytes("POST", path, token, head, is_last=True)
        assert served.wire.send(announced).status == 413
        chunked = request_bytes("POST", path, token, (("Transfer-Encoding", "chunked"),), is_last=True)
        sent = served.wire.send(chunked + b"%x\r\n" % len(large) + large + b"\r\n0\r\n\r\n")
        assert sent.status == 413
    assert post(served.wire, "/stream/acme/cars/1", token, b"x").status == 405
    head = (("Content-Length", "1"),)
    assert served.wire.send(request_bytes("GET", "/me", token, head, is_last=True) + b"x").status == 413


def test_what_nobody_declared_is_not_there(served, token):
    for path in ("/undeclared", "/docs", "/openapi.json", "/nowhere", "/", "/open/", "/files"):
        assert served.wire.get(path, token).status == 404
    assert not served.has("undeclared")


def test_a_more_special_route_that_nobody_declared_is_not_reached_through_a_declared_one(served, token):
    assert post(served.wire, "/infer/acme/cars/1/classes", token).status == 404
    assert served.wire.get("/routed/acme/cars/1/more", token).status == 404
    assert served.wire.get("/routed/acme/cars/1", token).status == 200
    assert not served.has("classes")
    assert not served.has("more")


@pytest.mark.parametrize(
    "path",
    [
        "/files/acme%2Fcars%2F1/-/pkgA1/small.txt",
        "/files/acme/cars/1/%2D/pkgA1/small.txt",
        "/%66iles/acme/cars/1/-/pkgA1/small.txt",
        "/files/acme/./cars/1/-/pkgA1/small.txt",
        "/files/x/../acme/cars/1/-/pkgA1/small.txt",
        "/files/x/%2e%2e/acme/cars/1/-/pkgA1/small.txt",
        "//files/acme/cars/1/-/pkgA1/small.txt",
        "/files//acme/cars/1/-/pkgA1/small.txt",
        "/files/acme/cars/1/-/pkgA1/small.txt/",
        "/files/acme/cars/1/-/pkgA1/small.txt%00",
        "/files/acme/cars/1/-/pkgA1/small.txt%0A",
        "/files/acme\\cars\\1/-/pkgA1/small.txt",
        "/files/acme/cars/1/-/pkgA1/small.txt;a=b",
        "/files/acme/cars/1/-/pkgA1/%ff",
        "/Files/acme/cars/1/-/pkgA1/small.txt",
        "/infer/acme/cars/1%2Fclasses",
        "/open/../undeclared",
        "/open%2F..%2Fundeclared",
    ],
)
def test_a_path_in_another_spelling_gets_nothing(served, token, path):
    answer = served.wire.get(path, token)
    assert 400 <= answer.status < 500
    assert answer.body != SMALL
    assert not served.has("undeclared")


def test_the_host_and_forwarding_headers_decide_nothing(served, token):
    for headers in (
        (("X-Forwarded-Prefix", "/x"), ("X-Original-URL", "/open"), ("X-Rewrite-URL", "/open")),
        (("X-Forwarded-For", "203.0.113.7"), ("Forwarded", "for=203.0.113.7")),
    ):
        assert served.wire.get(THEIRS, token, headers=headers).status == 404
        answer = served.wire.get(FILES + "small.txt", token, headers=headers, host="evil.example")
        assert answer.body == SMALL
    absolute = served.wire.get(b"http://evil.example/undeclared", token)
    assert absolute.status in {400, 404}


def test_a_key_that_is_bound_to_networks_is_not_used_from_elsewhere_by_a_header(served, furnished):
    key = furnished[0].json("keys", "create", "--tenant", "acme", "--networks", "203.0.113.0/24")
    for name in ("X-Forwarded-For", "X-Real-IP", "Client-IP"):
        assert served.wire.get("/me", key["token"], headers=((name, "203.0.113.7"),)).status == 401


def test_an_unguarded_route_passes_everybody_and_has_no_decision(served):
    assert json.loads(served.wire.get("/open").body) == {"open": True}
    assert served.wire.get("/open").header("cachegate-record") is None
    assert served.wire.get("/peek").status == 500  # it asks for a decision that nobody made


def test_the_apps_own_handlers_answer_within_the_guard_and_its_defects_are_ours_to_answer(
    served, token, furnished
):
    teapot = served.wire.get("/teapot/acme/cars/1", token)
    assert (teapot.status, teapot.body) == (418, b'{"teapot":true}')
    assert furnished[0].outcome_of(teapot.record_id)["status"] == 418
    assert served.wire.get("/teapot/globex/vans/1", token).status == 404
    broken = served.wire.get("/broken/acme/cars/1", token)
    assert (broken.status, broken.header("content-type")) == (500, "application/problem+json")
    assert "ZeroDivisionError" in served.log()
    assert token not in served.log()


def test_a_file_that_the_app_sends_itself_goes_through_the_guard(served, token, furnished):
    (served.marks / "payload").write_bytes(LARGE[: 3 << 20])
    answer = served.wire.get("/sendfile/acme/cars/1", token)
    assert answer.body == LARGE[: 3 << 20]
    assert furnished[0].outcome_of(answer.record_id)["bytes"] == 3 << 20


def test_a_background_task_neither_delays_the_record_nor_ends_with_the_key(served, furnished):
    installation, _ = furnished
    key = installation.json("keys", "create", "--tenant", "acme")
    answer = post(served.wire, "/later/acme/cars/1", key["token"])
    assert answer.status == 200
    assert installation.outcome_of(answer.record_id)["ending"] == "complete"
    assert not served.has("task-done")
    installation.run("keys", "revoke", key["key_id"])
    (served.marks / "go").touch()
    wait_until(lambda: served.has("task-done"))


@pytest.mark.parametrize("path", [FILES + "weights.onnx", "/stream/acme/cars/1"])
def test_a_download_is_cut_when_its_key_is_revoked(served, furnished, path):
    installation, _ = furnished
    key = installation.json("keys", "create", "--tenant", "acme")
    with socket.create_connection((served.wire.host, served.wire.port), timeout=60) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.sendall(request_bytes("GET", path, key["token"]))
        received = connection.recv(1 << 16)
        assert received.startswith(b"HTTP/1.1 200")
        installation.run("keys", "revoke", key["key_id"])
        with suppress(ConnectionResetError):
            while piece := connection.recv(1 << 20):
                received += piece
    assert len(received) < len(LARGE)
    assert not received.endswith(b"0\r\n\r\n")  # it does not look like a whole answer
    head, _, _ = received.partition(b"\r\n\r\n")
    record = next(
        line.partition(b": ")[2]
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"cachegate-record")
    )
    assert installation.outcome_of(record.decode())["ending"] == "revoked"
    assert served.wire.get(path, key["token"]).status == 401


@contextmanager
def slow_run(served, token, path="/slow/acme/cars/1", *, goes_on_first=True):
    """A request whose handler has begun, and waits. It goes on before or after the answer is read."""
    runs, goes_on = served.marks / "slow-runs", served.marks / "slow-goes-on"
    for one in (runs, goes_on):
        one.unlink(missing_ok=True)
    answers = []
    with served.wire.connect(60) as connection:
        connection.sendall(request_bytes("POST", path, token, (("Content-Length", "0"),)))
        wait_until(runs.exists)
        yield answers
        if goes_on_first:
            goes_on.touch()
        answers.append(served.wire.read(connection))
        goes_on.touch()
    assert runs.read_text() == "x"  # the handler ran once


def test_a_key_that_is_revoked_while_the_handler_runs_gets_nothing_of_its_answer(served, furnished):
    installation, _ = furnished
    key = installation.json("keys", "create", "--tenant", "acme")
    with slow_run(served, key["token"]) as answers:
        installation.run("keys", "revoke", key["key_id"])
    assert answers[0].status == 401
    assert b"acme" not in answers[0].body


@pytest.mark.parametrize("path", ["/slow/acme/cars/1", "/thread/acme/cars/1"])
def test_a_revoked_caller_is_refused_while_the_handler_still_runs(served, furnished, path):
    installation, _ = furnished
    key = installation.json("keys", "create", "--tenant", "acme")
    with slow_run(served, key["token"], path, goes_on_first=False) as answers:
        installation.run("keys", "revoke", key["key_id"])
    assert answers[0].status == 401


def test_a_fact_that_changes_while_the_handler_runs_is_decided_anew_and_the_handler_is_not_run_again(
    served, token, furnished
):
    installation, _ = furnished
    with slow_run(served, token) as answers:
        installation.run("grants", "add", "--tenant", "acme", "--models", "globex/lab/*")
    installation.run("grants", "remove", "--tenant", "acme", "--models", "globex/lab/*")
    told = json.loads(answers[0].body)
    assert (answers[0].status, told["tenant"]) == (200, "acme")
    assert told["record"] != answers[0].record_id  # it is sent under the newer decision
    assert installation.outcome_of(told["record"])["ending"] == "withdrawn"
    assert installation.outcome_of(answers[0].record_id)["ending"] == "complete"


def test_middleware_outside_the_guard_has_its_own_answers(served):
    asked = (("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET"))
    assert served.wire.request("OPTIONS", "/me", headers=asked).status == 200
    refused = served.wire.get("/me", headers=(("Origin", "https://app.example"),))
    assert (refused.status, refused.header("access-control-allow-origin")) == (401, "https://app.example")


def socket_status(served, path, token=None, agent="a"):
    more = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"))
    more += (("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("User-Agent", agent))
    with served.wire.connect() as connection:
        connection.sendall(request_bytes("GET", path, token, more))
        return int(connection.recv(4096).split()[1])


def test_websockets_are_refused_and_recorded(served, token, furnished):
    def is_recorded():
        """Whether one of them is; records of strangers are limited in number."""
        for path in ("/socket", "/other", "/files/x"):
            assert socket_status(served, path, token, agent=f"of-{served.server}") == 403
        return any(
            (one["request"].get("agent"), one["reason"]) == (f"of-{served.server}", "no-route")
            for one in furnished[0].records()
            if "request" in one
        )

    wait_until(is_recorded)


@pytest.mark.parametrize("server", SERVERS)
class TestStarts:
    """Each of these has a server of its own."""

    def test_websockets_of_unguarded_routes_are_passed_where_that_is_set(self, serving, server, token):
        with serving(server, "guarded_app:app_with_sockets") as served:
            assert socket_status(served, "/socket") == 101
            assert socket_status(served, "/other", token) == 403

    def test_an_app_that_is_mounted_in_another_one_is_guarded_below_its_prefix(self, serving, server, token):
        with serving(server, "guarded_app:outer", ready="/inner/ready") as served:
            assert served.wire.get("/outer").body == b"outer"
            assert served.wire.get("/inner" + FILES + "small.txt", token).body == SMALL
            assert served.wire.get("/inner" + THEIRS, token).status == 404
            assert served.wire.get("/inner/undeclared", token).status == 404
            assert served.wire.get("/inner" + FILES + "small.txt").status == 401
            assert served.wire.get("/inner/inner" + FILES + "small.txt", token).status == 404

    def test_a_guard_that_nobody_started_refuses_everything_and_says_why(self, serving, server, token):
        with serving(server, "guarded_app:forgotten", ready=None) as served:
            wait_until(lambda: _answers(served, "/inner/open"))
            for path in (FILES + "small.txt", "/undeclared", "/me"):
                answer = served.wire.get("/inner" + path, token)
                assert (answer.status, answer.record_id) == (503, "00000000-0000-0000-0000-000000000000")
            assert "running()" in served.log()

    def test_an_app_that_is_wrapped_as_a_whole_is_guarded_alike(self, serving, server, token):
        with serving(server, "guarded_app:wrapped") as served:
            assert served.wire.get(FILES + "small.txt", token).body == SMALL
            assert served.wire.get(THEIRS, token).status == 404
            assert served.wire.get("/undeclared", token).status == 404
            assert post(served.wire, "/infer/acme/cars/1/classes", token).status == 404
            assert json.loads(post(served.wire, "/infer/acme/cars/1", token).body)["state"] == "yes"

    def test_a_root_path_is_taken_off(self, serving, server, token):
        prefix = "/api" if server == "granian" else ""  # the others are told of a prefix that was taken off
        with serving(server, ready=f"{prefix}/ready", root_path="/api") as served:
            assert served.wire.get(prefix + FILES + "small.txt", token).body == SMALL
            assert served.wire.get(prefix + THEIRS, token).status == 404
            assert served.wire.get(prefix + "/undeclared", token).status == 404

    def test_of_several_workers_each_is_guarded_and_none_serves_a_revoked_key(
        self, serving, server, furnished
    ):
        installation, _ = furnished
        with serving(server, workers=2) as served:
            key = installation.json("keys", "create", "--tenant", "acme")
            processes = set()

            def have_both_answered():
                answers = burst(served, "/me", key["token"])
                processes.update(json.loads(one.body)["process"] for one in answers if one.status == 200)
                return len(processes) == 2

            wait_until(have_both_answered)
            revoked = installation.json("keys", "revoke", key["key_id"])
            assert revoked["workers"] >= 2
            assert {one.status for _ in range(4) for one in burst(served, "/me", key["token"])} == {401}

    def test_without_a_state_folder_the_start_fails_and_says_so(
        self, serving, server, furnished, tmp_path, new_wire
    ):
        installation, url = furnished
        environment = installation.variables() | {
            "CACHEGATE_REDIS_URL": url,
            "CACHEGATE_STATE": str(tmp_path / "nowhere"),
        }
        with running(server, "guarded_app:app", new_wire(), environment, tmp_path) as served:
            wait_until(lambda: served.process.poll() is not None)
            assert "cachegate init" in served.log()
            assert not served.has("started")  # the app's own start did not run

    def test_without_redis_or_an_audit_log_nothing_is_served(self, server, installation, tmp_path, new_wire):
        from gateway.configuration.sources import load_settings  # noqa: PLC0415
        from gateway.operations.session import fact_server  # noqa: PLC0415

        installation.run("tenants", "create", "acme")
        token = installation.json("keys", "create", "--tenant", "acme")["token"]
        with fact_server(load_settings(installation.variables())) as url:
            environment = installation.variables() | {"CACHEGATE_REDIS_URL": url}
            with running(server, "guarded_app:app", new_wire(), environment, tmp_path) as served:
                await_ready_without_cache(served)
                wait_until(lambda: served.wire.get("/me", token).status == 200)
                process = installation.redis().info("server")["process_id"]
                _stop(process)
                try:
                    wait_until(lambda: served.wire.get("/me", token).status == 503)
                    assert served.wire.get("/infer/acme/x", token).status in {405, 503}
                    assert served.wire.get("/open").status == 200
                finally:
                    _go_on(process)
                wait_until(lambda: served.wire.get("/me", token).status == 200)
                for segment in installation.audit.glob("*.jsonl"):
                    segment.unlink()
                unrecorded = served.wire.get("/me", token)
                assert (unrecorded.status, unrecorded.body.count(b"acme")) == (503, 0)
                assert served.wire.get("/open").status == 200


def burst(served, path, token, count=16):
    """Many requests at one time, so that every worker has some."""
    with ExitStack() as stack:
        connections = [stack.enter_context(served.wire.connect()) for _ in range(count)]
        for one in connections:
            one.sendall(request_bytes("GET", path, token, is_last=True))
        return [served.wire.read(one) for one in connections]


def _stop(pid):
    os.kill(pid, signal.SIGSTOP)


def _go_on(pid):
    os.kill(pid, signal.SIGCONT)


def _answers(served, path):
    assert served.process.poll() is None, served.log()
    with suppress(OSError):
        return served.wire.get(path).status == 200
    return False


def await_ready_without_cache(served):
    wait_until(lambda: _answers(served, "/open"))
    wait_until(lambda: json.loads(served.wire.get("/ready").body).get("lease"))
