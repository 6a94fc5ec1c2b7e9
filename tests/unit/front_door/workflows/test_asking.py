"""What a request asks of the workflow routes."""

from __future__ import annotations

import json

import pytest

from gateway.front_door.matching import match
from gateway.front_door.table import load_table
from gateway.front_door.values import InferenceRequest
from gateway.front_door.workflows.asking import (
    Purpose,
    find_document,
    find_named,
    find_reference,
    may_remember,
    purpose_of,
    write_question,
)
from gateway.front_door.workflows.saved import Reference
from gateway.front_door.workflows.specification import read_specification
from gateway.model.access import Credential
from gateway.model.errors import Reason, Refusal

TABLE = load_table("1.8.3")
WORKFLOW = {"steps": []}


def inquiry(path, document):
    return InferenceRequest(
        matched=match(TABLE, "POST", path.encode()),
        credential=Credential("k"),
        models=(),
        reported=frozenset(),
        images=(),
        query=(),
        document=document,
    )


@pytest.mark.parametrize(
    ("path", "purpose"),
    [
        ("/workflows/run", Purpose.RUN),
        ("/infer/workflows", Purpose.RUN),
        ("/acme/workflows/run", Purpose.RUN),
        ("/acme/workflows/validate", Purpose.RUN),
        ("/infer/workflows/acme/w", Purpose.RUN),
        ("/workflows/validate", Purpose.VALIDATE),
        ("/workflows/describe_interface", Purpose.DESCRIBE_INTERFACE),
        ("/acme/workflows/w/describe_interface", Purpose.DESCRIBE_INTERFACE),
        ("/workflows/describe_workload", Purpose.DESCRIBE_WORKLOAD),
        ("/acme/workflows/w/describe_workload", Purpose.DESCRIBE_WORKLOAD),
    ],
)
def test_what_a_route_does(path, purpose):
    assert purpose_of(match(TABLE, "POST", path.encode())) is purpose


def test_where_the_specification_stands():
    assert find_document(inquiry("/workflows/run", {"specification": WORKFLOW})) == WORKFLOW
    assert find_document(inquiry("/workflows/validate", WORKFLOW)) == WORKFLOW
    assert find_document(inquiry("/acme/workflows/w", {"inputs": {}})) is None


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/workflows/run", {}),
        ("/workflows/run", None),
        ("/workflows/run", {"specification": WORKFLOW, "workflow_version_id": "v1"}),
        ("/acme/workflows/w", {"specification": WORKFLOW}),
        ("/acme/workflows/w", {"specification": None}),
    ],
)
def test_a_request_names_one_workflow(path, document):
    with pytest.raises(Refusal) as caught:
        find_document(inquiry(path, document))
    assert caught.value.reason is Reason.MALFORMED_BODY


def test_a_path_names_a_saved_workflow():
    found = find_reference(inquiry("/acme/workflows/w-1", {"workflow_version_id": "v1"}))
    assert found == Reference(workspace="acme", workflow="w-1", version="v1")


@pytest.mark.parametrize("version", [7, "", "a b", ["v1"], "../x", True])
def test_a_version_is_a_name(version):
    with pytest.raises(Refusal) as caught:
        find_reference(inquiry("/acme/workflows/w", {"workflow_version_id": version}))
    assert caught.value.reason is Reason.SAVED_WORKFLOW


def test_whether_what_was_fetched_may_be_used():
    assert may_remember(inquiry("/acme/workflows/w", {}))
    assert not may_remember(inquiry("/acme/workflows/w", {"use_cache": False}))
    with pytest.raises(Refusal):
        may_remember(inquiry("/acme/workflows/w", {"use_cache": 0}))


def test_only_a_run_has_a_key():
    text = read_specification(WORKFLOW)
    for purpose in (Purpose.DESCRIBE_INTERFACE, Purpose.DESCRIBE_WORKLOAD):
        question = write_question(purpose, text)
        assert json.loads(question.body) == {"api_key": "local", "specification": WORKFLOW}
        assert dict(question.headers) == {b"content-type": b"application/json"}
    question = write_question(Purpose.VALIDATE, text)
    assert (question.target, json.loads(question.body)) == (b"/workflows/validate?api_key=local", WORKFLOW)


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        ([{"model_id": "$inputs.m"}, {"model_id": "acme/1"}], ("acme/1",)),
        ([7, {"model_id": ["acme/1"]}], ()),
        (None, ()),
        ("acme/1", ()),
    ],
)
def test_a_model_by_which_a_key_may_become_known(steps, named):
    assert find_named({"steps": steps}) == named
    assert find_named(steps) == ()
