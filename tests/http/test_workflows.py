"""Workflows over real sockets, before small servers that say what no real one would say.

The real server is in `tests/server`.
"""

from __future__ import annotations

import json
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the servers beside us
sys.path.append(str(Path(__file__).parents[1] / "unit/front_door/workflows"))  # the answers of a server

from descriptions import answer, discovery, model, step
from inference_stand_in import Reply
from test_front_door import IMAGE, front_of

RUN, DESCRIBE, INFO = "/workflows/run", "/workflows/describe_workload", "/info"
CLASSIFY = "roboflow_core/roboflow_classification_model@v2"
DONE = Reply(
    pieces=(b'{"outputs":[{}],"profiler_trace":[]}',), headers=(("content-type", "application/json"),)
)


@pytest.fixture(scope="module")
def front(new_installation):
    yield from front_of(new_installation, "workflows")


@pytest.fixture(scope="module")
def acme(front):
    return front.key("acme")[0]


@pytest.fixture(scope="module")
def north(front):
    return front.key("north")[0]


@pytest.fixture(autouse=True)
def described(front):
    """Servers that describe one step, with the models and operations that a test says."""
    for server in (*front.servers, front.bound):
        server.reset()
    process = iter(range(1000))

    def describe(*models, operations=("model_inference",), reply=None, **info):
        said = step(resources=discovery(*map(model, models)), operations=discovery(*operations))
        who = {"name": "x", "version": "1.8.3", "uuid": f"{id(front)}-{next(process)}"} | info
        front.reply(INFO, Reply(pieces=(json.dumps(who).encode(),)))
        front.reply(DESCRIBE, reply or Reply(pieces=(answer(said),)))
        front.reply(RUN, DONE)

    describe("acme/1")
    return describe


class Texts:
    """Each specification is another one: what is remembered of one test is nothing to the next."""

    number = 0

    @classmethod
    def new(cls, **more):
        cls.number += 1
        one = {"type": CLASSIFY, "name": "one", "images": "$inputs.image", "model_id": "acme/1"}
        inputs = [{"type": "WorkflowImage", "name": "image"}]
        return {
            "version": "1.0",
            "inputs": inputs,
            "steps": [one],
            "outputs": [],
            "id": f"{cls.number}",
        } | more


def run(front, key, **more):
    return front.post(RUN, {"specification": Texts.new(), "inputs": {"image": IMAGE}} | more, key)


def ran(front):
    return [one for one in front.asked() if one.target == RUN]


def test_the_server_that_described_a_workflow_runs_it(front, acme):
    specifications = [Texts.new() for _ in range(8)]
    for specification in specifications:
        done = front.post(RUN, {"specification": specification, "inputs": {"image": IMAGE}}, acme)
        assert done.status == 200, done.body
    used = set()
    for server in front.servers:
        said = {one.json()["specification"]["id"] for one in server.asked() if one.target == DESCRIBE}
        was_run = {one.json()["specification"]["id"] for one in server.asked() if one.target == RUN}
        assert said == was_run
        used |= {server.name} if was_run else set()
    assert len(used) == 2  # by their digests, workflows are spread
    assert not front.bound.asked()


def test_all_decisions_of_a_workflow_are_recorded(front, acme, described):
    described("acme/1", "acme/2", "public/3")
    done = run(front, acme)
    written = [one for one in front.installation.records() if one.get("decision") == "allow"][-3:]
    assert [one["resource"]["model"] for one in written] == ["acme/1", "acme/2", "public/3"]
    assert written[0]["id"] == done.record_id


def test_what_cannot_be_recorded_does_not_run(front, acme, eventually):
    """I5: the decisions are in the log before the server has the workflow."""
    [worker] = front.gateway.worker_pids()
    limits = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        refused = run(front, acme)
    finally:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)
    assert (refused.status, ran(front)) == (503, [])
    eventually(lambda: run(front, acme).status == 200)


@pytest.mark.parametrize("model_id", ["globex/1", "acme/1,globex/1", "a/b/c"])
def test_what_the_server_says_besides_is_authorised(front, acme, described, model_id):
    described("acme/1", model_id)
    assert run(front, acme).status in {400, 404}
    assert ran(front) == []


def test_what_a_workflow_does_is_decided_on_the_tenant(front, acme, described):
    described(operations=("external_request",))
    refused = run(front, acme)
    assert (refused.status, front.reason(refused)) == (403, "missing-action")
    assert "external-request" in json.loads(refused.body)["detail"]
    record = front.records(refused)
    assert (record["action"], record["resource"]["kind"]) == ("external-request", "tenant")
    front.installation.run("tenants", "allow", "acme", "external-request")
    assert run(front, acme).status == 200
    front.installation.run("tenants", "disallow", "acme", "external-request")
    assert run(front, acme).status == 403
    assert len(ran(front)) == 1


def test_what_servers_share_is_for_the_tenants_own(front, acme, north, described):
    described(operations=("cache_read",))
    for tenant in ("acme", "north"):
        front.installation.run("tenants", "allow", tenant, "cache-read")
    assert front.reason(run(front, acme)) == "shared-server"
    assert run(front, north).status == 200
    assert [one.target for one in front.bound.asked() if one.target == RUN] == [RUN]


@pytest.mark.parametrize("info", [{"version": "1.8.4"}, {"version": None}, {"uuid": None}])
def test_a_server_of_another_version_runs_none(front, acme, described, info):
    described("acme/1", **info)
    _forgotten(front, acme)
    refused = run(front, acme)
    assert (refused.status, front.reason(refused)) == (501, "no-workflows")
    assert ran(front) == []


def _forgotten(front, key):
    """Have the gateway ask anew which process each server is: one that broke off may be another one."""
    front.reply(RUN, Reply(drops=True))
    before = {name: server.replies[DESCRIBE] for name, server in enumerate(front.servers)}
    info = {name: server.replies[INFO] for name, server in enumerate(front.servers)}
    for _ in range(6):
        run(front, key)
    for name, server in enumerate(front.servers):
        server.replies |= {DESCRIBE: before[name], INFO: info[name], RUN: DONE}
        server.seen.clear()


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_does_not_say_what_a_workflow_does_runs_none(front, acme, described, status):
    described(reply=Reply(status=status))
    refused = run(front, acme)
    assert (refused.status, front.reason(refused)) == (501, "no-workflows")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500),
        Reply(drops=True),
        Reply(pieces=(b"{",), length=10, breaks_off=True),
        Reply(pieces=(b" " * (5 << 20),)),
    ],
)
def test_an_answer_that_does_not_come_decides_nothing(front, acme, described, reply):
    described(reply=reply)
    refused = run(front, acme)
    assert (refused.status, front.reason(refused)) == (503, "inference-unavailable")
    assert ran(front) == []


def test_a_model_that_was_used_besides_is_not_heard(front, acme):
    front.reply(RUN, Reply(pieces=DONE.pieces, headers=(*DONE.headers, ("x-model-id", "acme/1,globex/1"))))
    refused = run(front, acme)
    assert (refused.status, json.loads(refused.body)["type"]) == (
        503,
        "urn:cachegate:problem:unexpected-model",
    )


def outputs(model_id):
    """The outputs of a workflow, one of which is called `model_id`, with a prediction."""
    prediction = {"resolved_model": {"model_id": model_id}, "top": "car"}
    return {"outputs": [{"model_id": "a name of mine", "predictions": prediction}], "profiler_trace": []}


def test_ids_are_compared_in_predictions_alone_and_outputs_are_the_tenants_own(front, acme):
    for model_id, shown in (("acme/1", "acme/1"), ("globex/1", "")):
        text = json.dumps(outputs(model_id), separators=(",", ":")).encode()
        front.reply(RUN, replace(DONE, pieces=(text,)))
        done = run(front, acme)
        assert (done.status, json.loads(done.body)) == (200, outputs(shown))


def test_what_came_of_a_run_is_recorded(front, acme):
    done = run(front, acme)
    upstream = front.installation.outcome_of(done.record_id)["upstream"]
    assert (upstream["status"], upstream["bytes"]) == (200, len(DONE.pieces[0]))


def test_a_run_whose_answer_is_dropped_is_over(front, acme, eventually):
    headers = (*DONE.headers, ("x-model-id", "globex/1"))
    front.reply(RUN, Reply(pieces=(b'{"outputs":', b"[]}"), headers=headers))
    assert run(front, acme).status == 503
    eventually(lambda: any(server.client_left.is_set() for server in front.servers))


def test_a_workflow_runs_once_however_often_it_is_decided(front, acme, eventually):
    front.reply(RUN, replace(DONE, waits=True))
    with ThreadPoolExecutor() as pool:
        done = pool.submit(run, front, acme)
        eventually(lambda: any(server.busy.is_set() for server in front.servers))
        front.installation.run("tenants", "allow", "acme", "storage-read")  # a fact about the tenant
        for server in front.servers:
            server.go_on.set()
        assert done.result().status == 200
    front.installation.run("tenants", "disallow", "acme", "storage-read")
    assert len(ran(front)) == 1


def test_what_blocks_a_server_has_is_asked_once(front, acme):
    pieces = (b'{"blocks":[{"model_id":"globex/1"},', b'"' + b"x" * 300_000, b'"]}')
    blocks = "/workflows/blocks/describe"
    front.reply(blocks, Reply(pieces=pieces, length=-1))
    for server in front.servers:
        server.go_on.set()
    for _ in range(2):
        told = front.get(blocks, acme)
        assert (told.status, told.body) == (200, b"".join(pieces))
    assert [one.target for one in front.asked()].count(blocks) == 1


def test_an_error_of_a_run_is_told_in_our_words(front, acme):
    front.reply(RUN, Reply(status=500, pieces=(b'{"message":"key the-operators-own-key-1 failed"}',)))
    refused = run(front, acme)
    assert refused.status == 502
    assert b"the-operators-own-key-1" not in refused.body


def test_images_at_urls_are_fetched_from_the_tenants_hosts_only(front, acme):
    refused = run(front, acme, inputs={"image": {"type": "base64", "value": "http://127.0.0.1:1/x.png"}})
    assert front.reason(refused) == "permitted"  # it was decided, and then the image was refused
    assert refused.status == 400
    assert ran(front) == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"specification":{"steps":[]},"specification":{"steps":[]},"inputs":{}}',
        b'{"specification":{"steps":[]},"inputs":{},"inputs":{}}',
        b'{"specification":{"steps":[],"steps":[]},"inputs":{}}',
        b'{"specification":{"steps":[],"st\\u0065ps":[]},"inputs":{}}',
        b'{"specification":{"steps":[],"a":NaN},"inputs":{}}',
        b"[" * 100_000,
        b'{"specification":' + b'{"a":' * 5_000,
        b'{"specification":{"steps":[' + b"{}," * 60_000 + b"{}]}}",
    ],
)
def test_a_body_that_can_be_read_in_two_ways_is_refused(front, acme, body):
    refused = front.wire.send(front.raw("POST", RUN, body, (("Content-Type", "application/json"),), acme))
    assert (refused.status, front.reason(refused)) == (400, "malformed-body")
    assert front.asked() == []
