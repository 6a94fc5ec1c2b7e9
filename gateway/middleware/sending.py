"""Sends answers through ASGI. No other module writes the messages of a response.

To each answer it adds what binds it to its record: `cachegate-record` and `traceparent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.delivery.file_body import send_parts
from gateway.delivery.steps import READ_BYTES
from gateway.delivery.stream_body import send_stream
from gateway.delivery.unchanged import CutError, unsent
from gateway.middleware.trace import traceparent
from gateway.model.answers import FileParts
from gateway.model.extensions import BODY_FOLLOWS
from gateway.model.verdicts import Ending
from gateway.problems import problem_of

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from gateway.middleware.meter import Meter
    from gateway.model.answers import Answer
    from gateway.model.verdicts import Receipt

    Pair = tuple[bytes, bytes]


def bound_to(record_id: str, trace_id: str | None) -> tuple[Pair, Pair]:
    """The headers that bind an answer to its record and to the caller's trace."""
    return (b"cachegate-record", record_id.encode()), (b"traceparent", traceparent(trace_id))


async def send_answer(
    answer: Answer, receipt: Receipt, meter: Meter, scope: Scope, receive: Receive, send: Send
) -> None:
    """Send the answer of a receipt; the meter is told why it was cut, if it was.

    What is answered is the request of the scope, which may be a GET that asks about a HEAD (the check face).

    Raises `Unavailable` when it could not be begun.
    """
    request, body = receipt.admission.request, answer.body
    bound = bound_to(receipt.record_id, request.trace_id)
    if isinstance(body, bytes):
        meter.cut = answer.ending
        await send_whole(answer, bound, scope["method"], send)
    elif isinstance(body, FileParts):
        try:
            sent = await send_parts(_start(answer, bound), body, scope, receive, send)
        except CutError as cut:
            if cut.ending is not Ending.QUARANTINED:
                raise unsent(body.file, cut) from cut
            meter.cut = cut.ending
            problem = problem_of(cut.reason, request.route).answer(receipt.record_id)
            await send_whole(problem, bound, scope["method"], send)
        else:
            meter.cut, meter.sha256 = sent.ending, sent.sha256
    else:
        try:
            meter.cut = await send_stream(_start(answer, bound), body, receive, send)
        finally:
            await body.close()


async def send_whole(answer: Answer, more: tuple[Pair, ...], method: str, send: Send) -> None:
    """Send an answer whose body is in memory; HEAD gets the same headers and no body."""
    if not isinstance(answer.body, bytes):
        raise TypeError("this body is not in memory")
    await send({**_start(answer, more), BODY_FOLLOWS: True})
    left = b"" if method == "HEAD" else answer.body
    while len(left) > READ_BYTES:  # no message is longer: this bounds what is queued for a client
        await send(_part(left[:READ_BYTES], more_body=True))
        left = left[READ_BYTES:]
    await send(_part(left))


def _start(answer: Answer, more: tuple[Pair, ...]) -> Message:
    return {
        "type": "http.response.start",
        "status": answer.status,
        "headers": [*answer.headers.pairs, *more],
    }


def _part(body: bytes, *, more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more_body}
