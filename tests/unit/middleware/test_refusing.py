from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.middleware.refusing import answer_refused
from gateway.model.access import Action, WireRequest
from gateway.model.answers import Answer
from gateway.model.errors import Reason
from gateway.model.header_block import Headers
from gateway.model.routes import GuardedRoute, HookRoute
from gateway.model.verdicts import Declined
from gateway.problems import problem_of

RECORD = "r" * 36
REQUEST = WireRequest(
    method="GET",
    raw_path=b"/f",
    query=b"",
    headers=(),
    client="192.0.2.1",
    route="/f",
    trace_id=None,
    received_at=0.0,
)


def nothing(*_):
    raise AssertionError("a refusal is made from the declaration alone")


ROUTE = GuardedRoute(
    template="/f", methods=("GET", "HEAD"), action=Action.READ, matches=nothing, locate=nothing
)
HOOK = HookRoute(template="/h", methods=("POST",), max_body_bytes=9, matches=nothing, take=nothing)


def refused(reason, route, meant=None):
    return answer_refused(Declined(reason=reason, record_id=RECORD, meant=meant), REQUEST, route)


def test_a_refusal_is_the_problem_of_its_reason():
    assert refused(Reason.ABSENT, ROUTE) == problem_of(Reason.ABSENT, "/f").answer(RECORD)
    assert refused(Reason.NO_ROUTE, None) == problem_of(Reason.NO_ROUTE, "-").answer(RECORD)


def test_the_text_is_that_of_the_wrapped_route():
    blob = "/v1/blobs/{md5}"
    assert refused(Reason.MALFORMED_PATH, ROUTE, blob) == problem_of(Reason.MALFORMED_PATH, blob).answer(
        RECORD
    )


@pytest.mark.parametrize(
    ("route", "allowed"),
    [
        (ROUTE, b"GET, HEAD"),
        (HOOK, b"POST"),
        (replace(ROUTE, methods=("GET", "POST"), wrapped_methods=("HEAD",)), b"HEAD"),
    ],
)
def test_a_method_that_is_not_taken_is_told_which_are(route, allowed):
    answer = refused(Reason.METHOD_NOT_ALLOWED, route)
    assert answer.status == 405
    assert dict(answer.headers.pairs)[b"allow"] == allowed


def test_a_route_gives_its_refusals_a_form_of_its_own():
    route = replace(
        ROUTE, answer_refusal=lambda answer: Answer(403, Headers.of((b"was", b"%d" % answer.status)))
    )
    assert refused(Reason.ABSENT, route) == Answer(403, Headers.of((b"was", b"404")))
