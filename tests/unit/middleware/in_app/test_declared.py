"""What owners of apps declare, and what the guard reads in a request by it."""

from __future__ import annotations

import json

import pytest

from gateway.middleware import (
    blob_route,
    caller_route,
    file_route,
    model_in_json,
    model_route,
    unguarded_route,
)
from gateway.model.access import Action, ResourceKind
from gateway.model.errors import Misconfigured, Reason, Refusal
from tests import samples

FILES = file_route("/f/{model:path}/-/{package}/{file:path}")


def locate(route, raw_path=b"/x", body=b"", **more):
    return route.guarded.locate(samples.wire_request(raw_path=raw_path, body=body, **more))


def test_a_file_is_named_by_the_path():
    found = locate(FILES, b"/f/acme/cars/1/-/pkgA/labels/names.txt")
    assert (found.kind, found.model, found.package, found.file) == (
        ResourceKind.FILE,
        "acme/cars/1",
        "pkgA",
        "labels/names.txt",
    )
    assert FILES.guarded.action is Action.READ


@pytest.mark.parametrize(
    "raw", [b"/f/a b/-/pkgA/x", b"/f/acme/-/pkg!/x", b"/f/acme/-/p/" + b"a/" * 20 + b"x", b"/elsewhere"]
)
def test_a_bad_name_is_a_malformed_path(raw):
    with pytest.raises(Refusal) as refused:
        locate(FILES, raw)
    assert refused.value.reason is Reason.MALFORMED_PATH


def test_a_blob_is_named_by_its_digest_and_by_nothing_else():
    route = blob_route("/b/{md5}")
    assert locate(route, b"/b/" + b"a" * 32).md5 == "a" * 32
    for raw in (b"/b/" + b"A" * 32, b"/b/abc"):
        with pytest.raises(Refusal):
            locate(route, raw)


def test_a_model_of_the_path_is_to_be_inferred():
    route = model_route("/m/{model:path}", max_body_bytes=5)
    assert locate(route, b"/m/acme/cars/1").model == "acme/cars/1"
    assert (route.guarded.action, route.guarded.body_bytes, route.guarded.reads_body) == (
        Action.INFER,
        5,
        False,
    )


def test_a_function_sees_head_parameters_and_body():
    seen = []

    def find(request):
        seen.append(request)
        return "acme/cars/1"

    route = model_route("/m/{version}", model=find, max_body_bytes=9)
    found = locate(route, b"/m/7", body=b"body", headers=((b"a", b"b"),), query=b"q")
    assert (found.kind, found.model, route.guarded.reads_body) == (ResourceKind.MODEL, "acme/cars/1", True)
    [head] = seen
    assert (head.method, head.parameters, head.body, head.query) == ("GET", {"version": "7"}, b"body", b"q")
    assert "body=b" not in repr(head)


@pytest.mark.parametrize("fault", [KeyError("x"), ValueError(), RecursionError(), ZeroDivisionError()])
def test_whatever_a_function_raises_names_no_model_and_is_no_defect(fault):
    def find(_request):
        raise fault

    with pytest.raises(Refusal) as refused:
        locate(model_route("/x", model=find))
    assert refused.value.reason is Reason.MALFORMED_BODY


@pytest.mark.parametrize("answer", [None, 1, b"acme/cars", "", "acme//cars", "../x", "a" * 600])
def test_what_a_function_returns_has_to_be_a_models_id(answer):
    with pytest.raises(Refusal):
        locate(model_route("/x", model=lambda _request: answer))


def test_json_is_read_strictly():
    route = model_route("/x", model=model_in_json("m"), max_body_bytes=99)
    assert locate(route, body=json.dumps({"m": "acme/cars/1"}).encode()).model == "acme/cars/1"
    for body in (b'{"m":"a","m":"b"}', b'{"m":"a","\\u006d":"b"}', b'{"m":1}', b'{"n":"a"}', b'"m"', b""):
        with pytest.raises(Refusal):
            locate(route, body=body)


def test_a_caller_route_is_about_the_caller_and_an_unguarded_one_about_nothing():
    assert locate(caller_route("/me")).kind is ResourceKind.SELF
    assert unguarded_route("/open").guarded is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: file_route("/f/{model}"),
        lambda: model_route("/m"),
        lambda: blob_route("/b/{digest}"),
        lambda: model_route("/m/{model}", methods="POST"),
        lambda: model_route("/m/{model}", methods=[]),
        lambda: model_route("/m/{model}", max_body_bytes=-1),
    ],
)
def test_a_declaration_that_makes_no_sense_stops_the_start(make):
    with pytest.raises(Misconfigured):
        make()
