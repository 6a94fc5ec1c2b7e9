from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.decision import Rulebook
from gateway.decision.cases import load_cases, run_cases
from gateway.decision.policyset import load_policy_folder
from gateway.model.errors import Misconfigured, Reason
from gateway.model.trusted_files import Distrusted

ROOT = Path(__file__).parents[3]
SHIPPED_FILES = load_cases(ROOT / "policies" / "tests")
OUR_FILES = load_cases(ROOT / "tests" / "cases" / "decisions")
SHIPPED = load_policy_folder(ROOT / "policies")
RESULTS = run_cases((*SHIPPED_FILES, *OUR_FILES), SHIPPED, Rulebook()).results


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
    assert "grant-gives-read" in report.uncovered
    assert "owner-uses-its-models" not in report.uncovered
    assert not report.has_passed


def test_a_failing_case_covers_nothing_and_says_what_was_found(tmp_path):
    files = load_cases(write(tmp_path, f'{ONE}expect = "deny"\nreason = "not-permitted"\n'))
    report = run_cases(files, SHIPPED, Rulebook())
    (result,) = report.results
    assert (result.has_passed, result.found, result.line) == (False, "allow", 5)
    assert "owner-uses-its-models" in report.uncovered


@pytest.mark.parametrize(
    "expectation",
    ['expect = "allow"\npolicies = ["other"]', 'expect = "allow"\ngrant = "public"'],
)
def test_an_allow_for_another_ground_fails_the_case(tmp_path, expectation):
    report = run_cases(load_cases(write(tmp_path, f"{ONE}{expectation}\n")), SHIPPED, Rulebook())
    assert not report.results[0].has_passed


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
