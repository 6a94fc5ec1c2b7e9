from __future__ import annotations

import json

import pytest

from gateway.engine.answers import MAX_ANSWER_BYTES
from gateway.engine.stat_answers import parse_stat
from gateway.model.errors import Reason, Unavailable

HEAD = {"modelArchitecture": "resnet", "taskType": "classification"}


def body(head=HEAD, **more):
    return json.dumps({"modelMetadata": head, **more}).encode()


def test_an_answer_names_the_model_or_does_not():
    assert parse_stat(body()) is None
    assert parse_stat(body(HEAD | {"modelId": "acme/cars/1", "new": [1]}, other=1)) == "acme/cars/1"


@pytest.mark.parametrize("lacking", HEAD)
def test_what_the_engine_reads_has_to_be_there(lacking):
    is_undecided(body({name: text for name, text in HEAD.items() if name != lacking}))
    is_undecided(body(HEAD | {lacking: None}))


@pytest.mark.parametrize("error", ["no", None, {}])
def test_what_reports_an_error_is_no_answer(error):
    is_undecided(body(error=error))


@pytest.mark.parametrize("model", ["../x", 1, ""])
def test_a_name_that_is_none_is_no_answer(model):
    is_undecided(body(HEAD | {"modelId": model}))


def test_a_long_answer_is_none():
    is_undecided(body() + b" " * MAX_ANSWER_BYTES)


def is_undecided(raw):
    with pytest.raises(Unavailable) as caught:
        parse_stat(raw)
    assert caught.value.reason is Reason.UPSTREAM_UNDECIDED
