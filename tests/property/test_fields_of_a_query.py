"""The number of fields in a query: the same bound wherever one is read, checked before it is split."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.credential.extract import extract
from gateway.engine.questions import parse_question
from gateway.faces.content import CATALOGUE
from gateway.faces.proxy import Unwrapping
from gateway.middleware.shape import refusal_by_shape
from gateway.model.access import Action
from gateway.model.errors import Reason, Refusal
from gateway.model.limits import MAX_QUERY_FIELDS, MAX_TARGET_BYTES
from gateway.model.queries import split_query
from gateway.model.routes import GuardedRoute
from tests import samples

KEY = ((b"x-api-key", b"key"),)
UNWRAPPING = Unwrapping(
    public_url="https://models.example",
    upstream="https://api.example",
    offers=None,
    download=SimpleNamespace(),
)
ROUTE = GuardedRoute(
    template="/v1/models",
    methods=("GET",),
    action=Action.DISCOVER,
    matches=lambda _path: True,
    locate=lambda _request: None,
)


def request(query):
    return samples.wire_request(
        raw_path=b"/v1/models", query=query, headers=KEY, client="192.0.2.1", route="-"
    )


def by_shape(query, route=ROUTE):
    reason = refusal_by_shape(request(query), route)
    if reason is not None:
        raise Refusal(reason)


def by_proxy(query):
    url = f"https://api.example/models/v1/external/weights?{query.decode()}"
    UNWRAPPING.unwrap(request(b"url=" + quote(url, safe="").encode()))


READERS = {
    "before any key is looked at": by_shape,
    "the key": lambda query: extract(KEY, query),
    "a page": lambda query: CATALOGUE.locate(request(query)),
    "a question": parse_question,
    "a wrapped question": by_proxy,
    "a split": split_query,
}


def takes(read, query):
    try:
        read(query)
    except Refusal as refusal:
        return refusal.reason is not Reason.MALFORMED_QUERY
    return True


@pytest.mark.parametrize("where", READERS)
@given(st.lists(st.sampled_from(["&", ";"]), min_size=MAX_QUERY_FIELDS - 4, max_size=MAX_QUERY_FIELDS + 3))
@example(["&"] * (MAX_QUERY_FIELDS - 1))
@example(["&"] * MAX_QUERY_FIELDS)
@example([";"] * MAX_QUERY_FIELDS)
def test_a_query_has_only_so_many_fields(where, separators):
    query = b"modelId=a" + b"".join(f"{one}a{number}=1".encode() for number, one in enumerate(separators))
    assert takes(READERS[where], query) is (len(separators) < MAX_QUERY_FIELDS)


@pytest.mark.parametrize("where", READERS)
@pytest.mark.parametrize("separator", [b"&", b";"])
def test_empty_fields_count_as_well(where, separator):
    assert not takes(READERS[where], separator * (MAX_TARGET_BYTES // 4))


def test_it_is_refused_for_everybody_before_the_route_and_the_key_are_known():
    many = request(b"&" * MAX_QUERY_FIELDS)
    assert refusal_by_shape(many, None) is refusal_by_shape(many, ROUTE) is Reason.MALFORMED_QUERY
    assert refusal_by_shape(request(b"&" * (MAX_QUERY_FIELDS - 1)), ROUTE) is None
    assert refusal_by_shape(request(b"&" * (MAX_TARGET_BYTES + 1)), ROUTE) is Reason.PATH_TOO_LONG
