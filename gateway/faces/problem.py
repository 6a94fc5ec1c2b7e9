"""Sends the problem response to a request that was admitted but cannot be served as it was asked.

A precondition failed, or no range lies within the file: the client learns this only because it may read the
file (I3). The response has the form of every refusal and names the record of the allow, whose outcome has
the status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.middleware.trace import traceparent
from gateway.problems import problem_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Send

    from gateway.model.errors import Reason
    from gateway.model.verdicts import Receipt


async def send_problem(
    receipt: Receipt, reason: Reason, headers: Iterable[tuple[bytes, bytes]], send: Send
) -> None:
    """Send the problem for this reason, with headers that only this answer has."""
    request = receipt.admission.request
    problem = problem_of(reason, request.route)
    common, body = problem.answer(receipt.record_id, traceparent(request.trace_id))
    start = {"type": "http.response.start", "status": problem.status, "headers": [*common, *headers]}
    await send(start)
    await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})
