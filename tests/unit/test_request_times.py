"""The histogram of request times: what a bucket holds, and which face a route belongs to."""

from __future__ import annotations

import pytest

from gateway.request_times import BOUNDS, LABELS, SUM, RequestTimes, cumulated, face_of


def buckets(times, face):
    return {label: times.values()[face, label] for label in LABELS if times.values()[face, label]}


@pytest.mark.parametrize(
    ("seconds", "label"), [(0.0, "0.0005"), (0.001, "0.001"), (0.0011, "0.0025"), (99, "+Inf")]
)
def test_a_request_is_counted_in_the_first_bucket_whose_bound_it_does_not_exceed(seconds, label):
    times = RequestTimes()
    times.count("/v1/models", seconds)
    assert buckets(times, "content") == {label: 1}
    assert times.values()["content", SUM] == seconds


def test_routes_of_one_face_are_one_series_and_routes_that_nobody_asked_for_are_none():
    times = RequestTimes()
    for route in ("/v1/models", "/v1/models/{model}", "/v1/models"):
        times.count(route, 0.0)
    assert {face for face, _ in times.values()} == {"content"}
    assert buckets(times, "content") == {"0.0005": 3}


def test_a_route_of_somebody_elses_app_is_another_face():
    assert face_of("/files/{name}") == "other"


def test_buckets_are_cumulated_in_the_order_of_their_bounds():
    assert [float(label) for label in LABELS] == [*BOUNDS, float("inf")]
    assert sorted(BOUNDS) == list(BOUNDS)
    assert cumulated({"+Inf": 1, "0.001": 2}) == [
        (label, 0 if bound < 0.001 else 2 if bound < float("inf") else 3)
        for label, bound in ((label, float(label)) for label in LABELS)
    ]
