from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.demo.tour import TourAnswer, TourStep, judge, mistyped, plan_tour, shown_path
from gateway.identity.tokens import parse_token
from gateway.model.errors import Refusal

STEP = TourStep(who="acme", path="/v1/x", expected=404, shows="it", token="cg_demo_secret", twin="/v1/y")


def answer(**more):
    record = more.pop("record", "r1")
    values = {
        "status": 404,
        "headers": (("date", "now"), ("cachegate-record", record), ("content-length", "9")),
        "body": b'{"record":"%s"}' % record.encode(),
    }
    return TourAnswer(**{**values, **more})


def test_two_refusals_that_differ_in_record_and_date_only_are_twins():
    other = answer(
        record="r2", headers=(("date", "later"), ("cachegate-record", "r2"), ("content-length", "9"))
    )
    assert judge(STEP, answer(), other) == []


@pytest.mark.parametrize(
    "twin",
    [
        None,
        answer(status=403),
        answer(body=b"another"),
        answer(headers=(("date", "now"), ("cachegate-record", "r1"), ("content-length", "10"))),
        answer(headers=(("date", "now"), ("cachegate-record", "r1"))),
    ],
)
def test_a_twin_that_differs_in_anything_else_is_a_complaint(twin):
    assert len(judge(STEP, answer(), twin)) == 1


def test_another_status_is_a_complaint_that_names_both():
    [complaint] = judge(replace(STEP, twin=None), answer(status=200), None)
    assert "expected 404, got 200" in complaint


def test_no_key_is_in_a_step_that_is_printed(installed):
    for step in plan_tour(installed.world):
        assert "cg_demo_" not in shown_path(step)
        assert step.token is None or step.token not in repr(replace(step, path=shown_path(step)))


def test_every_step_of_a_twin_has_its_twin_before_it(installed):
    steps = plan_tour(installed.world)
    for number, step in enumerate(steps):
        assert step.twin is None or step.twin in [one.path for one in steps[:number]]


def test_a_mistyped_key_is_known_to_be_one(installed):
    token = installed.world.keys["acme"].token
    parse_token(token)
    with pytest.raises(Refusal):
        parse_token(mistyped(token))
