"""Bodies of AuthZEN requests: what is a question, what spoils one item, and what refuses the request."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.faces.evaluation_bodies import (
    MAX_CONTAINERS,
    MAX_EVALUATIONS,
    MAX_VALUES,
    MOST_SECONDS_AHEAD,
    Semantic,
    parse_evaluation,
    parse_evaluations,
)
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal
from gateway.model.questions import Subject, SubjectKind
from tests import samples

NOW = 1_800_000_000.0
KEY = "key_abcdefghijkl"
ONE = {
    "subject": {"type": "key", "id": KEY},
    "action": {"name": "read"},
    "resource": {"type": "model", "id": "acme/cars/1"},
}


def request(body, kind=b"application/json", *headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return samples.wire_request(headers=((b"content-type", kind), *headers), body=raw, received_at=NOW)


def question(**changes):
    [one] = parse_evaluation(request({**ONE, **changes})).questions
    return one


def told(parse, body):
    with pytest.raises(Refusal) as caught:
        parse(request(body))
    assert caught.value.reason is Reason.MALFORMED_BODY
    return caught.value.client_detail


def test_a_question_has_the_names_that_stand_in_it():
    properties = {"model": "acme/cars/1", "package": "pkgA1", "other": [1]}
    asked = question(
        resource={"type": "file", "id": "a/b.onnx", "properties": properties},
        context={"time": "2027-01-15T09:00:00+01:00", "ip": "::ffff:192.0.2.7", "other": {}},
    )
    assert asked.subject == Subject(kind=SubjectKind.KEY, name=KEY)
    assert asked.action is Action.READ
    assert asked.resource == Resource(
        kind=ResourceKind.FILE, model="acme/cars/1", package="pkgA1", file="a/b.onnx"
    )
    assert (asked.moment, asked.address, asked.error) == (NOW, "192.0.2.7", None)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"subject": {"type": "key", "id": "key_short"}}, "subject"),
        ({"subject": {"type": "tenant", "id": "no tenant"}}, "subject"),
        ({"subject": {"type": "key", "id": "acme"}}, "subject"),  # not even of another type
        ({"resource": {"type": "model", "id": "a/../b"}}, "resource"),
        ({"resource": {"type": "model", "id": "acme/*"}}, "resource"),
        ({"resource": {"type": "package", "id": "CON", "properties": {"model": "a"}}}, "resource"),
    ],
)
def test_a_name_that_nobody_has_is_a_question_without_it(changes, missing):
    asked = question(**changes)
    assert asked.error is None
    assert getattr(asked, missing) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": {"type": "binding", "id": "bnd_abcdefghijkl"}},
        {"action": {"name": "ask"}},  # no action of callers on themselves, nor of workflows
        {"action": {"name": "custom-python"}},
        {"action": {"name": "READ"}},
        {"resource": {"type": "self", "id": "x"}},
        {"resource": {"type": "package", "id": "p"}},
        {"resource": {"type": "file", "id": "f", "properties": {"model": "m", "package": 1}}},
        {"context": {"time": "yesterday"}},
        {"context": {"time": None}},
        {"context": {"time": "2027-01-15T09:00:00"}},
        {"context": {"time": "2027-01-15T09:00:00Z" + " " * 40}},
        {"context": {"time": "0001-01-01T00:00:00+14:00"}},
        {"context": {"time": "9999-12-31T23:59:59-14:00"}},
        {"context": {"time": "2038-01-18T09:00:00Z"}},
        {"context": {"time": "1969-12-31T23:59:59Z"}},
        {"context": {"ip": "192.0.2.0/24"}},
        {"context": {"ip": "fe80::1%eth0"}},
        {"context": {"ip": 3}},
        {"context": {"ip": ""}},
    ],
)
def test_what_cannot_be_asked_here_is_a_question_with_an_error(changes):
    asked = question(**changes)
    assert asked.error
    assert (asked.subject, asked.resource, asked.moment, asked.address) == (None, None, None, None)


def test_the_moment_is_bounded_on_both_sides():
    assert question(context={"time": "1970-01-01T00:00:00Z"}).moment == 0.0
    assert question(context={"time": "2037-01-01T00:00Z"}).moment < NOW + MOST_SECONDS_AHEAD


@pytest.mark.parametrize("name", ["subject", "action", "resource"])
@pytest.mark.parametrize("wrong", [None, "x", 1, [], True])
def test_a_required_member_that_is_missing_or_of_another_type_is_named(name, wrong):
    without = {key: value for key, value in ONE.items() if key != name}
    assert told(parse_evaluation, without) == f"{name} is missing."
    assert told(parse_evaluation, {**ONE, name: wrong}) == f"{name} is an object."
    assert told(parse_evaluations, {**ONE, name: wrong, "evaluations": [{}]}) == f"{name} is an object."


@pytest.mark.parametrize(
    ("name", "member"), [("subject", "type"), ("subject", "id"), ("action", "name"), ("resource", "id")]
)
def test_a_required_member_of_an_entity_is_a_string(name, member):
    without = {key: value for key, value in ONE[name].items() if key != member}
    assert told(parse_evaluation, {**ONE, name: without}) == f"{name}.{member} is missing."
    assert told(parse_evaluation, {**ONE, name: {**without, member: 1}}) == f"{name}.{member} is a string."


def test_an_entity_of_an_item_replaces_the_default_whole():
    default = {"type": "file", "id": "f", "properties": {"model": "acme/cars/1", "package": "p"}}
    items = [{}, {"resource": {"type": "file", "id": "g"}}, {"resource": {"id": "g"}}, {"context": {}}]
    body = {**ONE, "resource": default, "context": {"ip": "192.0.2.7"}, "evaluations": items}
    asked = parse_evaluations(request(body))
    assert asked.is_batch
    first, second, third, fourth = asked.questions
    assert (first.resource.file, first.address) == ("f", "192.0.2.7")
    assert "properties" in second.error
    assert third.error == "resource.type is missing"
    assert (fourth.resource.file, fourth.address) == ("f", None)


def test_a_batch_is_bounded_by_its_items():
    assert len(parse_evaluations(request({**ONE, "evaluations": [{}] * MAX_EVALUATIONS})).questions) == 100
    assert "100" in told(parse_evaluations, {**ONE, "evaluations": [{}] * (MAX_EVALUATIONS + 1)})


@pytest.mark.parametrize("semantic", Semantic)
def test_a_batch_has_one_of_three_orders(semantic):
    body = {**ONE, "evaluations": [{}], "options": {"evaluations_semantic": semantic}}
    assert parse_evaluations(request(body)).semantic is semantic


@pytest.mark.parametrize("semantic", ["", "EXECUTE_ALL", 1, None, ["execute_all"], {}])
def test_there_is_no_other_order(semantic):
    body = {**ONE, "evaluations": [{}], "options": {"evaluations_semantic": semantic}}
    assert "evaluations_semantic" in told(parse_evaluations, body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{} {}",
        b'\xef\xbb\xbf{"subject":{}}',
        '{"subject":{"type":"tenant"}}'.encode("utf-16"),
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a":[' + b"[]," * MAX_CONTAINERS + b"[]]}",
        b'{"a":[' + b"1," * (MAX_VALUES + 1) + b"1]}",
    ],
)
@pytest.mark.parametrize("parse", [parse_evaluation, parse_evaluations])
def test_what_parsers_disagree_about_or_costs_too_much_is_refused(parse, body):
    with pytest.raises(Refusal) as caught:
        parse(request(body))
    assert caught.value.reason is Reason.MALFORMED_BODY


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"content-type", b"text/plain"),),
        ((b"content-type", b"application/json; charset=latin-1"),),
        ((b"content-type", b"application/jsonp"),),
        ((b"content-type", b"application/json"), (b"content-type", b"application/json")),
        ((b"content-type", b"application/json"), (b"content-encoding", b"gzip")),
    ],
)
def test_a_body_is_plain_json_and_says_so(headers):
    sent = samples.wire_request(headers=headers, body=json.dumps(ONE).encode(), received_at=NOW)
    with pytest.raises(Refusal):
        parse_evaluation(sent)


@pytest.mark.parametrize(
    "kind", [b"application/json", b"Application/JSON ; charset=UTF-8", b' application/json;charset="utf-8"']
)
def test_json_in_utf_8_may_say_so(kind):
    assert parse_evaluation(request(ONE, kind)).questions


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["key", KEY, "read", "model"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "subject",
                    "action",
                    "resource",
                    "context",
                    "type",
                    "id",
                    "name",
                    "properties",
                    "time",
                    "ip",
                    "evaluations",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(values, values)
def test_any_json_is_questions_or_refused_and_nothing_else_happens(body, item):
    for parse, document in (
        (parse_evaluation, body),
        (parse_evaluations, body),
        (parse_evaluations, {**ONE, "evaluations": [item, body]}),
    ):
        try:
            asked = parse(request(document))
        except Refusal as refusal:
            reason, count = refusal.reason, 1
        else:
            reason, count = Reason.MALFORMED_BODY, len(asked.questions)
        assert reason is Reason.MALFORMED_BODY
        assert 1 <= count <= MAX_EVALUATIONS
