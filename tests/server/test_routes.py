"""The packaged table of routes against the running server."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

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
