"""What is read from a specification itself: the bounds, code, datasets, and what lies elsewhere."""

from __future__ import annotations

import hashlib
import json

import pytest

from gateway.front_door.workflows import specification as module
from gateway.front_door.workflows.specification import (
    INNER_WORKFLOW,
    MAX_INNER_DEPTH,
    MAX_INNER_WORKFLOWS,
    MAX_SELECTOR_CHARACTERS,
    MAX_STEPS,
    MAX_TEXT_BYTES,
    read_specification,
)
from gateway.model.errors import Reason, Refusal

IMAGE = {"type": "WorkflowImage", "name": "image"}


def workflow(*steps, inputs=(IMAGE,), **more):
    return {"version": "1.0", "inputs": list(inputs), "steps": list(steps), "outputs": []} | more


def step(name="one", kind="some/block@v1", **more):
    return {"type": kind, "name": name} | more


def inner(definition, name="inner", **more):
    return step(name, INNER_WORKFLOW, workflow_definition=definition, parameter_bindings={}) | more


def parameter(name, **more):
    return {"type": "WorkflowParameter", "name": name} | more


def nested(definition, depth):
    for _ in range(depth):
        definition = workflow(inner(definition))
    return definition


def refused(document):
    with pytest.raises(Refusal) as caught:
        read_specification(document)
    assert caught.value.client_detail
    return caught.value.reason


def test_the_text_is_one_and_its_digest_that_of_the_text():
    found = read_specification(workflow(step(note="ä\u2028")))
    assert json.loads(found.text) == workflow(step(note="ä\u2028"))
    assert found.digest == hashlib.sha256(found.text).digest()
    assert found.steps == {"one"}
    assert not found.has_python


def test_a_tenants_document_is_never_printed():
    assert "secret" not in repr(read_specification(workflow(step(note="secret"))))


@pytest.mark.parametrize(
    "document",
    [
        *(None, [], "x", 7, {}, {"steps": None}, {"steps": {}}, {"steps": [7]}),
        *({"steps": [{"name": "a"}]}, {"steps": [{"type": "a"}]}, {"steps": [{"type": ["a"], "name": "a"}]}),
        *(
            workflow(inputs="x"),
            workflow(inputs=[7]),
            workflow(inputs=[{"type": ["WorkflowImage"], "name": "a"}]),
        ),
        *(workflow(inputs=[{"type": "WorkflowImage"}]), workflow(inputs=[{"type": "Other", "name": "a"}])),
        *(workflow(inputs=[parameter("a.b")]), workflow(inputs=[parameter("a"), parameter("a")])),
        workflow(inputs=[{"type": "WorkflowBatchInput", "name": "a", "kind": "image"}]),
    ],
)
def test_what_is_no_specification_is_refused(document):
    assert refused(document) is Reason.MALFORMED_WORKFLOW


@pytest.mark.parametrize("value", [[{"code": 1}], {"code": 1}, "x", 1, True])
@pytest.mark.parametrize("depth", [0, 1, MAX_INNER_DEPTH])
def test_custom_python_is_found_at_any_depth_in_any_form(value, depth):
    definition = workflow(dynamic_blocks_definitions=value)
    assert read_specification(nested(definition, depth)).has_python


def test_it_is_found_within_a_step_too():
    assert read_specification(workflow(step(deep=[{"dynamic_blocks_definitions": [1]}]))).has_python


@pytest.mark.parametrize("value", [[], {}, None, "", 0, False])
def test_no_definitions_are_no_python(value):
    assert not read_specification(workflow(dynamic_blocks_definitions=value)).has_python


def test_datasets_are_found_at_any_depth():
    one = workflow(step(active_learning_target_dataset="a-set"))
    assert read_specification(nested(one, 2)).datasets == ("a-set",)
    selected = workflow(step(active_learning_target_dataset="$inputs.set"))
    assert read_specification(selected).datasets == ("$inputs.set",)
    assert refused(nested(selected, 1)) is Reason.UNKNOWN_WORKLOAD
    assert refused(workflow(step(active_learning_target_dataset=["a"]))) is Reason.UNKNOWN_WORKLOAD


@pytest.mark.parametrize(
    "more",
    [
        {"execution_mode": "remote_dispatch"},
        {"execution_mode": ["remote_dispatch"]},
        {"execution_mode": {}},
        {"remote_target": "http://127.0.0.1"},
        {"remote_target": ""},
    ],
)
@pytest.mark.parametrize("depth", [0, 1])
def test_nothing_is_sent_to_another_server(more, depth):
    assert refused(nested(workflow(inner(workflow()) | more), depth)) is Reason.UNKNOWN_WORKLOAD


@pytest.mark.parametrize(
    "more",
    [
        *({"workflow_id": "w"}, {"workflow_workspace_id": "w"}, {"workflow_version_id": "1"}),
        *({"workflow_definition": {}}, {"workflow_definition": None}, {"workflow_definition": []}),
    ],
)
def test_what_is_saved_elsewhere_is_refused(more):
    assert refused(workflow(inner(workflow()) | more)) is Reason.SAVED_WORKFLOW


def test_the_bounds():
    assert read_specification(workflow(*[step(f"s{number}") for number in range(MAX_STEPS)]))
    beyond = workflow(*[step(f"s{number}") for number in range(MAX_STEPS)], inner(workflow()))
    assert refused(beyond) is Reason.MALFORMED_WORKFLOW
    assert read_specification(nested(workflow(), MAX_INNER_DEPTH))
    assert refused(nested(workflow(), MAX_INNER_DEPTH + 1)) is Reason.MALFORMED_WORKFLOW
    many = [inner(workflow(), f"i{number}") for number in range(MAX_INNER_WORKFLOWS)]
    assert read_specification(workflow(*many))
    assert refused(workflow(*many, inner(workflow()))) is Reason.MALFORMED_WORKFLOW
    assert refused(workflow(step(note="x" * MAX_TEXT_BYTES))) is Reason.MALFORMED_WORKFLOW
    assert refused(workflow(step(a="$" + "x" * MAX_SELECTOR_CHARACTERS))) is Reason.MALFORMED_WORKFLOW


def test_default_values_do_not_multiply(monkeypatch):
    """Each selector of an inner workflow is replaced by the whole default: lists are copied."""
    monkeypatch.setattr(module, "MAX_INLINED_BYTES", 10_000)
    steps = [step(f"s{number}", value="$inputs.zone") for number in range(20)]
    small = workflow(*steps, inputs=[parameter("zone", default_value=[1] * 100)])
    assert read_specification(workflow(inner(small)))
    large = workflow(*steps, inputs=[parameter("zone", default_value=[1] * 1000)])
    assert refused(workflow(inner(large))) is Reason.MALFORMED_WORKFLOW
    assert read_specification(large)  # the server copies none for the outermost one


def test_what_inputs_are():
    declared = [
        IMAGE,
        {"type": "InferenceImage", "name": "old", "kind": ["string"]},
        {"type": "WorkflowBatchInput", "name": "images", "kind": [{"name": "image"}]},
        {"type": "WorkflowBatchInput", "name": "words", "kind": ["string"]},
        {"type": "WorkflowVideoMetadata", "name": "video"},
        {"type": "WorkflowVideoMetadata", "name": "shown", "kind": ["image"]},
        parameter("model", default_value="acme/1"),
    ]
    found = read_specification(workflow(inputs=declared)).inputs
    # Its kind is what an input is read by, whatever its type; parameters are not read at all.
    assert [name for name, one in found.items() if one.is_image] == ["image", "old", "images", "shown"]
    assert [name for name, one in found.items() if one.is_parameter] == ["model"]
    assert found["model"].default == "acme/1"


@pytest.mark.parametrize("kind", ["$steps.inner.out", {"name": "$steps.inner.out"}])
@pytest.mark.parametrize("type_", ["WorkflowBatchInput", "WorkflowVideoMetadata"])
def test_a_kind_that_an_inner_workflow_would_write_is_refused(kind, type_):
    """The server writes what an inner workflow gives in place of selectors: `image`, for example."""
    declared = {"type": type_, "name": "x", "kind": [kind]}
    assert refused(workflow(inputs=[declared])) is Reason.MALFORMED_WORKFLOW


def test_a_type_that_an_inner_workflow_would_write_is_refused():
    written = {"type": "$steps.inner.out", "name": "one", "workflow_definition": workflow()}
    assert refused(workflow(written)) is Reason.MALFORMED_WORKFLOW


def test_a_text_has_one_selector_where_there_are_inner_workflows():
    """The server writes a binding in place of each of them, wherever it stands."""
    texts = step(note="$inputs.image and $steps.one")
    assert read_specification(workflow(texts))
    for document in (workflow(texts, inner(workflow())), workflow(inner(workflow(texts)))):
        assert refused(document) is Reason.MALFORMED_WORKFLOW
    assert read_specification(workflow(step(note="see $inputs.image"), inner(workflow())))


def test_what_bindings_and_outputs_of_inner_workflows_come_to_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_INLINED_BYTES", 10_000)
    used = [step(f"s{number}", note="see $inputs.text") for number in range(20)]
    child = workflow(*used, inputs=[parameter("text")])
    given = workflow(outputs=[{"type": "JsonField", "name": "o", "selector": "a" * 1000}])
    read = [step(f"r{number}", note="$steps.inner.o") for number in range(20)]
    assert read_specification(workflow(inner(child, parameter_bindings={"text": "a" * 100})))
    for document in (
        workflow(inner(child, parameter_bindings={"text": "a" * 1000})),
        workflow(inner(given), *read),
    ):
        assert refused(document) is Reason.MALFORMED_WORKFLOW


@pytest.mark.parametrize("value", ["a $inputs.b", "$input$inputs.b", "$inputs.b $", {"a": "$inputs.b"}])
def test_no_value_of_an_inner_workflow_makes_one_selector_into_two(value):
    bound = inner(workflow(inputs=[parameter("a")]), parameter_bindings={"a": value})
    output = {"type": "JsonField", "name": "o", "selector": value}
    default = workflow(
        inputs=[parameter("a", default_value=value)], outputs=[output | {"selector": "$inputs.a"}]
    )
    for document in (bound, inner(workflow(outputs=[output])), inner(default)):
        assert refused(workflow(document)) is Reason.MALFORMED_WORKFLOW
    listed = workflow(inputs=[parameter("a", default_value=["$inputs.b"])])
    assert refused(workflow(inner(listed))) is Reason.MALFORMED_WORKFLOW
    assert read_specification(listed)


def test_a_default_value_of_an_inner_workflow_may_be_any_text():
    child = workflow(inputs=[parameter("a", default_value="^a$")])
    assert read_specification(workflow(inner(child, parameter_bindings={"a": "$inputs.image"})))


def test_a_name_of_a_step_is_bounded():
    assert read_specification(workflow(step("s" * MAX_SELECTOR_CHARACTERS)))
    assert refused(workflow(step("s" * (MAX_SELECTOR_CHARACTERS + 1)))) is Reason.MALFORMED_WORKFLOW
