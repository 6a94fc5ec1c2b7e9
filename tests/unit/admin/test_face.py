"""What is read of a request to the administration, without one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.documents import KeyNew
from gateway.admin.face import OPERATIONS, _parse_query, field_problem
from gateway.admin.grants import parse_grant
from gateway.admin.models import parse_rule, pattern_of, rule_id
from gateway.identity.tokens import mint_token
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.names import parse_pattern


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": 5}, "/name"),
        ({"scopes": ["read", 5]}, "/scopes/1"),
        ({"surplus": 1}, "/surplus"),
        ({"a/b~c": 1}, "/a~1b~0c"),
        ({"networks": [None]}, "/networks/0"),
        ([], ""),
    ],
)
def test_a_problem_names_the_field_by_its_json_pointer(body, pointer):
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(body, type=KeyNew)
    assert field_problem(str(refused.value)).pointer == pointer


@given(st.text())
def test_the_id_of_a_rule_is_its_pattern_and_has_one_spelling(text):
    try:
        pattern = parse_pattern(text)
    except BadNameError:
        return
    assert pattern_of(rule_id(pattern)) == pattern
    assert "/" not in rule_id(pattern)
    for other in (rule_id(pattern) + "=", rule_id(pattern) + "A", rule_id(pattern).removeprefix("rule_")):
        try:
            assert pattern_of(other) != pattern
        except BadNameError:
            continue


@given(st.text())
def test_what_is_no_id_is_refused_and_never_an_error_of_ours(text):
    for parse in (parse_rule, parse_grant):
        try:
            parse(text)
        except BadNameError:
            continue


@pytest.mark.parametrize("query", [b"%b=1", b"limit=%b"])
def test_no_problem_tells_a_key_that_stands_in_a_query(query):
    token = mint_token("live", lambda alphabet: alphabet[0])
    with pytest.raises(Refusal) as refused:
        _parse_query(OPERATIONS[0], query % token.encode())
    assert refused.value.reason is Reason.KEY_IN_QUERY
    assert token not in str(refused.value.client_detail)
