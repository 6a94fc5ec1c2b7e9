"""The server's answer about a workflow: what is not known in it is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the answers beside us

from descriptions import answer, discovery, model, project, resource, step, third_party, unresolved

from gateway.front_door.workflows.specification import read_specification
from gateway.front_door.workflows.workload import parse_workload
from gateway.model.errors import Reason, Refusal

ONE = read_specification({"steps": [{"type": "some/block@v1", "name": "one"}]})


def parse(*steps, **more):
    return parse_workload(answer(*steps, **more), ONE)


def is_refused(body):
    with pytest.raises(Refusal) as caught:
        parse_workload(body, ONE)
    return caught.value.reason is Reason.UNKNOWN_WORKLOAD and bool(caught.value.client_detail)


def test_what_steps_load_and_do():
    [one] = parse(
        step(
            resources=discovery(model("acme/1"), model("acme/1"), project("set")),
            operations=discovery("model_inference", "external_request"),
        )
    ).steps
    assert (one.name, one.models, one.projects) == ("one", ("acme/1",), ("set",))
    assert one.operations == {"model_inference", "external_request"}


@pytest.mark.parametrize("found", [third_party(), model("acme/1", "remote")])
def test_models_elsewhere_are_external_requests(found):
    assert "external_request" in parse(step(resources=discovery(found))).steps[0].operations


def test_a_value_of_an_input_may_be_unknown():
    about = discovery(model("$inputs.model"), problems=[unresolved("$inputs.model")])
    assert parse(step(resources=about)).steps[0].models == ("$inputs.model",)


@pytest.mark.parametrize(
    "resources",
    [
        discovery(model("$steps.a.b"), problems=[unresolved("$steps.a.b")]),
        discovery(model("$inputs.model"), problems=[unresolved("$inputs.other")]),
        discovery(model("$inputs.model"), problems=[unresolved("$inputs.model", code="declaration_failed")]),
        discovery(
            model("$inputs.model"),
            problems=[unresolved("$inputs.model"), unresolved("", code="anything_new")],
        ),
        discovery(model("acme/1"), complete=False),
        discovery(complete=False),
        discovery(problems=[unresolved("$inputs.model")]),
        discovery(problems=[{"type": "discovery_problem_v1", "code": "x", "description": "d"}]),
    ],
)
def test_whatever_else_is_unknown_is_refused_by_whatever_code(resources):
    assert is_refused(answer(step(resources=resources)))


@pytest.mark.parametrize(
    "operations",
    [discovery("model_inference", complete=False), discovery(problems=[unresolved("$inputs.a")])],
)
def test_what_a_step_does_is_known_completely(operations):
    assert is_refused(answer(step(operations=operations)))


def test_what_python_does_is_unknown_and_its_step_says_so():
    python = step(
        resources=discovery(
            model("acme/1"), problems=[unresolved("", code="custom_python_internals_unknown")]
        ),
        operations=discovery("custom_python", complete=False),
    )
    assert parse(python).steps[0].operations == {"custom_python"}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"[]", b"\xff", b"null"),
        answer(step(resources=discovery(resource("anything_new", model_id="acme/1")))),
        answer(step(resources=discovery(model("acme/1") | {"type": "dependent_resource_v2"}))),
        answer(step() | {"type": "step_metadata_v2"}),
        answer(step(), type="workflow_introspection_v2"),
        answer(step(resources=discovery({"model_id": "acme/1"}))),
        answer(step(resources=discovery(model(["acme/1"])))),
        answer(step(operations=discovery(7))),
        answer(step() | {"resources": None}),
        answer(step() | {"resources": discovery() | {"complete": "true"}}),
    ],
)
def test_an_answer_of_another_form_is_refused(body):
    assert is_refused(body)


@pytest.mark.parametrize(
    "body",
    [
        answer(),
        answer(step("other")),
        answer(step(), step()),
        answer(step(), nodes=["$steps.one", "$steps.two"]),
        answer(step(), nodes=[]),
    ],
)
def test_an_answer_that_leaves_steps_out_is_refused(body):
    assert is_refused(body)


def test_steps_of_inner_workflows_stand_beside_our_own():
    assert [one.name for one in parse(step(), step("inner__a")).steps] == ["one", "inner__a"]


def test_a_member_that_is_not_known_changes_nothing():
    document = json.loads(answer(step()))
    assert parse_workload(json.dumps(document | {"more": 1}).encode(), ONE).steps
