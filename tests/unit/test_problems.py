"""Problems: constant bodies, one status table, nothing of the request or of the cause."""

from __future__ import annotations

import json
import re
from uuid import UUID

import pytest

from gateway.faces.hooks import MAX_NAMED, _RawEnding
from gateway.model.errors import Reason
from gateway.problems import _OF_ROUTE, PROBLEMS, UNRECORDED, problem_of

RECORD = "018f3c1e-7a5b-7c21-9d0e-112233445566"


@pytest.mark.parametrize("reason", PROBLEMS)
def test_a_body_is_a_problem_document_with_the_status_and_the_record(reason):
    problem = PROBLEMS[reason]
    document = json.loads(problem.body(RECORD))
    assert document == {
        "type": f"urn:cachegate:problem:{problem.kind}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "record": RECORD,
    }


def test_an_answer_without_a_record_is_as_long_as_one_with():
    assert str(UUID(UNRECORDED)) == UNRECORDED
    for problem in PROBLEMS.values():
        assert len(problem.body(UNRECORDED)) == len(problem.body(RECORD))


OF_THE_SERVER_BEHIND = {Reason.INFERENCE_UNAVAILABLE, Reason.UNEXPECTED_MODEL}  # only after an allow
BY_LOAD = {Reason.BUSY}  # before anything of the request is known
TOLD = OF_THE_SERVER_BEHIND | BY_LOAD


@pytest.mark.parametrize("status", [401, 404, 503])
def test_where_causes_are_secret_one_status_has_one_problem(status):
    secret = {one for reason, one in PROBLEMS.items() if one.status == status and reason not in TOLD}
    assert len(secret) == 1


def test_a_401_says_how_to_authenticate_and_a_503_when_to_come_back():
    assert dict(PROBLEMS[Reason.NO_CREDENTIAL].headers)[b"www-authenticate"].startswith(b"Bearer ")
    assert dict(PROBLEMS[Reason.NO_FACTS].headers)[b"retry-after"].isdigit()


# The problem on a route

KEY_ROUTES = ("/v1/models", "/v1/models/{model}", "/v1/blobs/{md5}", "/v1/whoami", "/proxy", "-")
LINK_ROUTE, HOOK_ROUTE = "/d/{model}/-/{package}/{file}", "/hooks/v1/authority"
ROUTES = sorted({*KEY_ROUTES, LINK_ROUTE, HOOK_ROUTE, *_OF_ROUTE})
OTHER_SCHEME = Reason.UNSUPPORTED_SCHEME
UNAUTHORIZED = [reason for reason, problem in PROBLEMS.items() if problem.status == 401]
OF_A_CREDENTIAL = [one for one in UNAUTHORIZED if one not in {OTHER_SCHEME, Reason.BAD_HOOK_SIGNATURE}]
BY_SHAPE = {
    Reason.NO_ROUTE,
    Reason.NOT_PROXIED,
    Reason.CLOSED_ROUTE,
}  # of the request alone, the same for all callers
HIDDEN = [one for one, problem in PROBLEMS.items() if problem.status == 404 and one not in BY_SHAPE]
EVERYWHERE = pytest.mark.parametrize("route", ROUTES)


@EVERYWHERE
def test_every_answer_is_a_document_with_the_status_of_its_reason(route):
    for reason, problem in PROBLEMS.items():
        told = problem_of(reason, route)
        document = json.loads(told.body(RECORD))
        assert document["status"] == problem.status
        assert document["detail"] == told.detail
        assert told.detail.endswith(".")


@EVERYWHERE
def test_whoever_is_nobody_on_a_route_gets_one_answer_whatever_was_wrong(route):
    answers = {problem_of(reason, route) for reason in OF_A_CREDENTIAL}
    assert len(answers) == 1
    assert problem_of(OTHER_SCHEME, route) not in answers


@EVERYWHERE
def test_what_is_hidden_and_what_is_nowhere_are_one_answer_on_a_route(route):
    assert len({problem_of(reason, route) for reason in HIDDEN}) == 1


@EVERYWHERE
def test_what_is_undecided_is_one_answer_on_a_route(route):
    undecided = [one for one, problem in PROBLEMS.items() if problem.status == 503 and one not in TOLD]
    assert len({problem_of(one, route) for one in undecided}) == 1


@EVERYWHERE
def test_one_type_has_one_title(route):
    told = [problem_of(reason, route) for reason in PROBLEMS]
    assert len({(one.kind, one.title) for one in told}) == len({one.kind for one in told})


@pytest.mark.parametrize("route", KEY_ROUTES)
def test_another_scheme_is_told_which_one_is_read(route):
    other, invalid = problem_of(OTHER_SCHEME, route), problem_of(Reason.UNKNOWN_KEY, route)
    assert (other.kind, other.headers) == (invalid.kind, invalid.headers)
    assert other.detail != invalid.detail
    assert dict(other.headers)[b"www-authenticate"] == b'Bearer realm="cachegate"'


@pytest.mark.parametrize(
    ("route", "scheme"), [(LINK_ROUTE, b"Cachegate-Link"), (HOOK_ROUTE, b"Cachegate-Signature")]
)
def test_where_no_key_is_taken_none_is_asked_for(route, scheme):
    reasons = [Reason.BAD_HOOK_SIGNATURE] if route == HOOK_ROUTE else [*OF_A_CREDENTIAL, OTHER_SCHEME]
    for reason in reasons:
        told = problem_of(reason, route)
        assert dict(told.headers)[b"www-authenticate"].startswith(scheme + b" ")
        assert "API key" not in told.detail


def test_a_path_that_is_nobodys_speaks_of_no_key():
    assert problem_of(Reason.NO_ROUTE, "-") != problem_of(Reason.NOT_PERMITTED, "-")


def test_a_blob_is_not_explained_as_a_model():
    told = problem_of(Reason.MALFORMED_PATH, "/v1/blobs/{md5}")
    assert told != problem_of(Reason.MALFORMED_PATH, "/v1/models/{model}")
    assert told.kind == "malformed-path"


@EVERYWHERE
def test_an_answer_on_a_route_without_a_record_is_as_long_as_one_with(route):
    for reason in PROBLEMS:
        assert len(problem_of(reason, route).body(UNRECORDED)) == len(problem_of(reason, route).body(RECORD))


def test_whoever_follows_a_link_is_never_told_to_send_a_key():
    for reason in PROBLEMS:
        detail = problem_of(reason, LINK_ROUTE).detail
        assert "Bearer KEY" not in detail
        assert "X-API-Key" not in detail


FIELDS = {"limit", "after", "modelId", "startAfter", "url", "se", "sig"}
READ_FIELDS = {
    "/v1/models": {"limit", "after"},
    "/v1/models/{model}/-/{package}": {"limit", "after"},
    "/models/v1/external/weights": {"modelId", "startAfter"},
    "/models/v1/external/stat": {"modelId", "startAfter"},
    "/proxy": {"url", "se", "sig"},
}


@EVERYWHERE
def test_a_query_that_does_not_parse_is_explained_by_the_fields_that_the_route_reads(route):
    words = set(re.findall(r"\w+", problem_of(Reason.MALFORMED_QUERY, route).detail))
    assert words & FIELDS == READ_FIELDS.get(route, set())


def test_a_webhook_whose_body_does_not_parse_is_told_what_its_fields_are():
    detail = problem_of(Reason.MALFORMED_BODY, HOOK_ROUTE).detail
    assert all(name in detail for name in _RawEnding.__struct_fields__)
    assert f"{MAX_NAMED} names" in detail


@pytest.mark.parametrize("route", ["/models/v1/external/weights", "/models/v1/external/stat", "/proxy"])
def test_metadata_needs_the_scope_of_files_and_says_so(route):
    assert "the scope read" in problem_of(Reason.MISSING_SCOPE, route).detail
