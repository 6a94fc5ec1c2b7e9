"""The errors for invalid answers and files of others."""

from __future__ import annotations

from gateway.engine.faults import UPSTREAM, undecided, unservable
from gateway.model.errors import Reason


def test_an_answer_that_is_none_is_neither_an_allow_nor_a_denial():
    fault = undecided("the answer lacks the field type")
    assert fault.dependency == UPSTREAM
    assert fault.why == "the answer lacks the field type"


def test_a_finding_is_for_the_operator_and_not_in_the_message():
    fault = unservable("the entry is too large")
    assert fault.reason is Reason.UNSERVABLE
    assert str(fault) == "unservable"
    assert fault.__notes__ == ["the entry is too large"]
