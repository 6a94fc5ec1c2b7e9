"""The packaged table of routes against the running server."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from gateways import SERVICE_KEY
from http_client import image

pytestmark = pytest.mark.server

TABLE = Path(__file__).parents[2] / "policies/servers/inference-1.8.3.toml"


@pytest.fixture(scope="module")
def rows():
    return tomllib.loads(TABLE.read_text())["routes"]


def _pairs(rows):
    return [(row["method"], row["path"]) for row in rows]


def _without_row(routes, rows):
    """The routes that the table does not know, or knows at another place in the order."""
    expected = [pair for pair in _pairs(rows) if pair in set(routes)]
    return [route for route in routes if route not in _pairs(rows)], expected


def test_every_route_of_the_running_server_has_a_row_in_the_same_order(server, rows):
    routes = server.notes.routes()
    assert len(routes) > 60, routes
    missing, in_order = _without_row(routes, rows)
    assert not missing, "routes of the server without a row: they are denied"
    assert in_order == routes


def test_every_row_is_a_route_of_the_server_unless_it_says_otherwise(server, rows):
    routes = set(server.notes.routes())
    always = [row for row in rows if row.get("exists", "always") == "always"]
    assert [pair for pair in _pairs(always) if pair not in routes] == []


def test_a_route_that_the_table_does_not_know_is_found_by_the_comparison(server, rows):
    routes = server.notes.routes()
    assert _without_row([*routes, ("POST", "/models/new/thing")], rows)[0] == [("POST", "/models/new/thing")]


# Routes that a server has only with a flag of its operator


def test_the_server_of_these_tests_has_all_that_tenants_may_use(server, rows):
    routes = set(server.notes.routes())
    is_open = [row for row in rows if row.get("answering", "pass") != "closed"]
    with_flag = {row["path"] for row in is_open if row.get("exists") == "flag"}
    assert with_flag == {"/owlv2/infer", "/sam3_3d/infer"}
    assert [row["path"] for row in is_open if (row["method"], row["path"]) not in routes] == []


@pytest.mark.parametrize(
    ("target", "document", "model", "published"),
    [
        ("/owlv2/infer", {"training_data": [{"boxes": [], "image": image()}]},
         "owlv2/owlv2-large-patch14-ensemble", ()),
        ("/owlv2/infer", {"training_data": [], "owlv2_version_id": "owlv2-base-patch16"},
         "owlv2/owlv2-base-patch16", ()),
        ("/sam3_3d/infer", {"mask_input": [1, 1, 9, 1, 9, 9]}, "sam3-3d-objects",
         ("captoin-t38zo/1", "sam3-3d-weights-vc6vz/1")),
        ("/sam3_3d/infer", {"mask_input": [1, 1, 9, 1, 9, 9], "model_id": "sam3-3d-weights-vc6vz/1"},
         "sam3-3d-weights-vc6vz/1", ()),
    ],
)  # fmt: skip
def test_a_route_with_a_flag_uses_the_model_that_was_authorised(front, target, document, model, published):
    key, body = front.key(), {"image": image()} | document
    assert front.post(target, body, key).status == 404
    assert front.sent() == []
    for index in range(len(published) + 1):
        if index:  # the model alone is not enough, where it brings others
            assert front.post(target, body, key).status == 404
            assert front.sent() == []
        front.installation.run("models", "publish", (model, *published)[index])
    try:
        front.post(target, body, key)
        assert [note.model for note in front.notes.all("add")] == [model]
        assert {note.key for note in front.notes.all("add", "load", "infer")} <= {SERVICE_KEY, None}
    finally:
        front.installation.run("models", "unpublish", model, *published)


@pytest.mark.parametrize(
    "example",
    [
        {"type": "url", "value": "https://example.com/a"},
        {"type": "File", "value": "/etc/hostname"},
    ],
)
def test_an_example_from_elsewhere_is_refused(front, example):
    body = {"image": image(), "training_data": [{"boxes": [], "image": example}]}
    default = "owlv2/owlv2-large-patch14-ensemble"
    front.installation.run("models", "publish", default)
    try:
        answer = front.post("/owlv2/infer", body, front.key())
    finally:
        front.installation.run("models", "unpublish", default)
    assert (answer.status, front.reason(answer)) == (400, "forbidden-image")
    assert front.sent() == []
