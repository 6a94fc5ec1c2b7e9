"""`policy apply` applies what was shown and confirmed, and nothing else."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.directory.edits.tenants import create_tenant
from gateway.directory.records import names
from gateway.model.errors import Conflict
from gateway.operations.policy_folder import (
    MAX_RECORDED_CHARACTERS,
    MAX_RECORDED_RULES,
    apply_folder,
    load_folder,
    plan_folder,
)

DOCUMENT = '[tenant]\nid = "umbrella"\n\n[models]\nown = ["umbrella/*"]\n'


@pytest.fixture
def installation(installation_here):
    return installation_here


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(CHECKOUT_POLICIES, tmp_path / "policies")
    (tmp_path / "policies" / "tenants" / "umbrella.toml").write_text(DOCUMENT)
    return tmp_path / "policies"


def _subjects(installation):
    return [one["subject"] for one in installation.records() if one.get("action") == "policy.apply"]


def test_json_is_no_consent(installation, folder):
    done = installation.run("policy", "apply", str(folder), "--json", status=2)
    assert "--yes" in done.stderr
    assert not any("plan of" in str(subject) for subject in _subjects(installation))
    assert installation.json("policy", "apply", str(folder), "--dry-run")["applied"] is False
    assert installation.json("policy", "apply", str(folder), "--yes")["applied"] is True


def test_what_was_applied_is_in_the_record_whole_by_its_digest(installation, folder):
    owned = ", ".join(f'"umbrella/m{number}/*"' for number in range(80))
    (folder / "tenants" / "umbrella.toml").write_text(DOCUMENT.replace('"umbrella/*"', owned))
    lines = installation.json("policy", "apply", str(folder), "--yes")["changes"]
    subject = _subjects(installation)[-1]
    assert len(lines) > 80
    assert subject[1].startswith(f"plan of {len(lines)} lines, sha256 ")
    assert subject[2:] == lines[:50]


def test_a_plan_that_is_another_one_by_now_is_not_applied(installation, folder):
    read = load_folder(folder)

    async def work(session):
        now = session.clock.now()
        plan = await plan_folder(read, session.listing, now)

        async def somebody(changes):
            return await create_tenant(changes, tenant_id="umbrella", name="of somebody else", now=now)

        await session.perform("tenants.create", somebody)
        with pytest.raises(Conflict, match="nothing was applied"):
            await session.perform(
                "policy.apply", lambda changes: apply_folder(changes, read, now, confirmed=plan)
            )
        assert [one.name for one in await session.listing.list_tenants()] == ["of somebody else"]

    installation.in_session(work)
    assert [one["result"] for one in installation.records() if "result" in one][-1] == "conflict"


def test_a_policy_record_that_does_not_parse_is_mended_by_applying(installation, folder):

    async def spoil(session):
        async def plan(_snapshot, batch):
            batch.facts[names.POLICY] = b"\xff no record"

        await session.store.transact(plan)

    installation.in_session(spoil)
    assert installation.json("policy", "apply", str(folder), "--yes")["applied"] is True

    async def find(session):
        return await session.listing.find_policy()

    assert installation.in_session(find) is not None


@pytest.mark.parametrize(
    "name", ["keys.cedar", "schema.cedarschema", "tenants/umbrella.toml", "tests/pipe.toml"]
)
def test_a_pipe_in_the_folder_is_a_complaint_and_hangs_nothing(installation, folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    done = installation.run("policy", "check", str(folder), status=1)
    assert "regular file" in " ".join(done.stderr.split())


WIDE = """
@id("wide")
permit (principal is ApiKey, action, resource in ModelGroup::"pattern:umbrella/*");
"""
CASE = """
[tenants.umbrella]
own = ["umbrella/*"]

[[cases]]
name = "its owner reads it"
tenant = "umbrella"
action = "read"
model = "umbrella/x"
expect = "allow"
"""


def _write_wide(folder, case=CASE):
    (folder / "wide.cedar").write_text(WIDE)
    (folder / "tests" / "wide.toml").write_text(case)


def test_a_rule_that_its_case_passes_without_is_refused_with_its_place(installation, folder):
    _write_wide(folder)
    checked = json.loads(installation.run("policy", "check", str(folder), "--json", status=1).stdout)
    assert checked["uncovered"] == ["wide"]
    assert checked["gaps"][0].startswith('policies/wide.cedar:2: the rule "wide"')
    assert all(case["passed"] for case in checked["cases"])
    installation.run("policy", "test", str(folder), status=1)
    done = installation.run("policy", "apply", str(folder), "--yes", status=2)
    assert 'wide.cedar:2: the rule "wide"' in done.stderr
    _write_wide(folder, CASE.replace('"umbrella"\naction', '"acme"\naction'))
    assert installation.json("policy", "check", str(folder))["passed"] is True


def test_rules_without_any_case_do_not_pass(installation, folder):
    for one in (folder / "tests").iterdir():
        one.unlink()
    for status_of_apply in (2, 0):
        checked = json.loads(installation.run("policy", "check", str(folder), "--json", status=1).stdout)
        assert checked["passed"] is False
        assert "owner-uses-its-models" in checked["uncovered"]
        assert [gap.partition(":")[0] for gap in checked["gaps"]] == ["policies/tests"]
        installation.run("policy", "test", str(folder), status=1)
        installation.run("policy", "apply", str(folder), "--yes", status=status_of_apply)
        # A node that is given the rules alone can still apply them, and is told.
        shutil.rmtree(folder / "tests", ignore_errors=True)


HOLD = '@id("hold") forbid (principal, action, resource in ModelGroup::"pattern:umbrella/held/*");\n'


def _write_hold(folder, text=HOLD):
    (folder / "hold.cedar").write_text(text)
    (folder / "tests" / "hold.toml").write_text(
        CASE.replace('expect = "allow"', 'expect = "deny"\nreason = "not-permitted"').replace("/x", "/held/x")
    )


def test_the_rules_that_change_are_named_in_the_plan_and_in_the_record(installation, folder):
    installation.run("policy", "apply", str(folder), "--yes")
    _write_hold(folder)
    placed = {"id": "hold", "effect": "forbid", "file": "hold.cedar", "line": 1}
    shown = json.loads(installation.run("policy", "diff", str(folder), "--json", status=1).stdout)
    assert shown["rules"] == {
        "new": [placed],
        "gone": [],
        "changed": [],
        "schema_changed": False,
        "compared": True,
    }
    assert "+ rule hold: forbid, hold.cedar:1" in shown["changes"]
    done = installation.run("policy", "diff", str(folder), status=1)
    assert "+ rule hold: forbid, hold.cedar:1" in done.stderr.splitlines()
    assert installation.json("policy", "apply", str(folder), "--yes")["rules"]["new"] == [placed]
    assert "+ rule hold: forbid, hold.cedar:1" in _subjects(installation)[-1]

    _write_hold(folder, "// narrower\n" + HOLD.replace("held/*", "held/x"))
    applied = installation.json("policy", "apply", str(folder), "--yes")
    assert applied["rules"]["changed"] == [{**placed, "line": 2, "was": placed}]
    line = "~ rule hold: forbid, hold.cedar:2 (was forbid, hold.cedar:1)"
    assert line in applied["changes"]
    assert line in _subjects(installation)[-1]

    (folder / "hold.cedar").unlink()
    (folder / "tests" / "hold.toml").unlink()
    schema = folder / "schema.cedarschema"
    schema.write_text(schema.read_text() + "type Unused = Long;\n")
    applied = installation.json("policy", "apply", str(folder), "--yes")
    assert applied["rules"]["gone"] == [{**placed, "line": 2}]
    assert applied["rules"]["schema_changed"] is True
    assert "- rule hold: was forbid, hold.cedar:2" in _subjects(installation)[-1]
    assert any(said.startswith("rules: ") and "schema" in said for said in _subjects(installation)[-1])
    assert installation.json("policy", "apply", str(folder), "--yes")["rules"] is None


def test_a_record_of_very_many_rules_stays_small(installation, folder):
    number = MAX_RECORDED_RULES * 10
    names = [f"{one:03}{'x' * 120}" for one in range(number)]
    (folder / "many.cedar").write_text("".join(HOLD.replace("hold", name, 1) for name in names))
    shutil.rmtree(folder / "tests")
    applied = installation.json("policy", "apply", str(folder), "--yes")
    assert len(applied["rules"]["new"]) == number
    subject = _subjects(installation)[-1]
    named = [line for line in subject if line.startswith("+ rule ")]
    assert len(named) == MAX_RECORDED_RULES
    assert f"{number - MAX_RECORDED_RULES} more rules" in subject
    assert max(map(len, subject)) <= MAX_RECORDED_CHARACTERS
    # The changes of the documents have a limit of their own.
    assert "+ tenant umbrella: umbrella" in subject


def test_the_first_application_names_its_rules(installation):
    assert "+ rule grant-gives-read: permit, grants.cedar:19" in _subjects(installation)[0]


ISSUER = """\
[issuer]
url = "https://ci.example"
audience = "https://models.example"
jwks = "https://ci.example/keys"
algorithms = ["RS256"]

[[rules]]
name = "main"
tenant = "umbrella"
scopes = ["read"]
[rules.claims]
repository = "umbrella/vision"
ref = ["refs/heads/main", "refs/tags/*"]
"""
TOKENS = """
[[tokens]]
name = "the main branch reads"
issuer = "ci"
claims = { sub = "repo:umbrella/vision", repository = "umbrella/vision", ref = "refs/heads/main" }
tenant = "umbrella"
rule = "main"
scopes = ["read"]

[[tokens]]
name = "another branch is nobody"
issuer = "ci"
claims = { repository = "umbrella/vision", ref = "refs/heads/other" }
refused = "unmapped-token"
"""


@pytest.fixture
def with_issuer(folder):
    (folder / "issuers" / "ci.toml").write_text(ISSUER)
    return folder


def test_an_issuer_is_shown_applied_and_taken_back(installation, with_issuer):
    changes = installation.json("policy", "diff", str(with_issuer), status=1)["changes"]
    assert (
        "+ issuer ci: https://ci.example for https://models.example, keys at https://ci.example/keys"
        in str(changes)
    )
    rule = (
        "+ issuer ci, rule main: ref refs/heads/main or refs/tags/*, repository umbrella/vision: "
        "tenant umbrella, read"
    )
    assert rule in changes
    installation.run("policy", "apply", str(with_issuer), "--yes")
    installation.run("policy", "diff", str(with_issuer))
    (with_issuer / "issuers" / "ci.toml").write_text(ISSUER.replace('["read"]', '["infer"]'))
    [line] = installation.json("policy", "diff", str(with_issuer), status=1)["changes"]
    assert line.startswith("~ issuer ci, rule main: ")
    assert "tenant umbrella, infer (was " in line
    (with_issuer / "issuers" / "ci.toml").unlink()
    assert installation.json("policy", "apply", str(with_issuer), "--yes")["changes"] == [
        "- issuer ci: https://ci.example"
    ]


def test_a_mistake_in_an_issuer_is_told_with_its_line_beside_all_others(installation, with_issuer):
    text = ISSUER.replace('audience = "https://models.example"\n', "").replace('"umbrella/vision"', '"*"')
    (with_issuer / "issuers" / "ci.toml").write_text(text)
    (with_issuer / "tenants" / "umbrella.toml").write_text(DOCUMENT.replace("own", "owns"))
    said = installation.json("policy", "check", str(with_issuer), status=1)["problems"]
    assert [one.partition(": ")[0].rpartition("/")[2] for one in said] == [
        *("umbrella.toml:5", "ci.toml:1", "ci.toml:11"),
    ]
    assert (
        installation.run("policy", "apply", str(with_issuer), "--yes", status=2).stderr.count("ci.toml") == 2
    )


def test_plain_http_needs_the_setting(installation, with_issuer):
    (with_issuer / "issuers" / "ci.toml").write_text(ISSUER.replace("https://ci", "http://ci"))
    installation.run("policy", "check", str(with_issuer), status=1)
    installation.environment["CACHEGATE_PRIVATE_ISSUERS"] = "on"
    installation.run("policy", "check", str(with_issuer))


def test_cases_of_tokens_go_by_the_mapping(installation, with_issuer):
    (with_issuer / "tests" / "tokens.toml").write_text(TOKENS)
    cases = installation.json("policy", "test", str(with_issuer))["cases"]
    assert [one["found"] for one in cases if one["file"] == "tokens.toml"] == [
        "tenant umbrella by main with read",
        "refused unmapped-token",
    ]
    (with_issuer / "tests" / "tokens.toml").write_text(
        TOKENS.replace('"umbrella"\nrule', '"globex"\nrule').replace("unmapped-token", "ambiguous-token")
    )
    cases = installation.json("policy", "test", str(with_issuer), status=1)["cases"]
    failed = [(one["line"], one["expected"], one["found"]) for one in cases if not one["passed"]]
    assert failed == [
        (2, "tenant globex by main with read", "tenant umbrella by main with read"),
        (10, "refused ambiguous-token", "refused unmapped-token"),
    ]
    installation.run("policy", "apply", str(with_issuer), "--yes", status=2)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ('tenant = "umbrella"\nrule = "main"\nscopes = ["read"]\n', ""),
        ('refused = "unmapped-token"', 'refused = "expired-token"'),
        ('refused = "unmapped-token"', 'refused = "unmapped-token"\nrule = "main"'),
        ('refused = "unmapped-token"', 'refused = "unmapped-token"\ntenant = "umbrella"'),
        ('issuer = "ci"\n', ""),
        ("claims = { repository", "token = { repository"),
    ],
)
def test_an_expectation_that_no_token_can_meet_is_a_problem(installation, with_issuer, was, now):
    (with_issuer / "tests" / "tokens.toml").write_text(TOKENS.replace(was, now))
    [problem] = installation.json("policy", "check", str(with_issuer), status=1)["problems"]
    assert "tokens.toml" in problem


def test_a_case_of_an_issuer_that_is_not_there_fails(installation, with_issuer):
    (with_issuer / "tests" / "tokens.toml").write_text(TOKENS.replace('issuer = "ci"', 'issuer = "cd"'))
    cases = installation.json("policy", "test", str(with_issuer), status=1)["cases"]
    assert {one["found"] for one in cases if not one["passed"]} == {"there is no issuers/cd.toml"}
