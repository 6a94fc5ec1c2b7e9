"""Saved workflows, and the other routes of workflows, on the real server with the platform behind it."""

from __future__ import annotations

import secrets
from urllib.parse import quote

import pytest
from gateways import TenantKey
from http_client import bearer, encoded, image
from tenants_models import CARS, GLOBEX_VANS
from workflow_texts import INNER_BLOCK, classify, classifying, inner, python_block, workflow

pytestmark = pytest.mark.server

DESCRIBE = "/workflows/describe_workload"
REFUSED = "upstream-refused"  # by the platform, for a model of somebody else


@pytest.fixture
def front(front_with, upstream):
    """A gateway that believes the platform about its keys."""
    return front_with(
        UPSTREAM=upstream.provider.api_url,
        PRIVATE_UPSTREAMS="on",
        AUTHORITY="platform",
        PUBLIC_URL="http://127.0.0.1:1",
    )


@pytest.fixture
def acme(front, upstream):
    """A key of the platform, which runs what is acme's there. It was used before."""
    token = secrets.token_hex(10)
    upstream.provider.grant(token, "acme/*")
    key = TenantKey("acme", token, "-")
    answer = front.post("/infer/classification", {"model_id": CARS, "image": image()}, key)
    assert answer.status == 200, answer.body
    front.notes.mark()
    return key


def naming(workflow_id, workspace="acme", name="saved", **more):
    """A step that runs a saved workflow."""
    return {
        "type": INNER_BLOCK,
        "name": name,
        "workflow_workspace_id": workspace,
        "workflow_id": workflow_id,
        "parameter_bindings": {"image": "$inputs.image"},
    } | more


def run_saved(front, key, workflow_id, workspace="acme", form="/{}/workflows/{}", **more):
    return front.post(form.format(workspace, workflow_id), {"inputs": {"image": image()}} | more, key)


def asked_for_workflows(upstream):
    return [one for one in upstream.provider.seen("api") if "/workflows/" in one.path]


@pytest.mark.parametrize("form", ["/{}/workflows/{}", "/infer/workflows/{}/{}"])
def test_a_saved_workflow_is_fetched_with_the_tenants_key_and_sent_literally(front, acme, upstream, form):
    upstream.provider.save("acme", "w1", classifying(CARS))
    answer = run_saved(front, acme, "w1", form=form)
    assert answer.status == 200, answer.body
    [asked] = asked_for_workflows(upstream)
    assert (asked.path, dict(asked.pairs)) == ("/acme/workflows/w1", {"api_key": acme.token})
    sent = front.sent()[-1]
    assert (sent.path, sent.json["specification"]) == (
        "/workflows/run",
        classifying(CARS) | {"id": "id-of-w1"},
    )
    assert dict(sent.headers)["authorization"] == f"Bearer {acme.token}"


def test_saved_inner_workflows_are_put_in_at_every_depth(front, acme, upstream):
    upstream.provider.save("acme", "leaf", classifying(CARS))
    upstream.provider.save("acme", "middle", workflow(naming("leaf")))
    upstream.provider.save("acme", "top", workflow(naming("middle")))
    answer = run_saved(front, acme, "top")
    assert answer.status == 200, answer.body
    assert {one.path for one in asked_for_workflows(upstream)} == {
        f"/acme/workflows/{name}" for name in ("top", "middle", "leaf")
    }
    sent = front.sent()[-1].json["specification"]
    text = str(sent)
    assert "workflow_workspace_id" not in text
    assert CARS in text
    literal = front.post(
        "/workflows/run",
        {"specification": workflow(inner(workflow(naming("leaf")))), "inputs": {"image": image()}},
        acme,
    )
    assert literal.status == 200, literal.body


def test_a_version_is_asked_for_by_name(front, acme, upstream):
    upstream.provider.save("acme", "w2", classifying(GLOBEX_VANS))
    upstream.provider.save("acme", "w2", classifying(CARS), version="v7")
    assert run_saved(front, acme, "w2", workflow_version_id="v7").status == 200
    assert dict(asked_for_workflows(upstream)[-1].pairs)["workflow_version"] == "v7"
    refused = run_saved(front, acme, "w2")
    assert front.reason(refused) == REFUSED


def test_a_saved_workflow_is_authorised_as_a_literal_one(front, acme, upstream):
    for number, specification in enumerate(
        (
            classifying(GLOBEX_VANS),
            workflow(classify(CARS)) | {"dynamic_blocks_definitions": [python_block()]},
            workflow(naming("vans")),
        )
    ):
        upstream.provider.save("acme", "vans", classifying(GLOBEX_VANS))
        upstream.provider.save("acme", f"bad{number}", specification)
        refused = run_saved(front, acme, f"bad{number}")
        assert refused.status in {403, 404}, refused.body
    assert "/workflows/run" not in [note.path for note in front.sent()]
    assert front.notes.all("add", "infer", "load") == []


def test_the_text_that_was_looked_at_is_the_one_that_runs(front, acme, upstream):
    """What the platform has now does not reach a request whose text was fetched."""
    upstream.provider.save("acme", "w3", classifying(CARS))
    assert run_saved(front, acme, "w3").status == 200
    upstream.provider.save("acme", "w3", classifying(GLOBEX_VANS))
    refused = run_saved(front, acme, "w3", use_cache=False)
    assert front.reason(refused) == REFUSED
    assert front.notes.all("infer")[-1].model == CARS


def test_what_the_platform_refuses_and_what_it_does_not_have_are_one_answer(front, acme, upstream):
    upstream.provider.save("globex", "w4", classifying(GLOBEX_VANS))
    refused = run_saved(front, acme, "w4", "globex")
    absent = run_saved(front, acme, "w5", "globex")
    assert (refused.status, front.reason(refused)) == (403, "saved-workflow")
    assert len(refused.body) == len(absent.body)
    assert front.sent() == []


def test_a_platform_that_is_unsure_is_no_answer(front, acme, upstream):
    upstream.provider.save("acme", "w6", classifying(CARS))
    with upstream.provider.behaving("api", status=503):
        refused = run_saved(front, acme, "w6")
    assert refused.status == 503
    assert front.sent() == []


@pytest.mark.parametrize(
    ("workspace", "workflow_id"),
    [("local", "w1"), ("LOCAL", "w1"), ("acme", "w.1"), ("acme", "w%20"), ("a", "é")],
)
def test_files_of_the_server_and_names_that_do_not_parse_are_refused(
    front, acme, upstream, workspace, workflow_id
):
    refused = run_saved(front, acme, quote(workflow_id, safe="%"), workspace)
    assert front.reason(refused) == "saved-workflow", refused.body
    step = naming(workflow_id, workspace)
    refused = front.post(
        "/workflows/run", {"specification": workflow(step), "inputs": {"image": image()}}, acme
    )
    assert front.reason(refused) == "saved-workflow", refused.body
    assert asked_for_workflows(upstream) == []
    assert front.sent() == []


def test_with_the_operators_key_nothing_saved_is_fetched(front, upstream):
    upstream.provider.save("acme", "w7", classifying(CARS))
    refused = run_saved(front, front.key("acme"), "w7")
    assert front.reason(refused) == "saved-workflow"
    assert asked_for_workflows(upstream) == []


def test_without_a_platform_nothing_saved_is_fetched(front_with, upstream):
    bare = front_with()
    refused = run_saved(bare, bare.platform_key("acme"), "w8")
    assert bare.reason(refused) == "saved-workflow"


def test_workflows_that_name_each_other_end(front, acme, upstream):
    upstream.provider.save("acme", "ping", workflow(naming("pong")))
    upstream.provider.save("acme", "pong", workflow(naming("ping"), naming("ping", name="again")))
    refused = run_saved(front, acme, "ping")
    assert front.reason(refused) == "malformed-workflow"
    assert len(asked_for_workflows(upstream)) <= 32
    assert front.sent() == []


@pytest.mark.parametrize("transport", [None, "header"])
def test_the_sdk_runs_a_specification_and_a_saved_workflow(front, acme, upstream, sdk, transport):
    upstream.provider.save("acme", "sdk", classifying(CARS))
    for how in (
        {"specification": classifying(CARS)},
        {"workspace_name": "acme", "workflow_id": "sdk"},
    ):
        outcome = sdk.call(
            front.url, acme.token, "run_workflow", transport=transport, images={"image": encoded()}, **how
        )
        [output] = outcome.returned()
        assert output["out0"], output


# The other routes


@pytest.mark.parametrize("last", ["describe_interface", "describe_workload"])
def test_describing_is_authorised_as_running(front, acme, upstream, last):
    upstream.provider.save("acme", "d1", classifying(CARS))
    upstream.provider.save("acme", "d2", classifying(GLOBEX_VANS))
    own = front.post(f"/workflows/{last}", {"specification": classifying(CARS)}, acme)
    saved = front.post(f"/acme/workflows/d1/{last}", {}, acme)
    assert (own.status, saved.status) == (200, 200), (own.body, saved.body)
    for refused in (
        front.post(f"/workflows/{last}", {"specification": classifying(GLOBEX_VANS)}, acme),
        front.post(f"/acme/workflows/d2/{last}", {}, acme),
    ):
        assert (refused.status, front.reason(refused)) == (404, REFUSED)
    assert all(acme.token not in str(note.headers) + str(note.json) for note in front.sent())


def test_validating_is_authorised_as_running_and_executes_no_python(front):
    key = front.key("acme")
    assert front.post("/workflows/validate", classifying(CARS), key).status == 200
    front.notes.mark()
    python = classifying(CARS) | {"dynamic_blocks_definitions": [python_block()]}
    assert front.reason(front.post("/workflows/validate", python, key)) == "shared-server"
    vans = front.post("/workflows/validate", classifying(GLOBEX_VANS), key)
    assert front.reason(vans) == "not-permitted"
    assert {note.path for note in front.sent()} <= {DESCRIBE}


def test_describing_blocks_executes_no_python(front):
    key = front.key("acme")
    refused = front.post("/workflows/blocks/describe", {"dynamic_blocks_definitions": [python_block()]}, key)
    assert (refused.status, front.reason(refused)) == (403, "shared-server")
    assert front.sent() == []
    assert front.post("/workflows/blocks/describe", {}, key).status == 200


@pytest.mark.parametrize(
    "path",
    ["/workflows/execution_engine/versions", "/workflows/blocks/describe", "/workflows/definition/schema"],
)
def test_what_is_the_same_for_all_comes_from_memory(front, path):
    answers = [front.send("GET", path, headers=bearer(front.key("acme").token)) for _ in range(6)]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert len(front.sent()) <= 2  # the gateway has two workers
    assert front.send("GET", path).status == 401


def test_the_outputs_of_a_step_are_told_to_any_key(front):
    answer = front.post("/workflows/blocks/dynamic_outputs", classify(CARS), front.key("globex"))
    assert answer.status == 200, answer.body
    assert front.post("/workflows/blocks/dynamic_outputs", classify(CARS)).status == 401
