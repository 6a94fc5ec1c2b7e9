"""Makes the answer to a refused request; the middleware and what answers at once send the same one.

An admitted request may be refused as well: a precondition failed, or no range lies within the file. The
client learns this only because it may read the file (I3). The answer names the record of the allow, whose
outcome has the status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.delivery.file_answer import RefusedFile
from gateway.model.errors import Reason
from gateway.model.routes import ForwardedRoute, GuardedRoute
from gateway.problems import problem_of, problem_with_detail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.middleware.routes import Declared
    from gateway.model.access import WireRequest
    from gateway.model.answers import Answer
    from gateway.model.verdicts import Declined, Receipt


def answer_or_problem(made: Answer | RefusedFile, receipt: Receipt) -> Answer:
    """The answer that was made, or the problem with the reason why there is none."""
    if not isinstance(made, RefusedFile):
        return made
    problem = problem_of(made.reason, receipt.admission.request.route)
    return problem.answer(receipt.record_id, *made.headers)


def answer_refused(declined: Declined, request: WireRequest, route: Declared | None) -> Answer:
    """The answer: the problem of the reason, in the form that the route gives to its refusals."""
    guarded = route if isinstance(route, GuardedRoute) else None
    if guarded is not None and guarded.decline is not None and request.method in guarded.methods:
        return guarded.decline(declined.reason, declined.record_id, request)
    meant = route.template if isinstance(route, ForwardedRoute) else declined.meant
    more: tuple[tuple[bytes, bytes], ...] = ()
    if declined.reason is Reason.METHOD_NOT_ALLOWED and route is not None:
        more = ((b"allow", ", ".join(_methods_of(route, request)).encode()),)
    if declined.fields:
        problem = problem_of(declined.reason, meant or request.route)
        answer = problem.answer_about(declined.fields, declined.record_id, *more)
    elif declined.client_detail is None:
        answer = problem_of(declined.reason, meant or request.route).answer(declined.record_id, *more)
    else:
        problem = problem_with_detail(declined.reason, meant or request.route)
        answer = problem.answer_with_detail(declined.client_detail, declined.record_id, *more)
    return answer if guarded is None or guarded.answer_refusal is None else guarded.answer_refusal(answer)


def _methods_of(route: Declared, request: WireRequest) -> Iterable[str]:
    """The methods that a path has. The front door's one route stands for all of a server's."""
    if isinstance(route, ForwardedRoute):
        return route.allowed(request.raw_path)
    return (route.wrapped_methods if isinstance(route, GuardedRoute) else ()) or route.methods
