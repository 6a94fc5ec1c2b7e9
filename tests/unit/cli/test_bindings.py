"""Bindings on the command line: listed, shown, revoked and forgotten, as keys are."""

from __future__ import annotations

import pytest

from gateway.directory.documents.issuers import load_issuer_documents
from gateway.directory.edits.bindings import make_binding
from gateway.model.issuers import Binding
from gateway.model.names import BindingId

DOCUMENT = """\
[issuer]
url = "https://ci.example"
audience = "https://models.example"
jwks = "https://ci.example/keys"
algorithms = ["RS256"]

[[rules]]
name = "main"
tenant = "acme"
scopes = ["read"]
networks = ["10.0.0.0/8"]
[rules.claims]
ref = "main"

[[rules]]
name = "tags"
tenant = "acme"
scopes = ["infer"]
networks = ["192.0.2.0/24"]
[rules.claims]
ref = "refs/tags/*"
"""
FIRST, SECOND = "bnd_000000000001", "bnd_000000000002"


@pytest.fixture
def installation(installation_here, tmp_path):
    installation_here.run("tenants", "create", "acme")
    (tmp_path / "ci.toml").write_text(DOCUMENT)
    [document] = load_issuer_documents(tmp_path)
    issuer = document.issuer

    async def work(session):
        await session.perform("policy.apply", lambda changes: changes.put_issuer(issuer))
        for number, subject, rules in ((1, "repo:a", issuer.rules), (2, "repo:b", issuer.rules[:1])):
            for rule in rules:
                new = Binding(
                    binding_id=BindingId(f"bnd_{number:012d}"),
                    url=issuer.url,
                    subject=subject,
                    tenant=rule.tenant,
                    rules=(rule.name,),
                    created_at=float(number),
                )
                await session.perform(
                    "bindings.make",
                    lambda changes, rule=rule, new=new: make_binding(
                        changes, issuer=issuer, rule=rule, new=new
                    ),
                )

    installation_here.in_session(work)
    return installation_here


def test_bindings_are_listed_with_what_the_rules_in_force_give(installation):
    first, second = installation.json("bindings", "list")
    assert (first["binding_id"], first["issuer"], first["subject"]) == (FIRST, "ci", "repo:a")
    assert (first["tenant"], first["state"], first["rules"]) == ("acme", "live", ["main", "tags"])
    assert (first["scopes"], first["networks"]) == (["infer", "read"], ["10.0.0.0/8", "192.0.2.0/24"])
    assert (second["binding_id"], second["scopes"]) == (SECOND, ["read"])
    assert second["first_seen_at"] == "1970-01-01T00:00:02Z"
    assert installation.json("bindings", "list", "--issuer", "ci", "--tenant", "acme") == [first, second]
    said = installation.run("bindings", "list").stdout
    assert "repo:a" in said
    assert SECOND in said


def test_names_that_are_not_there_are_named(installation):
    assert "the nearest is acme" in installation.run("bindings", "list", "--tenant", "acm", status=1).stderr
    assert "the nearest is ci" in installation.run("bindings", "list", "--issuer", "c", status=1).stderr
    nearest = installation.run("bindings", "revoke", "bnd_000000000009", status=1).stderr
    assert "the nearest is bnd_00000000000" in nearest
    assert installation.run("bindings", "show", "key_000000000001", status=2).stderr


def test_a_revoked_binding_stays_listed_and_is_recorded(installation):
    said = installation.json("bindings", "revoke", FIRST)
    assert (said["binding_id"], said["changed"], said["sure"]) == (FIRST, True, True)
    assert installation.json("bindings", "revoke", FIRST)["changed"] is False
    shown = installation.json("bindings", "show", FIRST)
    assert shown["state"] == "revoked"
    assert shown["revoked_at"]
    [record, _again] = [one for one in installation.records() if one.get("action") == "bindings.revoke"]
    assert record["key_id"] == FIRST


def test_a_forgotten_binding_is_gone(installation):
    installation.run("bindings", "forget", FIRST)
    assert [one["binding_id"] for one in installation.json("bindings", "list")] == [SECOND]


def test_a_binding_whose_rule_is_gone_is_unmapped(installation):
    async def work(session):
        await session.perform("policy.apply", lambda changes: changes.delete_issuer("https://ci.example"))

    installation.in_session(work)
    assert {(one["issuer"], one["state"]) for one in installation.json("bindings", "list")} == {
        ("-", "unmapped")
    }
    assert installation.json("bindings", "show", FIRST)["rules_gone"] == ["main", "tags"]


def test_no_binding_is_said_so(installation_here):
    assert "No binding yet" in installation_here.run("bindings", "list").stderr
