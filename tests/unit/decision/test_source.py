from __future__ import annotations

import pytest

from gateway.decision import cedar
from gateway.decision.source import (
    MAX_NESTING,
    MAX_STATEMENT_TOKENS,
    Place,
    find_excess,
    place_at,
    place_of_complaint,
    place_of_statement,
    place_of_syntax_error,
    statements,
)

TWO = """\
// ";" is no end here
permit (principal, action, resource); // nor; here
  forbid (principal, action, resource);
"""


def test_semicolons_in_strings_and_comments_end_no_statement():
    assert len(statements('permit(principal, action == Action::"a;b\\";", resource); // ; ;\n')) == 1
    assert len(statements(TWO)) == 2


def test_a_statement_is_found_by_its_number():
    assert place_of_statement(TWO, 0) == Place(2, 1)
    assert place_of_statement(TWO, 1) == Place(3, 3)
    assert place_of_statement(TWO, 7) == Place(1, 1)


def test_lines_and_columns_count_from_one():
    assert place_at("ab\ncd", 0) == Place(1, 1)
    assert place_at("ab\ncd", 4) == Place(2, 2)


def test_a_complaint_points_at_what_it_names_in_its_own_statement():
    text = "permit (principal is Admin, action, resource);\nforbid (principal is Admin, action, resource);"
    assert place_of_complaint(text, 1, "entity type `Admin` not found") == Place(2, 22)
    assert place_of_complaint(text, 1, "`nothing` that is there") == Place(2, 1)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("permit (principal, action, resource) when { 1 + };", Place(1, 49)),
        ("permit (principal, action, resource);\npermt (principal, action, resource);", Place(2, 1)),
        ('permit (principal, action, resource) when { "open };', Place(1, 45)),
        ("permit (principal, action, resource)\n", Place(1, 37)),
        ('permit (principal, action, resource) when { ip("x").foo() };', Place(1, 53)),
    ],
)
def test_a_syntax_error_is_where_reading_breaks_off(text, place):
    assert place_of_syntax_error(text, cedar.find_policy_error) == place


def nested(depth: int) -> str:
    return f"permit (principal, action, resource) when {{ {'(' * depth}true{')' * depth} }};"


@pytest.mark.parametrize(
    "text",
    [
        nested(5000),
        f"permit (principal, action, resource) when {{ {'if true then true else ' * 20000}true }};",
        f"permit (principal, action, resource) when {{ principal has a{'.a' * 20000} }};",
        f"permit (principal, action, resource) when {{ {'{a: ' * 20000}",
    ],
)
def test_a_text_that_would_overflow_cedars_stack_is_refused_before_it_gets_there(text):
    assert find_excess(text) is not None
    assert cedar.find_policy_error(text) is not None
    assert cedar.find_schema_error(text) is not None
    with pytest.raises(cedar.CedarError):
        cedar.parse_rules("a.cedar", text)


def test_what_people_write_is_within_the_bounds():
    names = ", ".join(f'Action::"a{number}"' for number in range(MAX_STATEMENT_TOKENS // 5))
    many = f"permit (principal, action in [{names}], resource);\n" * 30
    assert find_excess(many) is None
    assert find_excess(nested(MAX_NESTING - 1)) is None
    assert cedar.find_policy_error(nested(MAX_NESTING - 1)) is None
