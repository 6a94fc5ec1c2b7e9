"""Makes the answer to a refused request; the middleware and what answers at once send the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.errors import Reason
from gateway.model.routes import ForwardedRoute, GuardedRoute
from gateway.problems import problem_of

if TYPE_CHECKING:
    from gateway.middleware.routes import Declared
    from gateway.model.access import WireRequest
    from gateway.model.answers import Answer
    from gateway.model.verdicts import Declined


def answer_refused(declined: Declined, request: WireRequest, route: Declared | None) -> Answer:
    """The answer: the problem of the reason, in the form that the route gives to its refusals."""
    meant = route.template if isinstance(route, ForwardedRoute) else declined.meant
    more: tuple[tuple[bytes, bytes], ...] = ()
    if declined.reason is Reason.METHOD_NOT_ALLOWED and route is not None:
        wrapped = route.wrapped_methods if isinstance(route, GuardedRoute) else ()
        methods = wrapped or route.methods
        more = ((b"allow", ", ".join(methods).encode()),)
    answer = problem_of(declined.reason, meant or request.route).answer(declined.record_id, *more)
    if isinstance(route, GuardedRoute) and route.answer_refusal is not None:
        return route.answer_refusal(answer)
    return answer
