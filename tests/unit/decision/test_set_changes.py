from __future__ import annotations

from msgspec.structs import replace

from gateway.decision.set_changes import compare_sets
from gateway.model.rule_changes import RuleSetChanges


def rule(name, effect="permit", condition=""):
    return f'@id("{name}") {effect} (principal, action, resource){condition};\n'


def ids(rules):
    return [one.rule_id for one in rules]


def test_what_is_new_gone_and_changed_is_named_with_its_place(asker):
    old = asker.rules(rule("stays") + rule("goes") + rule("turns"))
    new = asker.rules(rule("stays"), "\n" + rule("comes") + rule("turns", "forbid"))
    found = compare_sets(old, new)
    assert [(one.rule_id, one.effect, one.file, one.line) for one in found.new] == [
        ("comes", "permit", "1.cedar", 2)
    ]
    assert [(one.rule_id, one.file, one.line) for one in found.gone] == [("goes", "0.cedar", 2)]
    (pair,) = found.changed
    assert (pair.was.effect, pair.was.file, pair.was.line) == ("permit", "0.cedar", 3)
    assert (pair.now.effect, pair.now.file, pair.now.line) == ("forbid", "1.cedar", 3)
    assert not found.is_schema_changed


def test_comments_layout_and_files_are_no_part_of_a_rule(asker):
    old = asker.rules(rule("a") + rule("b"))
    new = asker.rules(rule("b"), "// moved\n" + rule("a").replace(" (", "  (\n "))
    new = replace(new, schema=f"// a comment\n{new.schema}")
    assert compare_sets(old, new) == RuleSetChanges()


def test_a_condition_an_annotation_and_a_string_are_part_of_a_rule(asker):
    old = asker.rules(
        rule("a", condition=" when { true }") + rule("b") + rule("c", condition=' when { "x" == "y" }')
    )
    new = asker.rules(
        rule("a", condition=" when { false }")
        + '@via("owner") '
        + rule("b")
        + rule("c", condition=' when { "x" == "y " }')
    )
    assert [pair.now.rule_id for pair in compare_sets(old, new).changed] == ["a", "b", "c"]


def test_another_schema_is_said(asker):
    old = asker.rules(rule("a"))
    found = compare_sets(
        old, replace(old, schema=old.schema.replace("entity Catalogue;", "entity Catalogue; type X = Long;"))
    )
    assert found == RuleSetChanges(is_schema_changed=True)
    assert "schema" in found.summary


def test_without_a_set_to_compare_with_every_rule_is_new(asker):
    new = asker.rules(rule("a") + rule("b"))
    assert ids(compare_sets(None, new).new) == ["a", "b"]
    unreadable = compare_sets(asker.rules("nonsense"), new)
    assert ids(unreadable.new) == ["a", "b"]
    assert not unreadable.is_known


def test_a_rule_in_force_without_an_id_goes_by_its_place(asker):
    old = asker.rules("permit (principal, action, resource);")
    assert ids(compare_sets(old, asker.rules(rule("a"))).gone) == ["0.cedar#0"]


def test_what_is_cut_keeps_some_of_each_kind(asker):
    old = asker.rules("".join(rule(f"gone{number}") for number in range(9)) + rule("turns"))
    new = asker.rules("".join(rule(f"new{number}") for number in range(9)) + rule("turns", "forbid"))
    found = compare_sets(old, new)
    cut = found.cut(2)
    assert (len(cut.new), len(cut.gone), len(cut.changed)) == (2, 2, 1)
    assert len(found.lines) == 19
