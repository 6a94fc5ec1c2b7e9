from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.decision import source
from gateway.decision.policyset import (
    MAX_FILE_BYTES,
    MAX_ID_CHARACTERS,
    digest_of,
    load_policy_folder,
    validate,
)
from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import Distrusted

POLICIES = Path(__file__).parents[3] / "policies"
GOOD = '@id("good") permit (principal is ApiKey, action == Action::"read", resource is Model);\n'


@pytest.fixture
def folder(tmp_path):
    shutil.copy(POLICIES / "schema.cedarschema", tmp_path)
    return tmp_path


class TestLoading:
    def test_files_come_sorted_and_others_are_left_alone(self, folder):
        for name in ("b.cedar", "a.cedar", ".hidden.cedar", "note.txt", "c.cedar~"):
            (folder / name).write_text(GOOD, encoding="utf-8")
        assert [name for name, _ in load_policy_folder(folder).policies] == ["a.cedar", "b.cedar"]

    def test_any_difference_makes_another_digest(self, folder):
        (folder / "a.cedar").write_text(GOOD, encoding="utf-8")
        first = load_policy_folder(folder)
        assert load_policy_folder(folder) == first
        (folder / "a.cedar").rename(folder / "b.cedar")
        assert load_policy_folder(folder).digest != first.digest

    def test_no_text_can_take_the_place_of_the_next(self):
        sets = [("s", (("a", "xb"), ("c", "d"))), ("s", (("a", "x"), ("bc", "d"))), ("sa", (("", "xbcd"),))]
        assert len({digest_of(*each) for each in sets}) == len(sets)

    @pytest.mark.parametrize(
        ("damage", "where"),
        [
            (lambda folder: (folder / "schema.cedarschema").unlink(), "schema.cedarschema"),
            (lambda folder: (folder / "a.cedar").write_bytes(b"// ok\n\xff"), "a.cedar:2"),
            (lambda folder: (folder / "a.cedar").write_bytes(b" " * (MAX_FILE_BYTES + 1)), "a.cedar"),
            (lambda folder: (folder / "a.cedar").mkdir(), "a.cedar"),
            (shutil.rmtree, ""),
        ],
    )
    def test_what_cannot_be_read_is_named(self, folder, damage, where):
        damage(folder)
        with pytest.raises(Misconfigured) as refused:
            load_policy_folder(folder)
        assert refused.value.where.endswith(where)

    @pytest.mark.parametrize("name", [".", "schema.cedarschema", "a.cedar"])
    def test_what_others_could_have_written_is_refused_or_told(self, folder, name):
        (folder / "a.cedar").write_text(GOOD, encoding="utf-8")
        good = load_policy_folder(folder)
        (folder / name).chmod(0o777)
        with pytest.raises(Distrusted) as refused:
            load_policy_folder(folder)
        assert refused.value.culprit == str((folder / name).absolute())
        told = []
        assert load_policy_folder(folder, on_distrust=told.append) == good
        assert told[0].culprit == refused.value.culprit


class TestValidating:
    def test_the_shipped_set_has_no_problem(self, shipped):
        assert validate(shipped) == []

    @pytest.mark.parametrize(
        ("text", "line", "column", "about"),
        [
            ('@id("a")\npermit (principal, action, resource)\nwhen { 1 + == };', 3, 12, "unexpected token"),
            (f'{GOOD}\n@id("b") permit (princpal, action, resource);', 3, 18, "princpal"),
            (f"{GOOD}permit (principal, action, resource)", 2, 37, "end of input"),
            ('// a note; with "signs"\npermit (principal, action, resource);', 2, 1, "without an @id"),
            ("@id permit (principal, action, resource);", 1, 1, "without an @id"),
            (f"{GOOD}\n{GOOD}", 3, 1, "again"),
            ('@id("a") @id("b") permit (principal, action, resource);', 1, 2, "duplicate"),
            ('@id("t") permit (principal == ?principal, action, resource);', 1, 1, "template"),
            (
                f'{GOOD}@id("x")\nforbid (principal, action, resource)\nwhen {{ resource.colour }};',
                4,
                17,
                "colour",
            ),
            ('@id("x") permit (principal, action == Action::"raed", resource);', 1, 47, "raed"),
            ('@id("x") permit (principal is ApiKey, action, resource is Modl);', 1, 59, "Modl"),
            (
                '@id("x") forbid (principal, action, resource)\nwhen { principal in resource.owner };',
                2,
                30,
                "owner",
            ),
        ],
    )
    def test_a_problem_has_its_file_line_and_column(self, asker, text, line, column, about):
        problems = validate(asker.rules(GOOD.replace("good", "first"), text))
        assert any(
            (problem.file, problem.line, problem.column) == ("1.cedar", line, column)
            and about in problem.found
            for problem in problems
        ), [str(problem) for problem in problems]

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            (f'{GOOD}@id("odd") forbid (principal, action, resource)\nwhen {{ resource.colour }};', 3),
            (f'{GOOD}@id("odd") forbid (principal, action, resource)\nwhen {{ 1 = 2 }};\n{GOOD}', 3),
        ],
    )
    def test_a_complaint_of_cedar_names_the_rule_by_its_id(self, asker, text, line):
        problems = validate(asker.rules(GOOD.replace("good", "first"), text))
        assert problems
        for problem in problems:
            assert (problem.file, problem.line) == ("1.cedar", line)
            assert problem.found.startswith('rule "odd": ')
            assert "policy0" not in problem.found
            assert "policy1" not in problem.found

    @pytest.mark.parametrize("rule_id", ["x" * (MAX_ID_CHARACTERS + 1), "two\\nlines", "\\u{1b}[31m"])
    def test_an_id_that_would_spoil_records_is_a_problem(self, asker, rule_id):
        (problem,) = validate(asker.rules(GOOD.replace("good", rule_id)))
        assert (problem.file, problem.line) == ("0.cedar", 1)
        assert len(str(problem)) < 300
        assert validate(asker.rules(GOOD.replace("good", "x" * MAX_ID_CHARACTERS))) == []

    def test_many_rules_are_checked_in_a_time_that_grows_with_them(self, asker):
        # Each text is tokenised a few times, and not once for each of its rules.
        many = "".join(GOOD.replace("good", f"p{number}") for number in range(400))
        taken = []
        real = source.tokens

        def counting(text):
            taken.append(len(text))
            return real(text)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(source, "tokens", counting)
            assert validate(asker.rules(many)) == []
        assert sum(taken) < 10 * (len(many) + len(asker.shipped.schema))

    def test_two_files_may_not_share_an_id(self, asker):
        (problem,) = validate(asker.rules(GOOD, GOOD))
        assert (problem.file, problem.line) == ("1.cedar", 1)
        assert "0.cedar:1" in problem.found

    def test_a_set_without_policies_is_a_problem(self, asker):
        assert len(validate(asker.rules())) == 1
        assert len(validate(asker.rules("// none yet\n"))) == 1

    def test_a_policy_with_a_high_number_is_found_in_its_place(self, asker):
        many = [GOOD.replace("good", f"p{number}") for number in range(12)]
        many[11] = many[11].replace("resource is Model", "resource is Modl")
        problems = validate(asker.rules("".join(many)))
        assert {problem.line for problem in problems} == {12}

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("glimpses: Set<ModelGroup>,", ""),
            ("isPublic: Bool,\n};\n\n// Files", "isPublic: String,\n};\n\n// Files"),
            ("entity Admin {", "entity Admn {"),
            ('action "list"', 'action "lst"'),
            ('"discover", "read", "infer" appliesTo', '"discover", "read" appliesTo'),
        ],
    )
    def test_a_schema_that_does_not_fit_what_the_gateway_asks_is_a_problem(self, shipped, old, new):
        assert old in shipped.schema
        problems = validate(replace(shipped, schema=shipped.schema.replace(old, new)))
        assert problems
        assert {problem.file for problem in problems} == {"schema.cedarschema"}

    def test_a_schema_that_does_not_parse_is_a_problem_with_its_place(self, shipped):
        problems = validate(replace(shipped, schema="entity Tenant;\nentity Key in [Tenat];\n"))
        assert (problems[0].file, problems[0].line, problems[0].column) == ("schema.cedarschema", 2, 16)
