from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.decision import Rulebook
from gateway.decision.cases import load_cases, run_cases
from gateway.decision.policyset import digest_of, load_policy_folder
from gateway.directory.documents.parse import load_tenant_documents
from gateway.model.errors import Misconfigured, Reason
from gateway.model.toml_tables import DocumentProblems
from gateway.model.trusted_files import Distrusted

ROOT = Path(__file__).parents[3]
SHIPPED_FILES = load_cases(ROOT / "policies" / "tests")
OUR_FILES = load_cases(ROOT / "tests" / "cases" / "decisions")
SHIPPED = load_policy_folder(ROOT / "policies")
RESULTS = run_cases((*SHIPPED_FILES, *OUR_FILES), SHIPPED, Rulebook()).results


def uncovered(report):
    return {rule.policy for rule in report.uncovered}


def write(folder: Path, text: str) -> Path:
    (folder / "some.toml").write_text(text, encoding="utf-8")
    return folder


ONE = """
[tenants.acme]
own = ["acme/*"]

[[cases]]
name = "n"
tenant = "acme"
action = "read"
model = "acme/x"
"""


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: f"{result.file}:{result.line}")
def test_the_shipped_rules_answer_as_the_case_expects(result):
    assert result.found == result.expected, result.name


def test_the_shipped_cases_cover_every_shipped_policy():
    report = run_cases(SHIPPED_FILES, SHIPPED, Rulebook())
    assert report.uncovered == ()
    assert report.has_passed


def test_every_shipped_policy_about_content_has_a_case_that_it_decides_and_one_that_it_does_not():
    cases = [case for _, _, content in SHIPPED_FILES for case in content.cases]
    assert {case.expect for case in cases} == {"allow", "deny"}
    for rule in Rulebook().rules(SHIPPED):
        deciding = [result for result in RESULTS if rule.name in result.policies]
        assert deciding, rule.name
        assert len(deciding) < len(RESULTS), rule.name


@pytest.mark.parametrize("position", range(len(SHIPPED.policies)))
def test_a_file_of_rules_that_goes_missing_fails_cases(position):
    kept = SHIPPED.policies[:position] + SHIPPED.policies[position + 1 :]
    report = run_cases(SHIPPED_FILES, replace(SHIPPED, policies=kept, digest="other"), Rulebook())
    has_rules = "\npermit" in SHIPPED.policies[position][1] or "\nforbid" in SHIPPED.policies[position][1]
    assert report.has_passed != has_rules


def test_an_uncovered_policy_is_reported_by_name(tmp_path):
    files = load_cases(write(tmp_path, f'{ONE}expect = "allow"\n'))
    report = run_cases(files, SHIPPED, Rulebook())
    assert all(result.has_passed for result in report.results)
    assert "grant-gives-read" in uncovered(report)
    assert "owner-uses-its-models" not in uncovered(report)
    assert not report.has_passed


def test_a_failing_case_covers_nothing_and_says_what_was_found(tmp_path):
    files = load_cases(write(tmp_path, f'{ONE}expect = "deny"\nreason = "not-permitted"\n'))
    report = run_cases(files, SHIPPED, Rulebook())
    (result,) = report.results
    assert (result.has_passed, result.found, result.line) == (False, "allow", 5)
    assert "owner-uses-its-models" in uncovered(report)


@pytest.mark.parametrize(
    "expectation",
    ['expect = "allow"\npolicies = ["other"]', 'expect = "allow"\ngrant = "public"'],
)
def test_an_allow_for_another_ground_fails_the_case(tmp_path, expectation):
    report = run_cases(load_cases(write(tmp_path, f"{ONE}{expectation}\n")), SHIPPED, Rulebook())
    assert not report.results[0].has_passed


OURS = ONE.replace("acme", "umbrella")  # a tenant that the shipped cases do not mention
WIDE = """// Anything below umbrella, whoever asks.
@id("wide")
permit (principal is ApiKey, action, resource in ModelGroup::"pattern:umbrella/*");
"""
AGAIN = WIDE.replace("wide", "wide-again")
HELD = '@id("held") forbid (principal, action, resource in ModelGroup::"pattern:umbrella/held/*");'
READS = WIDE.replace("wide", "reads").replace("action,", 'action == Action::"read",')
FAILS = """@id("fails") EFFECT (principal is ApiKey, action == Action::"infer", resource in
ModelGroup::"pattern:umbrella/*") when { 9223372036854775807 + 1 > 0 };"""


def with_rules(*texts):
    policies = (*SHIPPED.policies, *((f"more{number}.cedar", text) for number, text in enumerate(texts)))
    return replace(SHIPPED, policies=policies, digest=digest_of(SHIPPED.schema, policies))


def run_with(folder, cases, *rules):
    files = (*SHIPPED_FILES, *load_cases(write(folder, cases)))
    report = run_cases(files, with_rules(*rules), Rulebook())
    assert all(result.has_passed for result in report.results), report.results
    return report


class TestCoverage:
    """A rule counts as tested only by a case that would have another answer without it."""

    def test_a_case_that_passes_without_the_rule_does_not_cover_it(self, tmp_path):
        # "wide" is one of the rules that decide the case; the owner's right gives the same answer.
        cases = f'{OURS}expect = "allow"\npolicies = ["owner-uses-its-models", "wide"]\n'
        (gap,) = run_with(tmp_path, cases, WIDE).uncovered
        assert (gap.policy, gap.file, gap.line) == ("wide", "more0.cedar", 2)
        assert gap.beside == ("owner-uses-its-models",)

    def test_a_case_that_fails_without_the_rule_covers_it(self, tmp_path):
        cases = OURS.replace('"umbrella"\naction', '"globex"\naction') + 'expect = "allow"\n'
        assert run_with(tmp_path, cases, WIDE).has_passed

    def test_of_two_rules_that_give_the_same_each_needs_a_case_of_its_own(self, tmp_path):
        cases = OURS.replace('"umbrella"\naction', '"globex"\naction') + 'expect = "allow"\n'
        gaps = run_with(tmp_path, cases, WIDE, AGAIN).uncovered
        assert [(gap.policy, gap.beside) for gap in gaps] == [
            ("wide", ("wide-again",)),
            ("wide-again", ("wide",)),
        ]

    def test_what_alone_lets_a_model_be_found_is_not_covered_by_a_read_that_another_rule_gives(
        self, tmp_path
    ):
        cases = OURS.replace('"umbrella"\naction', '"globex"\naction') + 'expect = "allow"\n'
        assert uncovered(run_with(tmp_path, cases, WIDE, READS)) == {"wide", "reads"}

    def test_a_forbid_where_nothing_permits_covers_nothing(self, tmp_path):
        cases = OURS.replace('"umbrella"\naction', '"globex"\naction').replace(
            "umbrella/x", "umbrella/held/x"
        )
        cases += 'expect = "deny"\nreason = "not-permitted"\npolicies = ["held"]\n'
        (gap,) = run_with(tmp_path, cases, HELD).uncovered
        assert (gap.policy, gap.effect, gap.beside) == ("held", "forbid", ())

    def test_a_forbid_against_a_right_is_covered(self, tmp_path):
        cases = OURS.replace("umbrella/x", "umbrella/held/x") + 'expect = "deny"\nreason = "not-permitted"\n'
        assert run_with(tmp_path, cases, HELD).has_passed

    def test_a_forbid_is_covered_against_a_permit_that_the_case_adds(self, tmp_path):
        cases = OURS.replace('"umbrella"\naction', '"globex"\naction').replace(
            "umbrella/x", "umbrella/held/x"
        )
        cases += 'expect = "deny"\nreason = "not-permitted"\n'
        cases += 'added_permits = "permit (principal, action, resource);"\n'
        assert run_with(tmp_path, cases, HELD).has_passed

    def test_a_permit_is_not_covered_by_what_the_case_adds_under_its_name(self, tmp_path):
        (gap,) = run_with(
            tmp_path,
            OURS.replace("umbrella/x", "other/x")
            + 'expect = "allow"\n'
            + """added_permits = '@id("wide") permit (principal, action, resource == Model::"other/x");'\n""",
            WIDE,
        ).uncovered
        assert gap.policy == "wide"

    def test_a_rule_that_hides_or_shows_what_is_refused_is_covered_by_the_reason(self, tmp_path):
        shows = """@id("shows") permit (principal is ApiKey, action == Action::"discover", resource in
ModelGroup::"pattern:umbrella/*");"""
        cases = OURS.replace('"umbrella"\naction', '"globex"\naction')
        assert run_with(tmp_path, f'{cases}expect = "deny"\nreason = "missing-action"\n', shows).has_passed

    @pytest.mark.parametrize("effect", ["permit", "forbid"])
    def test_a_rule_that_fails_is_not_covered_by_the_case_that_it_fails_in(self, tmp_path, effect):
        cases = OURS.replace('"read"', '"infer"') + 'expect = "deny"\nreason = "policy-error"\n'
        (gap,) = run_with(tmp_path, cases, FAILS.replace("EFFECT", effect)).uncovered
        assert gap.policy == "fails"

    def test_a_case_that_cedar_is_not_asked_about_covers_nothing(self, tmp_path):
        cases = '[[cases]]\nname = "n"\ntenant = "umbrella"\naction = "read"\nwhat = "catalogue"\n'
        cases += 'expect = "deny"\nreason = "missing-action"\n'
        report = run_cases(load_cases(write(tmp_path, cases)), SHIPPED, Rulebook())
        assert report.results[0].has_passed
        assert uncovered(report) == {rule.name for rule in Rulebook().rules(SHIPPED)}

    @pytest.mark.parametrize(
        "added",
        [
            "forbid (principal, action, resource);",
            "permit (principal, action, resource); forbid (principal, action, resource);",
            "permit (principal == ?principal, action, resource);",
            "permit (",
        ],
    )
    def test_a_case_adds_permits_and_nothing_else(self, tmp_path, added):
        with pytest.raises(Misconfigured, match=r"some\.toml.*added_permits"):
            load_cases(write(tmp_path, f'{OURS}expect = "allow"\nadded_permits = "{added}"\n'))

    def test_a_set_is_asked_at_most_twice_for_each_case(self, tmp_path):
        asked = []

        class Counting(Rulebook):
            def _ask(self, batch, shared, prepared):
                asked.append(len(batch))
                return super()._ask(batch, shared, prepared)

        many = "\n".join(
            f'@id("m{number}") permit (principal, action, resource == Model::"m/{number}");'
            for number in range(300)
        )
        report = run_cases(SHIPPED_FILES, with_rules(many), Counting())
        assert len(report.uncovered) == 300
        assert len(asked) <= 2 * len(report.results)


def test_a_case_that_a_rule_fails_on_names_the_rule_and_the_error(tmp_path):
    cases = OURS.replace('"read"', '"infer"') + 'expect = "allow"\n'
    report = run_cases(
        load_cases(write(tmp_path, cases)), with_rules(FAILS.replace("EFFECT", "forbid")), Rulebook()
    )
    (result,) = report.results
    assert not result.has_passed
    for said in ("policy-error", '"fails"', "more0.cedar", "overflow"):
        assert said in result.found


def test_no_case_at_all_is_no_pass():
    assert not run_cases((), SHIPPED, Rulebook()).has_passed


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        'cases = "none"',
        f'{ONE}expect = "maybe"\n',
        f'{ONE}expect = "deny"\n',
        f'{ONE}expect = "deny"\nreason = "because"\n',
        f'{ONE}expect = "allow"\nreason = "not-permitted"\n',
        f'{ONE}expect = "allow"\nunknown = 1\n',
        ONE.replace('"read"', '"write"') + 'expect = "allow"\n',
        ONE.replace("acme/x", "acme/../x") + 'expect = "allow"\n',
        ONE.replace('model = "acme/x"', 'what = "model"') + 'expect = "allow"\n',
        ONE.replace('own = ["acme/*"]', 'own = ["*"]') + 'expect = "allow"\n',
        ONE.replace('own = ["acme/*"]', 'owns = ["acme/*"]') + 'expect = "allow"\n',
    ],
)
def test_a_case_file_that_makes_no_sense_is_refused_with_its_name(tmp_path, text):
    with pytest.raises(Misconfigured, match=r"some\.toml"):
        load_cases(write(tmp_path, text))


@pytest.mark.parametrize(
    ("models", "grant"),
    [
        ('own = ["*"]', ""),
        ('own = ["a/*", "a/*"]', ""),
        ("own = 1", ""),
        ('owns = ["a/*"]', ""),
        ('public = ["a/*"]\nprivate = ["a/*"]', ""),
        ('aliases = {"a/b" = 1}', ""),
        ('aliases = {"a/b" = "a/../c"}', ""),
        ('groups = {"a b" = ["a/*"]}', ""),
        ("", 'models = ["a/*"]'),
        ("", 'models = ["a/*"]\nactions = ["write"]'),
        ("", 'actions = ["read"]'),
        ("", 'models = ["a/*"]\nactions = ["read"]\npackages = ["p-1"]'),
        ("", 'groups = ["a b"]\nactions = ["read"]'),
    ],
)
def test_a_case_file_and_a_tenant_document_refuse_the_same_words_for_the_same_cause(tmp_path, models, grant):
    document, cases = tmp_path / "documents", tmp_path / "cases"
    for folder in (document, cases):
        folder.mkdir()
    held = f"[[grants]]\n{grant}\n" if grant else ""
    (document / "acme.toml").write_text(f'[models]\n{models}\n{held}[tenant]\nid = "acme"\n')
    held = f'[[tenants.acme.grants]]\n{grant}\nid = "g"\n' if grant else ""
    write(cases, f"[tenants.acme]\n{models}\n{held}" + ONE.partition("\n\n")[2] + 'expect = "allow"\n')
    with pytest.raises(DocumentProblems) as of_document:
        load_tenant_documents(document)
    with pytest.raises(DocumentProblems) as of_cases:
        load_cases(cases)

    def told(error):
        keys = r"; expected own, .*"  # the tables differ in what else they hold
        return [
            (problem.where.rpartition(":")[2], re.sub(keys, "", problem.why))
            for problem in error.value.problems
        ]

    assert told(of_cases) == told(of_document) != []


def test_a_grant_of_a_case_file_has_an_id(tmp_path):
    cases = ONE.replace(
        "[[cases]]", '[[tenants.acme.grants]]\nmodels = ["a/*"]\nactions = ["read"]\n[[cases]]'
    )
    with pytest.raises(DocumentProblems, match=r"some\.toml:5: no id"):
        load_cases(write(tmp_path, cases + 'expect = "allow"\n'))


def test_cases_know_every_reason_of_a_denial():
    reasons = {case.reason for _, _, content in SHIPPED_FILES for case in content.cases}
    assert {Reason.NOT_PERMITTED, Reason.MISSING_ACTION, Reason.MISSING_SCOPE} <= reasons


def test_cases_that_others_could_have_written_are_refused_or_told(tmp_path):
    folder = write(tmp_path, f'{ONE}expect = "allow"\n')
    [file] = folder.glob("*.toml")
    file.chmod(0o666)
    with pytest.raises(Distrusted):
        load_cases(folder)
    told = []
    assert len(load_cases(folder, on_distrust=told.append)) == 1
    assert [one.culprit for one in told] == [str(file)]


class TestTime:
    """Cases about what begins and ends say when they are asked."""

    LENT = """
[tenants.acme]
own = ["acme/*"]
[[tenants.acme.published]]
models = ["acme/open"]
expires = 2030-01-01T00:00:00Z
[tenants.globex]
[[tenants.globex.grants]]
id = "lent"
models = ["acme/x"]
actions = ["read"]
not_before = 2029-01-01T00:00:00Z
expires = 2030-01-01T00:00:00Z
"""

    ASKED = '[[cases]]\nname = "c"\ntenant = "globex"\naction = "read"\n'

    @pytest.mark.parametrize(
        ("model", "at", "expected"),
        [
            ("acme/x", "2028-12-31T23:59:59Z", 'expect = "deny"\nreason = "grant-not-yet-valid"'),
            ("acme/x", "2029-01-01T00:00:00Z", 'expect = "allow"\ngrant = "lent"'),
            ("acme/x", "2030-01-01T00:00:00Z", 'expect = "deny"\nreason = "expired-grant"'),
            ("acme/open", "2029-12-31T23:59:59Z", 'expect = "allow"\ngrant = "public"'),
            ("acme/open", "2030-01-01T00:00:00Z", 'expect = "deny"\nreason = "expired-grant"'),
        ],
    )
    def test_the_answer_is_that_of_the_time(self, tmp_path, model, at, expected):
        case = f'{self.ASKED}model = "{model}"\nat = {at}\n{expected}\n'
        write(tmp_path, self.LENT + case)
        report = run_cases(load_cases(tmp_path), SHIPPED, Rulebook())
        assert [one.has_passed for one in report.results] == [True], report.results

    @pytest.mark.parametrize("at", ["", "at = 2029-06-01T00:00:00"])
    def test_a_case_without_a_time_or_without_its_zone_is_refused(self, tmp_path, at):
        case = f'{self.ASKED}model = "acme/x"\n{at}\nexpect = "allow"\n'
        write(tmp_path, self.LENT + case)
        with pytest.raises(Misconfigured, match="c"):
            load_cases(tmp_path)
