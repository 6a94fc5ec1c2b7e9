"""Problems: constant bodies, one table, nothing of the request or of the cause."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from gateway.model.errors import Reason
from gateway.problems import PROBLEMS, UNRECORDED

RECORD = "018f3c1e-7a5b-7c21-9d0e-112233445566"


@pytest.mark.parametrize("reason", PROBLEMS)
def test_a_body_is_a_problem_document_with_the_status_and_the_record(reason):
    problem = PROBLEMS[reason]
    document = json.loads(problem.body(RECORD))
    assert document == {
        "type": f"urn:cachegate:problem:{problem.kind}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "record": RECORD,
    }


def test_an_answer_without_a_record_is_as_long_as_one_with():
    assert str(UUID(UNRECORDED)) == UNRECORDED
    for problem in PROBLEMS.values():
        assert len(problem.body(UNRECORDED)) == len(problem.body(RECORD))


@pytest.mark.parametrize("status", [401, 404, 503])
def test_where_causes_are_secret_one_status_has_one_problem(status):
    assert len({problem for problem in PROBLEMS.values() if problem.status == status}) == 1


def test_a_401_says_how_to_authenticate_and_a_503_when_to_come_back():
    assert dict(PROBLEMS[Reason.NO_CREDENTIAL].headers)[b"www-authenticate"].startswith(b"Bearer ")
    assert dict(PROBLEMS[Reason.NO_FACTS].headers)[b"retry-after"].isdigit()
