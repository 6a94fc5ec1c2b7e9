"""Workflows: what one will load and do is authorised before anything of it runs, on the real server."""

from __future__ import annotations

import pytest
from gateways import SERVICE_KEY
from http_client import encoded, image
from tenants_models import ABSENT, BOXES, CARS, GLOBEX_CHILD, GLOBEX_VANS, SHARED, STATIC_ALIAS
from workflow_texts import (
    CLIP_BLOCK,
    INNER_BLOCK,
    classify,
    classifying,
    inner,
    parameter,
    python_block,
    workflow,
)

pytestmark = pytest.mark.server

RUN = "/workflows/run"


def run(front, specification, key=None, inputs=None, target=RUN, **more):
    document = {"specification": specification, "inputs": {"image": image()} | (inputs or {})} | more
    return front.post(target, document, key or front.key("acme"))


def ran(front):
    """What the server was asked to run, and what it loaded or ran."""
    return [note.path for note in front.sent() if note.path != "/workflows/describe_workload"] + [
        note.model for note in front.notes.all("add", "infer", "load")
    ]


@pytest.mark.parametrize("target", [RUN, "/infer/workflows"])
def test_a_workflow_runs_as_it_was_described(front, target):
    specification = classifying(CARS)
    answer = run(front, specification, target=target)
    assert answer.status == 200, answer.body
    assert answer.json()["outputs"][0]["out0"]
    asked = front.sent()[-1]
    assert (asked.path, asked.json["specification"]) == (RUN, specification)
    assert dict(asked.headers)["authorization"] == f"Bearer {SERVICE_KEY}"
    assert {note.model for note in front.notes.all("infer")} == {CARS}
    described = [note for note in front.sent() if note.path == "/workflows/describe_workload"]
    assert all(note.json == {"api_key": "local", "specification": specification} for note in described)
    assert all("authorization" not in dict(note.headers) for note in described)


def test_the_server_is_asked_once_about_one_text(front):
    specification = classifying(CARS, id="asked-once")
    for _ in range(3):
        assert run(front, specification).status == 200
    described = [note for note in front.sent() if note.path == "/workflows/describe_workload"]
    assert 1 <= len(described) <= 2  # the gateway has two workers


def test_all_decisions_are_recorded_before_the_server_runs_anything(front):
    answer = run(front, workflow(classify(CARS), classify(BOXES, "second")))
    first = front.record(answer)
    assert (first["decision"], first["action"], first["resource"]["model"]) == ("allow", "infer", CARS)
    records = front.installation.records()
    at = [one["id"] for one in records].index(first["id"])
    models = [one.get("resource", {}).get("model") for one in records[at : at + 2]]
    assert models == [CARS, BOXES]


def test_a_model_of_another_tenant_is_the_same_as_none(front):
    assert run(front, classifying(GLOBEX_VANS), front.key("globex")).status == 200
    front.notes.mark()
    for specification in (
        classifying(GLOBEX_VANS),
        workflow(classify(CARS), classify(GLOBEX_VANS, "second")),
        workflow(inner(workflow(classify(GLOBEX_VANS)))),
    ):
        warm = run(front, specification)
        absent = run(front, _replaced(specification, GLOBEX_VANS, ABSENT.replace("acme", "globex")))
        assert (warm.status, front.reason(warm)) == (404, "not-permitted"), warm.body
        assert absent.status == 404
        assert len(warm.body) == len(absent.body)
    assert ran(front) == []


def _replaced(document, old, new):
    if isinstance(document, dict):
        return {name: _replaced(value, old, new) for name, value in document.items()}
    if isinstance(document, list):
        return [_replaced(value, old, new) for value in document]
    return new if document == old else document


def test_what_a_model_brings_is_authorised_too(front_with, upstream):
    front = front_with(UPSTREAM=upstream.provider.api_url, PRIVATE_UPSTREAMS="on")
    refused = run(front, classifying(GLOBEX_CHILD), front.key("globex"))
    assert (refused.status, front.reason(refused)) == (404, "not-permitted")
    assert ran(front) == []


@pytest.mark.parametrize(
    ("declared", "given", "reason"),
    [
        ({"default_value": GLOBEX_VANS}, {}, "not-permitted"),
        ({"default_value": CARS}, {"model": GLOBEX_VANS}, "not-permitted"),
        ({}, {"model": GLOBEX_VANS}, "not-permitted"),
        ({}, {}, "unknown-workload"),
        ({"default_value": CARS}, {"model": None}, "unknown-workload"),
        ({"default_value": CARS}, {"model": [GLOBEX_VANS]}, "unknown-workload"),
        ({"default_value": CARS}, {"model": [CARS, GLOBEX_VANS]}, "unknown-workload"),
        ({"default_value": CARS}, {"model": {"value": GLOBEX_VANS}}, "unknown-workload"),
        ({"default_value": CARS}, {"model": "$inputs.other"}, "unknown-workload"),
        ({"default_value": CARS}, {"model": f" {GLOBEX_VANS}"}, "malformed-workflow"),
        ({"default_value": CARS}, {"model": f"{GLOBEX_VANS}/"}, "malformed-workflow"),
        ({"default_value": CARS}, {"model": 7}, "unknown-workload"),
        ({"default_value": [CARS]}, {}, "unknown-workload"),
    ],
)
def test_a_parameter_that_names_a_model_is_the_requests_own(front, declared, given, reason):
    specification = classifying(
        "$inputs.model", inputs=[{"type": "WorkflowImage", "name": "image"}, parameter("model", **declared)]
    )
    refused = run(front, specification, inputs=given | {"other": GLOBEX_VANS})
    assert front.reason(refused) == reason, refused.body
    assert ran(front) == []


@pytest.mark.parametrize(("declared", "given"), [({"default_value": CARS}, {}), ({}, {"model": CARS})])
def test_a_parameter_that_names_an_own_model_runs_it(front, declared, given):
    specification = classifying(
        "$inputs.model", inputs=[{"type": "WorkflowImage", "name": "image"}, parameter("model", **declared)]
    )
    answer = run(front, specification, inputs=given)
    assert answer.status == 200, answer.body
    assert {note.model for note in front.notes.all("infer")} == {CARS}


def test_a_version_from_a_parameter_is_the_version_of_its_family(front):
    specification = workflow(
        {"type": CLIP_BLOCK, "name": "embed", "data": "hello", "version": "$inputs.version"},
        inputs=[parameter("version", default_value="ViT-B-16")],
        outputs=("$steps.embed.embedding",),
    )
    answer = front.post(RUN, {"specification": specification, "inputs": {}}, front.key("acme"))
    assert answer.status == 200, answer.body
    assert front.record(answer)["resource"]["model"] == "clip/ViT-B-16"


def test_two_inputs_that_the_server_could_confuse_are_refused(front):
    for inputs in (
        [parameter("x.model", default_value=CARS), parameter("model", default_value=GLOBEX_VANS)],
        [parameter("model", default_value=CARS), parameter("model", default_value=GLOBEX_VANS)],
    ):
        specification = classifying(
            f"$inputs.{inputs[0]['name']}", inputs=[{"type": "WorkflowImage", "name": "image"}, *inputs]
        )
        refused = run(front, specification)
        assert front.reason(refused) == "malformed-workflow"
    assert ran(front) == []


def test_an_alias_of_the_server_is_authorised_by_both_names(front):
    answer = run(front, classifying(STATIC_ALIAS), front.key("acme"))
    assert front.reason(answer) == "not-permitted"  # the alias's own name is nobody's here
    assert run(front, classifying(SHARED)).status == 200


@pytest.mark.parametrize(
    "where",
    [
        lambda spec: spec | {"dynamic_blocks_definitions": [python_block()]},
        lambda spec: spec | {"dynamic_blocks_definitions": python_block()},
        lambda spec: workflow(inner(spec | {"dynamic_blocks_definitions": [python_block()]})),
        lambda spec: workflow(
            inner(workflow(inner(spec | {"dynamic_blocks_definitions": [python_block()]}))),
        ),
        lambda spec: (
            spec
            | {
                "dynamic_blocks_definitions": [python_block()],
                "steps": [*spec["steps"], {"type": "Said", "name": "said"}],
            }
        ),
    ],
)
def test_custom_python_never_runs_without_being_allowed(front, where):
    refused = run(front, where(classifying(CARS)))
    assert refused.status in {400, 403}, refused.body
    assert front.reason(refused) in {"shared-server", "malformed-workflow"}
    assert ran(front) == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"execution_mode": "remote_dispatch"}, "unknown-workload"),
        ({"execution_mode": "remote_dispatch", "remote_target": "http://127.0.0.1:9"}, "unknown-workload"),
        ({"remote_target": "http://127.0.0.1:9"}, "unknown-workload"),
        ({"execution_mode": ["remote_dispatch"]}, "unknown-workload"),
    ],
)
def test_an_inner_workflow_is_sent_to_no_other_server(front, more, reason):
    refused = run(front, workflow(inner(classifying(CARS)) | more))
    assert front.reason(refused) == reason
    assert front.sent() == []


@pytest.mark.parametrize("workspace", ["acme", "local"])
def test_a_saved_inner_workflow_is_refused_with_the_operators_key(front, workspace):
    step = {"type": INNER_BLOCK, "name": "saved", "parameter_bindings": {}, "workflow_id": "w1"}
    for saved in (
        step | {"workflow_workspace_id": workspace},
        step | {"workflow_workspace_id": workspace, "workflow_definition": classifying(CARS)},
    ):
        refused = run(front, workflow(saved))
        assert front.reason(refused) == "saved-workflow", refused.body
    assert front.sent() == []


@pytest.mark.parametrize(
    "value",
    [
        "http://127.0.0.1:9/x.png",
        "https://example.com/x.png",
        {"type": "base64", "value": "http://127.0.0.1:9/x.png"},
        {"value": "http://127.0.0.1:9/x.png"},
        {"type": "URL", "value": "http://127.0.0.1:9/x.png"},
        [{"type": "url", "value": "http://127.0.0.1:9/x.png"}],
        [["http://127.0.0.1:9/x.png"]],
        {"type": "file", "value": "/etc/passwd"},
        {"type": "numpy", "value": "gASVAAA="},
    ],
)
def test_images_in_inputs_obey_the_rules_of_plain_routes(front, value):
    refused = run(front, classifying(CARS), inputs={"image": value})
    assert front.reason(refused) == "forbidden-image", refused.body
    assert "/workflows/run" not in [note.path for note in front.sent()]


@pytest.mark.parametrize("value", [encoded(), image(), [image()], {"value": encoded(), "parent_id": "p"}])
def test_images_in_inputs_come_in_the_servers_forms(front, value):
    answer = run(front, classifying(CARS), inputs={"image": value})
    assert answer.status == 200, answer.body


@pytest.mark.parametrize(
    "more",
    [
        {"enable_profiling": True},
        {"debug": True},
        {"is_preview": True},
        {"inner_workflow_dispatch_depth": 1},
        {"active_learning_target_dataset": "acme/set"},
    ],
)
def test_fields_that_would_reveal_or_bill_are_refused(front, more):
    refused = run(front, classifying(CARS), **more)
    assert front.reason(refused) == "forbidden-field"
    assert front.sent() == []


def test_nothing_but_what_was_authorised_reaches_the_server(front):
    more = {
        "use_cache": False,
        "workflow_id": "globex-secret",
        "model_id": None,
        "anything": {"workflow_workspace_id": "local"},
        "excluded_fields": ["out0"],
        "disable_sinks": True,
    }
    answer = run(front, classifying(CARS), inputs={"unknown": "x"}, **more)
    assert answer.status == 200, answer.body
    asked = front.sent()[-1].json
    assert sorted(asked) == ["disable_sinks", "excluded_fields", "inputs", "specification"]
    assert sorted(asked["inputs"]) == ["image"]
    assert answer.json()["outputs"] == [{}]
    assert answer.header("x-workflow-id") is None


def test_a_model_that_the_server_used_besides_is_not_heard(front):
    with front.upstream.server.reporting(GLOBEX_VANS):
        refused = run(front, classifying(CARS))
    assert (refused.status, front.reason_of_end(refused)) == (503, "unexpected-model")


def test_active_learning_into_a_project_is_refused_with_the_operators_key(front):
    step = classify(CARS, disable_active_learning=False, active_learning_target_dataset="acme-set")
    deep = workflow(inner(workflow(step)))
    for specification in (workflow(step), deep):
        refused = run(front, specification)
        assert front.reason(refused) == "operators-project", refused.body
    assert ran(front) == []


OPERATIONS = [
    (
        "external-request",
        {
            "type": "roboflow_core/webhook_sink@v1",
            "name": "hook",
            "url": "http://127.0.0.1:9/",
            "method": "POST",
        },
    ),
    (
        "storage-write",
        {
            "type": "roboflow_core/local_file_sink@v1",
            "name": "file",
            "content": "$inputs.text",
            "target_directory": "/tmp",
            "file_type": "csv",
            "file_name_prefix": "x",
            "output_mode": "append_log",
        },
    ),
    (
        "environment-read",
        {
            "type": "roboflow_core/environment_secrets_store@v1",
            "name": "secrets",
            "variables_storing_secrets": ["PATH"],
        },
    ),
    (
        "cache-write",
        {
            "type": "roboflow_core/cache_set@v1",
            "name": "set",
            "image": "$inputs.image",
            "key": "k",
            "value": "$inputs.text",
        },
    ),
    (
        "cache-read",
        {"type": "roboflow_core/cache_get@v1", "name": "get", "image": "$inputs.image", "key": "k"},
    ),
]


@pytest.mark.parametrize(("action", "step"), OPERATIONS, ids=[one[0] for one in OPERATIONS])
def test_what_a_workflow_does_is_denied_by_default(front, action, step):
    specification = workflow(
        step, inputs=[{"type": "WorkflowImage", "name": "image"}, parameter("text", default_value="a")]
    )
    refused = run(front, specification)
    assert refused.status == 403, refused.body
    expected = "missing-action" if action == "external-request" else "shared-server"
    assert front.reason(refused) == expected
    assert step["name"] in refused.json()["detail"]
    assert ran(front) == []


def test_what_cannot_be_compiled_is_refused_and_not_asked_about_again(front):
    specification = workflow({"type": "roboflow_core/no_such_block@v1", "name": "x"}, id="not-compiled")
    for _ in range(4):
        refused = run(front, specification)
        assert (refused.status, front.reason(refused)) == (400, "malformed-workflow"), refused.body
    assert len(front.sent()) <= 2  # once for each worker


def test_a_key_that_may_not_infer_has_nothing_described(front):
    key = front.installation.json("keys", "create", "--tenant", "acme", "--scopes", "read", "discover")
    answer = front.post(
        RUN,
        {"specification": classifying(CARS, id="not-described"), "inputs": {"image": image()}},
        type(front.key())("acme", key["token"], key["key_id"]),
    )
    assert (answer.status, front.reason(answer)) == (403, "missing-scope")
    assert front.sent() == []


def test_nobody_has_nothing_described(front):
    answer = front.post(RUN, {"specification": classifying(CARS), "inputs": {}}, None)
    assert answer.status == 401
    assert front.sent() == []
