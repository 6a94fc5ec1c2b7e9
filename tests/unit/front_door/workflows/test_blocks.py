"""Questions about the blocks of a server."""

from __future__ import annotations

import json

import pytest

from gateway.front_door.matching import match
from gateway.front_door.table import load_table
from gateway.front_door.values import InferenceRequest
from gateway.front_door.workflows.blocks import BlockAnswers, read_question
from gateway.model.access import Credential
from gateway.model.errors import Reason, Refusal

TABLE = load_table("1.8.3")
DESCRIBE = "/workflows/blocks/describe"


def read(method, path, document=None):
    inquiry = InferenceRequest(
        matched=match(TABLE, method, path.encode()),
        credential=Credential("k"),
        models=(),
        reported=frozenset(),
        images=(),
        query=(("air_gapped", "true"),),
        document=document,
    )
    return read_question(inquiry)


@pytest.mark.parametrize(
    "path", [DESCRIBE, "/workflows/execution_engine/versions", "/workflows/definition/schema"]
)
def test_what_depends_on_nobody_is_asked_without_anything_of_the_caller(path):
    question = read("GET", path)
    assert (question.outbound.target, question.outbound.headers) == (path.encode(), ())
    assert question.is_the_same_for_all
    assert not question.has_python


@pytest.mark.parametrize("definitions", [[{"code": 1}], [0]])
def test_definitions_are_python(definitions):
    question = read("POST", DESCRIBE, {"dynamic_blocks_definitions": definitions, "more": 1})
    assert question.has_python
    assert not question.is_the_same_for_all
    assert json.loads(question.outbound.body) == {
        "api_key": "local",
        "dynamic_blocks_definitions": definitions,
        "execution_engine_version": None,
    }


@pytest.mark.parametrize("definitions", [[], None])
def test_without_definitions_nothing_is_executed(definitions):
    question = read("POST", DESCRIBE, {"dynamic_blocks_definitions": definitions})
    assert not question.has_python
    assert json.loads(question.outbound.body)["dynamic_blocks_definitions"] == []


@pytest.mark.parametrize(
    "document", [None, {"dynamic_blocks_definitions": {"code": 1}}, {"execution_engine_version": 1}]
)
def test_what_the_server_does_not_read_is_refused(document):
    with pytest.raises(Refusal) as caught:
        read("POST", DESCRIBE, document)
    assert caught.value.reason is Reason.MALFORMED_BODY


def test_a_step_is_sent_as_it_was_read():
    step = {"type": "some/block@v1", "name": "one"}
    question = read("POST", "/workflows/blocks/dynamic_outputs", step)
    assert json.loads(question.outbound.body) == step


def test_what_is_remembered_is_charged():
    answers = BlockAnswers()
    answers.memory.put(("url", "process", DESCRIBE), b"x" * 1000)
    assert answers.memory.held_bytes > 1000
