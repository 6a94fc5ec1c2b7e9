"""The route of a request is the server's own choice, or it is refused."""

from __future__ import annotations

import pytest

from gateway.front_door.matching import match, methods_of
from gateway.front_door.table import load_table
from gateway.model.errors import Reason, Refusal

TABLE = load_table("1.8.3")
LEGACY = "/{dataset_id}/{version_id:str}"


@pytest.mark.parametrize(
    ("method", "path", "route", "values"),
    [
        ("POST", "/infer/classification", "/infer/classification", {}),
        ("POST", "/infer%2Fclassification", "/infer/classification", {}),
        ("POST", "/infer/classif%69cation", "/infer/classification", {}),
        ("GET", "/infer/classification", LEGACY, {"dataset_id": "infer", "version_id": "classification"}),
        ("POST", "/Infer/Classification", LEGACY, {"dataset_id": "Infer", "version_id": "Classification"}),
        ("POST", "/infer/lmm;x", LEGACY, {"dataset_id": "infer", "version_id": "lmm;x"}),
        ("GET", "/clip/embed_image", LEGACY, {"dataset_id": "clip", "version_id": "embed_image"}),
        ("POST", "/clip/embed_image", "/clip/embed_image", {}),
        ("POST", "/model/registry", LEGACY, {"dataset_id": "model", "version_id": "registry"}),
        ("GET", "/model/registry", "/model/registry", {}),
        ("POST", "/infer/lmm/workflows/x", "/infer/lmm/{model_id:path}", {"model_id": "workflows/x"}),
        ("POST", "/acme/1%3Fapi_key=z", LEGACY, {"dataset_id": "acme", "version_id": "1?api_key=z"}),
        ("POST", "/acme/%2531", LEGACY, {"dataset_id": "acme", "version_id": "%31"}),
        (
            "GET",
            "/start/acme/1",
            "/start/{dataset_id}/{version_id}",
            {"dataset_id": "acme", "version_id": "1"},
        ),
        ("POST", "/acme/workflows", LEGACY, {"dataset_id": "acme", "version_id": "workflows"}),
    ],
)
def test_the_route_is_that_of_the_server(method, path, route, values):
    matched = match(TABLE, method, path.encode())
    assert (matched.route.path, matched.values) == (route, values)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", path) for path in ("/model/clear", "/model/remove", "/gaze/gaze_detection")),
        *(
            ("GET", path)
            for path in ("/clear_cache", "/logs", "/device/stats", "/metrics", "/notebook/start")
        ),
        *(
            ("GET", path)
            for path in ("/docs", "/redoc", "/openapi.json", "/dashboard.html", "/build", "/build/x")
        ),
        *(
            ("POST", path)
            for path in ("/build/api/x", "/workflows/runs", "/workflows/other", "/workflows/run/x")
        ),
        *(
            ("POST", path)
            for path in (
                "/infer/workflows/a/b/c",
                "/acme/workflows/w/x",
                "/acme/workflows/w/describe_interface/x",
            )
        ),
        *(("POST", path) for path in ("/inference_pipelines/initialise", "/initialise_webrtc_worker")),
        *(
            ("GET", path)
            for path in ("/static/x", "/_next/static/x", "/inference_pipelines/list", "/workflows/x")
        ),
        ("GET", "/secure-gateway/health"),
        ("POST", "/webrtc/session/heartbeat"),
        ("POST", "/model%2Fclear"),
    ],
)
def test_no_rule_opens_what_is_closed(method, path):
    with pytest.raises(Refusal) as refusal:
        match(TABLE, method, path.encode())
    assert refusal.value.reason == Reason.CLOSED_ROUTE


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("GET", "/", Reason.NO_ROUTE),
        ("GET", "/nothing", Reason.NO_ROUTE),
        ("POST", "/a/b/c", Reason.NO_ROUTE),
        ("HEAD", "/info", Reason.METHOD_NOT_ALLOWED),
        ("OPTIONS", "/infer/classification", Reason.METHOD_NOT_ALLOWED),
        ("post", "/infer/classification", Reason.METHOD_NOT_ALLOWED),
        ("PUT", "/acme/1", Reason.METHOD_NOT_ALLOWED),
        ("POST", "/info", Reason.METHOD_NOT_ALLOWED),
        ("POST", "", Reason.MALFORMED_PATH),
        ("POST", "acme/1", Reason.MALFORMED_PATH),
        ("POST", "//acme/1", Reason.MALFORMED_PATH),
        ("POST", "/acme/1/", Reason.MALFORMED_PATH),
        ("POST", "/acme/1%2F", Reason.MALFORMED_PATH),
        ("POST", "/acme/../1", Reason.MALFORMED_PATH),
        ("POST", "/acme/%2e%2E", Reason.MALFORMED_PATH),
        ("POST", "/acme/./1", Reason.MALFORMED_PATH),
        ("POST", "/acme/%zz", Reason.MALFORMED_PATH),
        ("POST", "/acme/%f", Reason.MALFORMED_PATH),
        ("POST", "/acme/%ff", Reason.MALFORMED_PATH),
        ("POST", "/acme/%ed%a0%80", Reason.MALFORMED_PATH),
        ("POST", "/infer/classification%0a", Reason.MALFORMED_PATH),
        ("POST", "/infer/lmm/a%00b", Reason.MALFORMED_PATH),
        ("POST", "/acme/1\\x", Reason.MALFORMED_PATH),
        ("POST", "/acme/1?x", Reason.MALFORMED_PATH),
        ("POST", "/acme/1#x", Reason.MALFORMED_PATH),
        ("POST", "/acme/caf\xe9", Reason.MALFORMED_PATH),
        ("POST", "/acme/" + "a" * 9000, Reason.MALFORMED_PATH),
    ],
)
def test_other_requests_have_no_route(method, path, reason):
    with pytest.raises(Refusal) as refusal:
        match(TABLE, method, path.encode("latin-1"))
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/infer/lmm/acme/1", ("POST",)),
        ("/infer/classification", ("GET", "POST")),  # by GET it is a request for a model of that name
        ("/model/registry", ("GET", "POST")),
        ("/info", ("GET",)),
        ("/start/acme/1", ("GET",)),
        ("/acme/1", ("GET", "POST")),
        ("/logs", ()),
        ("/build/x/y", ()),
        ("/nothing/here/at/all", ()),
        ("/acme/%ff", ()),
    ],
)
def test_the_methods_of_a_path_are_those_of_its_open_rows(path, methods):
    assert methods_of(TABLE, path.encode()) == methods


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/infer/lmm/acme/1", Reason.METHOD_NOT_ALLOWED),
        ("/info", Reason.METHOD_NOT_ALLOWED),
        ("/logs", Reason.CLOSED_ROUTE),
        ("/nothing/here/at/all", Reason.NO_ROUTE),
    ],
)
def test_a_path_without_the_method_is_refused_for_what_it_has(path, reason):
    with pytest.raises(Refusal) as refusal:
        match(TABLE, "PUT", path.encode())
    assert refusal.value.reason is reason
