"""The gateway finds the route that the running server's own expressions find, or refuses."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.front_door.matching import match
from gateway.front_door.table import load_table
from gateway.front_door.values import Existence
from gateway.model.errors import Reason, Refusal

pytestmark = pytest.mark.server

EXAMPLES = 3000
METHODS = st.sampled_from(("GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "get"))
REFUSED_FOR_ALL = {
    Reason.MALFORMED_PATH,
    Reason.CLOSED_ROUTE,
    Reason.NO_ROUTE,
    Reason.METHOD_NOT_ALLOWED,
}


@pytest.fixture(scope="module")
def routes(server):
    return [(method, path, re.compile(pattern)) for method, path, pattern in server.notes.patterns()]


def found_by_server(routes, method, raw_path):
    """As Starlette's router does: the decoded path, the first route whose path and method match."""
    path = unquote(raw_path.decode("ascii"))
    for its_method, its_path, pattern in routes:
        found = pattern.match(path)
        if found and its_method in (method, "*"):
            return its_method, its_path, found.groupdict()
    return None


WORDS = (
    *("infer", "classification", "clip", "embed_image", "model", "add", "registry", "workflows", "start"),
    *("sam2", "acme", "1", "build", "lmm", "info", "depth-anything-v2", "depth-estimation", "run"),
    *("a b", "caf\xe9", "", ".", ".."),
)


def segments():
    plain = st.sampled_from(WORDS)
    return st.one_of(plain, plain, st.text("abc/%?#\\;.\n\x00\u2028", max_size=4))


def encoded(path, choices):
    """The path in bytes, with some of its characters percent-encoded."""
    out = bytearray()
    for index, byte in enumerate(path.encode()):
        must = byte <= 0x20 or byte >= 0x7F or byte in b"%?#"
        if must or (byte != 0x2F and choices[index % len(choices)] == 0):
            out += b"%%%02X" % byte
        elif byte == 0x2F and index and choices[index % len(choices)] == 1:
            out += b"%2f"
        else:
            out.append(byte)
    return bytes(out)


@pytest.fixture(scope="module")
def matched():
    """How often a route was found: the law must not hold because nothing is."""
    found = []
    yield found
    assert len({route.path for route in found}) > 15


def compare(routes, table, method, raw_path):
    """What the gateway found, if it did not refuse."""
    expected = found_by_server(routes, method, raw_path)
    try:
        ours = match(table, method, raw_path)
    except Refusal as refusal:
        reason = refusal.reason
    else:
        reason = None
    if reason is not None:
        assert reason in REFUSED_FOR_ALL
        return None
    assert expected == (ours.route.method, ours.route.path, ours.values)
    return ours.route


def test_the_route_that_is_found_is_the_servers(routes, matched):
    table = load_table("1.8.3")
    paths = st.sampled_from([path for _, path, _ in routes])

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        method=METHODS,
        path=st.one_of(
            st.lists(segments(), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)),
            st.tuples(paths, segments()).map(lambda pair: re.sub(r"\{[^}]*\}", lambda _: pair[1], pair[0])),
        ),
        choices=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    )
    def law(method, path, choices):
        route = compare(routes, table, method, encoded(path or "/", choices))
        if route is not None:
            matched.append(route)

    law()


@pytest.mark.parametrize("value", ["acme", "1", "coco-3"])
def test_every_open_route_is_found_by_its_own_path(routes, value):
    """So nothing is closed by a row that comes too early."""
    table = load_table("1.8.3")
    for row in table.routes:
        if row.exists is Existence.ALWAYS and row.answering != "closed":
            path = re.sub(r"\{[^}]*\}", value, row.path).encode()
            assert compare(routes, table, row.method, path) == row
