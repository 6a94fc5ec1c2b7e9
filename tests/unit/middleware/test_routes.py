"""Routes are found by shape, and an app without any serves nothing."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.middleware.routes import Routes
from gateway.model.access import Action
from gateway.model.errors import Misconfigured
from gateway.model.routes import GuardedRoute


def route(prefix):
    return GuardedRoute(
        template=prefix.decode(),
        methods=("GET",),
        action=Action.READ,
        matches=lambda raw_path: raw_path.startswith(prefix),
        locate=lambda request: None,
    )


def test_the_first_route_of_a_shape_is_found_every_time():
    one, two = route(b"/a"), route(b"/")
    routes = Routes([one, two])
    for _ in range(2):
        assert routes.find(b"/abc") is one
        assert routes.find(b"/b") is two
        assert routes.find(b"no path") is None


def test_a_path_that_is_a_template_is_found_as_any_other_path():
    wide, narrow = route(b"/a"), route(b"/a/b")
    assert Routes([wide, narrow]).find(b"/a/b") is wide
    assert Routes([narrow, wide]).find(b"/a/b") is narrow
    assert Routes([replace(narrow, matches=lambda raw_path: raw_path == b"/c")]).find(b"/a/b") is None


def test_nothing_to_guard_is_a_mistake():
    with pytest.raises(Misconfigured):
        Routes([])
