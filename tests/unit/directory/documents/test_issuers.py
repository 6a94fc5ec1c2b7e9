from __future__ import annotations

from pathlib import Path

import pytest

from gateway.directory.documents.issuers import load_issuer_documents
from gateway.model.issuers import MAX_BINDINGS, MAX_ISSUERS
from gateway.model.toml_tables import DocumentProblems

EXAMPLE = Path(__file__).parents[4] / "policies" / "issuers" / "example.toml"

HEAD = """\
[issuer]
url = "https://ci.example"
audience = "https://models.example"
jwks = "https://ci.example/keys"
algorithms = ["RS256", "EdDSA"]
"""
RULE = """
[[rules]]
name = "main"
tenant = "acme"
scopes = ["read", "infer"]
networks = ["10.0.0.0/8"]
[rules.claims]
repository = "acme/vision"
ref = ["refs/heads/main", "refs/tags/*"]
"""
CI = HEAD + RULE


def load(folder, *, may_be_private=False, **texts):
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return [document.issuer for document in load_issuer_documents(folder, may_be_private=may_be_private)]


def problems(folder, text, **more):
    with pytest.raises(DocumentProblems) as caught:
        load(folder, ci=text, **more)
    return [(one.where.rpartition("/")[2], one.why) for one in caught.value.problems]


def test_a_document_says_what_is_written_in_it(tmp_path):
    (ci,) = load(tmp_path, ci=CI)
    assert (ci.name, ci.url, ci.audience) == ("ci", "https://ci.example", "https://models.example")
    assert (ci.key_set_url, ci.algorithms, ci.types) == (
        "https://ci.example/keys",
        ("RS256", "EdDSA"),
        ("jwt",),
    )
    assert (ci.leeway_seconds, ci.max_lifetime_seconds, ci.max_bindings) == (30, 3600, 1000)
    (rule,) = ci.rules
    assert (rule.name, rule.tenant, rule.scopes) == ("main", "acme", {"read", "infer"})
    assert rule.networks == ("10.0.0.0/8",)
    assert {one.claim: one.values for one in rule.claims} == {
        "repository": ("acme/vision",),
        "ref": ("refs/heads/main", "refs/tags/*"),
    }


def test_without_the_folder_there_is_no_issuer(tmp_path):
    assert load_issuer_documents(tmp_path / "issuers") == ()


def test_the_example_is_a_document_once_its_comments_are_taken_off(tmp_path):
    assert load(tmp_path, example=EXAMPLE.read_text()) == []
    lines = [line.removeprefix("# ") for line in EXAMPLE.read_text().splitlines()]
    taken = "\n".join(line for line in lines if line.startswith("[") or " = " in line)
    (github,) = load(tmp_path, example=taken)
    assert [rule.tenant for rule in github.rules] == ["acme"]


def test_a_type_is_read_as_it_is_compared(tmp_path):
    (ci,) = load(tmp_path, ci=HEAD + 'types = ["application/at+JWT", ""]\n' + RULE)
    assert ci.types == ("at+jwt", "")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (CI.replace('audience = "https://models.example"\n', ""), 1, "no audience"),
        (CI.replace('"https://models.example"', '""'), 3, "no audience"),
        (CI.replace('jwks = "https://ci.example/keys"\n', ""), 1, "no jwks"),
        (CI.replace("https://ci.example/keys", "http://ci.example/keys"), 4, "plain http"),
        (CI.replace('"https://ci.example"', '"http://ci.example"'), 2, "plain http"),
        (CI.replace("https://ci.example/keys", "https://user:secret@ci.example/keys"), 4, "https URL"),
        (CI.replace("https://ci.example/keys", "file:///etc/keys"), 4, "https URL"),
        (CI.replace("https://ci.example/keys", "https://ci.example:port/keys"), 4, "https URL"),
        (CI.replace('algorithms = ["RS256", "EdDSA"]\n', ""), 1, "no algorithms"),
        (CI.replace('"RS256"', '"HS256"'), 5, "not an algorithm"),
        (CI.replace('"RS256"', '"none"'), 5, "not an algorithm"),
        (CI.replace('"EdDSA"', '"Ed25519"'), 5, "expected EdDSA"),
        (HEAD + "types = []\n" + RULE, 6, "no types"),
        (HEAD + "leeway_seconds = 121\n" + RULE, 6, "from 0 to 120"),
        (HEAD + "leeway_seconds = -1\n" + RULE, 6, "from 0 to 120"),
        (HEAD + "leeway_seconds = nan\n" + RULE, 6, "from 0 to 120"),
        (HEAD + "max_lifetime_seconds = 86401\n" + RULE, 6, "from 0 to 86400"),
        (HEAD + "max_lifetime_seconds = 0\n" + RULE, 6, "is 0"),
        (HEAD + f"max_bindings = {MAX_BINDINGS + 1}\n" + RULE, 6, "whole number"),
        (HEAD + "max_bindings = true\n" + RULE, 6, "whole number"),
        (HEAD + "discovery = true\n" + RULE, 6, "unknown key"),
        (HEAD, 1, "no [[rules]]"),
        (CI.replace('name = "main"\n', ""), 7, "not a group name"),
        (CI.replace('tenant = "acme"\n', ""), 7, "not a tenant id"),
        (CI.replace('scopes = ["read", "infer"]\n', ""), 7, "no scopes"),
        (CI.replace('"infer"', '"keys:manage"'), 10, "not a scope that a binding has"),
        (CI.replace('"infer"', '"audit:read"'), 10, "not a scope that a binding has"),
        (CI.replace("10.0.0.0/8", "10.0.0.1/8"), 11, "not a network"),
        (CI.replace("10.0.0.0/8", "::ffff:10.0.0.0/104"), 11, "expected IPv4"),
        (CI.partition("[rules.claims]")[0], 7, "without claims"),
        (CI.replace('"acme/vision"', '"*"'), 13, "a star stands last"),
        (CI.replace('"acme/vision"', '"acme*"'), 13, "a star stands last"),
        (CI.replace('"acme/vision"', '"*/vision"'), 13, "a star stands last"),
        (CI.replace('"acme/vision"', '"/*"'), 13, "a star stands last"),
        (CI.replace('"acme/vision"', '"acme/**"'), 13, "a star stands last"),
        (CI.replace('"acme/vision"', '""'), 13, "a text"),
        (CI.replace('"acme/vision"', "[]"), 13, "has 0 values"),
        (CI.replace('"acme/vision"', "true"), 13, "expected a list"),
        (CI.replace("repository =", "aud ="), 13, "about the token itself"),
        (CI + RULE, 17, "again"),
    ],
)
def test_each_mistake_is_a_problem_with_its_line(tmp_path, text, line, said):
    found = problems(tmp_path, text)
    assert any(where == f"ci.toml:{line}" and said in why for where, why in found), found


def test_all_problems_are_told_at_once(tmp_path):
    text = CI.replace('audience = "https://models.example"\n', "").replace('"acme/vision"', '"*"')
    assert len(problems(tmp_path, text)) == 2


def test_a_rule_of_an_issuer_for_everybody_says_whose_tokens_it_means(tmp_path):
    github = CI.replace("https://ci.example/", "https://keys.example/").replace(
        "https://ci.example", "https://token.actions.githubusercontent.com"
    )
    assert load(tmp_path, ci=github)
    [(where, why)] = problems(tmp_path, github.replace('repository = "acme/vision"\n', ""))
    assert where == "ci.toml:12"
    assert "signs for everybody" in why


@pytest.mark.parametrize(
    ("sub", "is_somebody"),
    [
        ('"repo:*"', False),
        ('"project_path:*"', False),
        ('["repo:acme/vision:ref:refs/heads/main", "repo:*"]', False),
        ('"repo:acme/*"', True),
        ('"repo:acme/vision:*"', True),
        ('"repository_owner:acme:*"', True),
        ('"repo:acme/vision:environment:production"', True),
    ],
)
def test_a_subject_that_is_every_repository_names_nobody(tmp_path, sub, is_somebody):
    github = CI.replace("https://ci.example", "https://token.actions.githubusercontent.com")
    github = github.replace('repository = "acme/vision"', f"sub = {sub}")
    if is_somebody:
        assert load(tmp_path, ci=github)
    else:
        [(_, why)] = problems(tmp_path, github)
        assert "signs for everybody" in why


def test_plain_http_is_permitted_in_the_operators_own_network(tmp_path):
    assert load(tmp_path, ci=CI.replace("https://ci.example", "http://ci.example"), may_be_private=True)


def test_two_documents_about_one_issuer_are_a_problem(tmp_path):
    with pytest.raises(DocumentProblems, match="one document per issuer"):
        load(tmp_path, ci=CI, again=CI)


def test_the_number_of_issuers_is_bounded(tmp_path):
    texts = {f"ci{n}": CI.replace("https://ci.example", f"https://ci{n}.example") for n in range(MAX_ISSUERS)}
    assert len(load(tmp_path, **texts)) == MAX_ISSUERS
    with pytest.raises(DocumentProblems, match="at most"):
        load(tmp_path, more=CI)
