from __future__ import annotations

import pytest

from gateway.decision import cedar
from gateway.decision.source import (
    MAX_NESTING,
    MAX_STATEMENT_TOKENS,
    SourcePosition,
    find_excess,
    find_id_at,
    place_at,
    place_of_policy_error,
    place_of_syntax_error,
    places_of_complaints,
    places_of_statements,
    rule_texts,
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
    assert places_of_statements(TWO) == [SourcePosition(2, 1), SourcePosition(3, 3)]


def test_lines_and_columns_count_from_one():
    assert place_at("ab\ncd", 0) == SourcePosition(1, 1)
    assert place_at("ab\ncd", 4) == SourcePosition(2, 2)


def test_a_complaint_points_at_what_it_names_in_its_own_statement():
    text = "permit (principal is Admin, action, resource);\nforbid (principal is Admin, action, resource);"
    complaints = [
        (1, "entity type `Admin` not found"),
        (1, "`nothing` that is there"),
        (1, "'resource' is not meant"),
        (7, "of a policy that is not there"),
    ]
    assert places_of_complaints(text, complaints) == [
        SourcePosition(2, 22),
        SourcePosition(2, 1),
        SourcePosition(2, 37),
        SourcePosition(1, 1),
    ]


@pytest.mark.parametrize(
    ("text", "place", "rule_id"),
    [
        # The error is found at the end of its own policy, although the next one is unfinished.
        (
            '@id("a")\npermit (principal, action, resource) when { 1 = 2 };\n@id("b") permit (principal',
            SourcePosition(2, 47),
            "a",
        ),
        (
            '@id("a") permit (principal, action, resource);  @id("b") permit (princpal',
            SourcePosition(1, 74),
            "b",
        ),
        ("permit (principal, action, resource);\n@id permit (1);", SourcePosition(2, 13), None),
    ],
)
def test_the_policy_that_does_not_parse_is_found_and_its_id(text, place, rule_id):
    assert place_of_policy_error(text, cedar.find_policy_error) == place
    assert find_id_at(text, place) == rule_id


def test_rules_are_the_same_by_their_words():
    one, two = rule_texts(
        '// c\n@id("a") permit (principal, action, resource);\n\n  forbid(principal,action,resource) ; // d'
    )
    assert (one.line, two.line) == (2, 4)
    assert two.words == rule_texts("forbid (\n  principal, // who\n  action, resource);")[0].words
    assert one.words != rule_texts('@id("b") permit (principal, action, resource);')[0].words
    assert one.text == '@id("a") permit (principal, action, resource);'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("permit (principal, action, resource) when { 1 + };", SourcePosition(1, 49)),
        ("permit (principal, action, resource);\npermt (principal, action, resource);", SourcePosition(2, 1)),
        ('permit (principal, action, resource) when { "open };', SourcePosition(1, 45)),
        ("permit (principal, action, resource)\n", SourcePosition(1, 37)),
        ('permit (principal, action, resource) when { ip("x").foo() };', SourcePosition(1, 53)),
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
