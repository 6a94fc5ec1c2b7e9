"""Every reason has a status, an explanation and a line in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.model.errors import Reason
from gateway.problems import PROBLEMS

ROOT = Path(__file__).parents[2]
REFUSALS = [reason for reason in Reason if reason is not Reason.PERMITTED]


@pytest.mark.parametrize("reason", REFUSALS)
def test_every_reason_to_refuse_has_a_problem(reason):
    assert reason in PROBLEMS


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_explained_in_one_sentence(reason):
    assert reason.explanation.endswith(".")
    assert reason.value == reason.name.lower().replace("_", "-")


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_in_the_reference(reason):
    assert f"`{reason.value}`" in (ROOT / "docs/reference/reasons.md").read_text()


def test_whoever_has_no_valid_key_gets_one_body_whatever_the_cause():
    assert len({id(problem) for problem in PROBLEMS.values() if problem.status == 401}) == 1


def test_forbidden_and_absent_are_one_body():
    assert len({id(problem) for problem in PROBLEMS.values() if problem.status == 404}) == 1


def test_a_denial_is_never_a_500():
    assert [reason for reason, problem in PROBLEMS.items() if problem.status == 500] == [Reason.INTERNAL]


def test_bodies_differ_only_in_the_record_id():
    for problem in PROBLEMS.values():
        one, other = problem.body("a" * 36), problem.body("b" * 36)
        assert len(one) == len(other)
        assert one.replace(b"a" * 36, b"") == other.replace(b"b" * 36, b"")
