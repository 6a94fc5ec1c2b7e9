"""A Starlette route that can only be made together with its declaration to the guard (I4).

The guard's middleware has matched the raw path already and put the declaration into the scope. The router
below it compares that object and parses nothing again. So what is served is exactly what was decided.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Match, NoMatchFound

from gateway.delivery.file_body import disconnected
from gateway.middleware.guard import METER, RECEIPT, ROUTE
from gateway.middleware.sending import send_answer
from gateway.middleware.staying_client import while_client_stays
from gateway.model.answers import Answer
from gateway.model.errors import Misconfigured
from gateway.model.verdicts import Ordered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from starlette.datastructures import URLPath
    from starlette.types import Receive, Scope, Send

    from gateway.model.routes import ForwardedRoute, GuardedRoute
    from gateway.model.verdicts import Receipt


class FaceRoute(BaseRoute):
    """The route of one declaration, which says how it is answered."""

    def __init__(self, declaration: GuardedRoute | ForwardedRoute) -> None:
        if declaration.answer is None:
            raise Misconfigured(declaration.template, "this route declares no answer")
        self.declaration = declaration
        self._answer = declaration.answer

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match exactly when the guard admitted this request for this declaration."""
        return (Match.FULL if scope.get(ROUTE) is self.declaration else Match.NONE), {}

    def url_path_for(self, name: str, /, **_: object) -> URLPath:
        """Not supported: links are built from resources (`resource/paths.py`), never from routes."""
        raise NoMatchFound(name, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make the answer and send it."""
        receipt: Receipt = scope[RECEIPT]
        made = self._answer(receipt)
        answer = made if isinstance(made, Answer) else await self._await(made, receipt, receive)
        await send_answer(answer, receipt, scope[METER], scope, receive, send)

    async def _await(self, coming: Awaitable[Answer], receipt: Receipt, receive: Receive) -> Answer:
        found = receipt.admission.found
        if isinstance(found, Ordered) and found.ends_with_client:
            return await while_client_stays(coming, partial(disconnected, receive))
        return await coming


def declarations(routes: Sequence[BaseRoute]) -> tuple[GuardedRoute | ForwardedRoute, ...]:
    """The declarations of an app's routes. Raises `Misconfigured` for a route without one."""
    for route in routes:
        if not isinstance(route, FaceRoute):
            raise Misconfigured(repr(route), "this route declares no guard; build it as a FaceRoute")
    return tuple(route.declaration for route in routes if isinstance(route, FaceRoute))
