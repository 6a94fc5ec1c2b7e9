"""Makes the problem for a request that was admitted but cannot be served as it was asked.

A precondition failed, or no range lies within the file: the client learns this only because it may read the
file (I3). The answer has the form of every refusal and names the record of the allow, whose outcome has the
status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.delivery.file_answer import RefusedFile
from gateway.problems import problem_of

if TYPE_CHECKING:
    from gateway.model.answers import Answer
    from gateway.model.verdicts import Receipt


def answer_or_problem(made: Answer | RefusedFile, receipt: Receipt) -> Answer:
    """The answer that was made, or the problem with the reason why there is none."""
    if not isinstance(made, RefusedFile):
        return made
    problem = problem_of(made.reason, receipt.admission.request.route)
    return problem.answer(receipt.record_id, *made.headers)
