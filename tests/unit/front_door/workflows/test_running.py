"""The request that the server gets: what was described, the inputs, and nothing else."""

from __future__ import annotations

import json

import pytest

from gateway.front_door.workflows.inputs import read_inputs
from gateway.front_door.workflows.running import MAX_EXCLUDED, Run, read_order, write_run
from gateway.front_door.workflows.specification import read_specification
from gateway.model.errors import Reason, Refusal

SPECIFICATION = read_specification({"inputs": [{"type": "WorkflowImage", "name": "image"}], "steps": []})


def run(document):
    inputs, images = read_inputs({"image": "http://a.example/x"}, SPECIFICATION)
    return Run(specification=SPECIFICATION, inputs=inputs, images=images, order=read_order(document))


def reason(document):
    with pytest.raises(Refusal) as caught:
        read_order(document)
    return caught.value.reason


def test_the_text_is_sent_as_it_was_described():
    outbound = write_run(
        run({"disable_sinks": True, "excluded_fields": ["a"]}), key="k", images=["AA"], accept=b"x/y"
    )
    assert SPECIFICATION.text in outbound.body
    assert json.loads(outbound.body) == {
        "specification": json.loads(SPECIFICATION.text),
        "inputs": {"image": {"type": "base64", "value": "AA"}},
        "disable_sinks": True,
        "excluded_fields": ["a"],
    }
    assert (outbound.method, outbound.target) == ("POST", b"/workflows/run")
    assert dict(outbound.headers) == {
        b"authorization": b"Bearer k",
        b"content-type": b"application/json",
        b"accept": b"x/y",
    }


def test_a_run_is_printed_without_its_inputs():
    assert "example" not in repr(run({}))


@pytest.mark.parametrize(
    "document",
    [
        *({"is_preview": True}, {"is_preview": 0}, {"is_preview": []}, {"is_preview": "false"}),
        *({"inner_workflow_dispatch_depth": 1}, {"inner_workflow_dispatch_depth": False}),
        {"inner_workflow_dispatch_depth": {}},
    ],
)
def test_what_is_of_the_platforms_own_use_is_refused(document):
    assert reason(document) is Reason.FORBIDDEN_FIELD


@pytest.mark.parametrize(
    "document",
    [
        *({"disable_sinks": 1}, {"disable_sinks": None}, {"excluded_fields": "a"}, {"excluded_fields": [1]}),
        {"excluded_fields": ["a"] * (MAX_EXCLUDED + 1)},
    ],
)
def test_members_of_other_types_are_refused(document):
    assert reason(document) is Reason.MALFORMED_BODY


def test_the_defaults_pass():
    order = read_order({"is_preview": False, "inner_workflow_dispatch_depth": 0, "excluded_fields": None})
    assert (order.excluded_fields, order.disable_sinks) == (None, False)
