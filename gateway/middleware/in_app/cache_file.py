"""The response with the file that was decided about: `return CacheFile(admitted)`.

It sends the file that the guard has opened, never one that is looked up by a name again (I4): with ETag,
ranges, conditions and HEAD as on our own routes, checked between its steps, and verified against its pin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from gateway.delivery.file_answer import answer_file
from gateway.middleware.in_app.run import RUN, Run
from gateway.middleware.refusing import answer_or_problem
from gateway.middleware.sending import send_answer
from gateway.model.errors import Misconfigured, WithdrawnError
from gateway.model.verdicts import OpenFile

if TYPE_CHECKING:
    from starlette.background import BackgroundTask
    from starlette.types import Receive, Scope, Send

    from gateway.middleware.in_app.admitted import Admitted

MAX_DECISIONS = 4  # the guard gives up before


class CacheFile(Response):
    """Sends the file of a decision, in the form that the request asks for. Headers and status are ours."""

    def __init__(self, admitted: Admitted, background: BackgroundTask | None = None) -> None:
        if not isinstance(admitted.receipt.admission.found, OpenFile):
            raise Misconfigured("CacheFile", "the route is not declared by file_route or blob_route")
        super().__init__(background=background)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. If the guard decides anew before the first byte, the file of the new decision is sent."""
        run: Run = scope[RUN]
        run.is_held = True
        try:
            for _ in range(MAX_DECISIONS):
                receipt = run.receipt
                answer = answer_or_problem(answer_file(receipt, run.means), receipt)
                try:
                    await send_answer(answer, receipt, run.meter, scope, receive, send)
                except WithdrawnError:
                    continue
                run.finish()
                break
        finally:
            run.is_held = False
        if self.background is not None:
            await self.background()
