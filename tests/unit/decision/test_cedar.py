from __future__ import annotations

import pytest

from gateway.decision import cedar

SCHEMA = 'entity A; action "x" appliesTo { principal: [A], resource: [A] };'
PERMIT = '@id("yes") permit (principal, action, resource);'
REQUEST = {
    "principal": {"type": "A", "id": "1"},
    "action": {"type": "Action", "id": "x"},
    "resource": {"type": "A", "id": "2"},
}


def prepared(*texts: str) -> cedar.PreparedSet:
    return cedar.prepare(SCHEMA, [(f"{number}.cedar", text) for number, text in enumerate(texts)])


def test_rules_keep_their_order_and_names_beyond_ten():
    rules = cedar.parse_rules("a.cedar", "\n".join(PERMIT.replace("yes", f"r{n}") for n in range(12)))
    assert [rule.name for rule in rules] == [f"r{n}" for n in range(12)]


def test_a_determining_rule_is_named_across_files():
    others = [PERMIT.replace("yes", f"r{n}").replace("principal,", 'principal == A::"9",') for n in range(11)]
    (answer,) = cedar.ask(prepared(*others, PERMIT), [REQUEST], "[]")
    assert answer.is_allowed
    assert [rule.file for rule in answer.rules] == ["11.cedar"]


def test_a_rule_without_an_id_is_named_by_its_place():
    (answer,) = cedar.ask(prepared("permit (principal, action, resource);"), [REQUEST], "[]")
    assert [rule.name for rule in answer.rules] == ["0.cedar#0"]


def test_no_answer_is_an_allow_when_entities_do_not_parse():
    for entities in ("[{", '[{"uid": {"type": "B", "id": "1"}, "attrs": {}, "parents": []}]', "null"):
        answers = cedar.ask(prepared(PERMIT), [REQUEST, REQUEST], entities)
        assert [(answer.is_allowed, answer.has_failed) for answer in answers] == [(False, True)] * 2


def test_a_request_that_the_schema_does_not_know_fails():
    for field, other in (("action", {"type": "Action", "id": "y"}), ("principal", {"type": "B", "id": "1"})):
        (answer,) = cedar.ask(prepared(PERMIT), [{**REQUEST, field: other}], "[]")
        assert (answer.is_allowed, answer.has_failed) == (False, True)


def test_one_failing_rule_fails_the_answer_though_another_permits():
    failing = '@id("fails") forbid (principal, action, resource) when { 9223372036854775807 + 1 == 0 };'
    (answer,) = cedar.ask(prepared(PERMIT, failing), [REQUEST], "[]")
    assert (answer.is_allowed, answer.has_failed) == (False, True)
    assert [rule.name for rule in answer.rules] == ["fails"]


@pytest.mark.parametrize("link", ["if true then true else ", "true || ", "true && "])
def test_a_chain_of_any_length_is_a_refusal_at_worst(link):
    for length in (100, 300, 450, 5000):
        text = f'@id("x") permit (principal, action, resource) when {{ {link * length}true }};'
        try:
            prepared(text)
        except cedar.CedarError:
            continue
        assert length < 5000
