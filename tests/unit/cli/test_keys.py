"""Keys and grants on the command line: wrong arguments are a usage error."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from gateway.directory.edits.keys import create_key
from gateway.directory.edits.tenants import create_tenant
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import parse_tenant_id
from gateway.operations.session import open_session


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "rotate", "key_abcdefghijkl", "--overlap", "40d"),
        ("grants", "add", "--tenant", "acme"),
        ("grants", "remove", "--tenant", "acme", "--packages", "p1"),
    ],
)
def test_what_is_asked_for_wrongly_is_a_usage_error(command, arguments):
    assert command(*arguments)[0] == 2


def test_a_rotated_key_is_shown_as_it_is_stored(command_json):
    asked = (
        "--tenant",
        "initech",
        "--name",
        "short",
        "--scopes",
        "discover",
        "--expires",
        "2h",
        "--not-before",
        "1h",
    )
    _, old = command_json("keys", "create", *asked)
    status, new = command_json("keys", "rotate", old["key_id"])
    _, stored = command_json("keys", "show", new["key_id"])
    assert status == 0
    for name in ("expires_at", "not_before", "scopes", "name", "tenant"):
        assert new[name] == stored[name] == old[name]


@pytest.fixture
def keys_of_a_tenant(installed):
    """Keys of a tenant of their own, some made at the same moment; the oldest first, then by id."""

    async def work():
        async with open_session(installed.settings) as session:
            tenant, now = parse_tenant_id(f"t-{uuid.uuid4().hex[:8]}"), session.clock.now()
            made = []

            async def edit(changes):
                made.clear()
                await create_tenant(changes, tenant_id=tenant, name="", now=now)
                for age in (3, 1, 2, 1, 2, 1):
                    order = KeyOrder(now=now - age, kind=KeyKind.TENANT, tenant=tenant)
                    new = issue_key(order, environment="test", peppers=session.peppers)
                    await create_key(changes, key=new.key, digest=new.digest)
                    made.append((-age, new.key.key_id))

            await session.perform("test.keys", edit)
            return tenant, [key_id for _, key_id in sorted(made)]

    return asyncio.run(work())


def test_keys_are_listed_by_their_creation_and_then_by_id(command_json, keys_of_a_tenant):
    tenant, key_ids = keys_of_a_tenant
    assert [one["key_id"] for one in command_json("keys", "list", "--tenant", tenant)[1]] == key_ids
    everyones = [one["key_id"] for one in command_json("keys", "list")[1] if one["tenant"] == tenant]
    assert everyones == key_ids
    assert command_json("tenants", "show", tenant)[1]["keys"] == key_ids


def test_keys_are_listed_page_by_page_and_by_state(command_json, command, keys_of_a_tenant):
    tenant, key_ids = keys_of_a_tenant
    found, after = [], ()
    while True:
        _, page = command_json("keys", "list", "--tenant", tenant, "--limit", "4", *after)
        found += [one["key_id"] for one in page]
        if len(page) < 4:
            break
        after = ("--after", page[-1]["key_id"])
    assert found == key_ids
    command("keys", "disable", key_ids[1])
    command("keys", "revoke", key_ids[2])

    def listed(state):
        return [
            one["key_id"] for one in command_json("keys", "list", "--tenant", tenant, "--state", state)[1]
        ]

    assert (listed("disabled"), listed("revoked")) == ([key_ids[1]], [key_ids[2]])
    assert listed("live") == [key_ids[0], *key_ids[3:]]
    assert command("keys", "list", "--after", "key_zzzzzzzzzzzz")[0] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("revoke",),
        ("revoke", "key_abcdefghijkl", "--tenant", "acme"),
        ("revoke", "key_abcdefghijkl", "--dry-run"),
        ("revoke", "key_abcdefghijkl", "--reason", "x" * 201),
        ("revoke", "--found", "/nowhere/at/all"),
        ("change", "key_abcdefghijkl", "--networks", "10.0.0.0/8", "--any-network"),
        ("change", "key_abcdefghijkl", "--expires", "1d", "--no-expiry"),
        ("list", "--state", "unheard-of"),
        ("list", "--limit", "0"),
        ("report", "--soon", "tomorrow"),
    ],
)
def test_what_is_asked_of_keys_wrongly_is_a_usage_error(command, arguments):
    assert command("keys", *arguments)[0] == 2


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--name", "x" * 101), "name"),
        (("--scopes", "audit"), "scope"),
        (("--networks", "10.0.0.1/8"), "network"),
        (("--expires", "0s"), "end"),
        ((), "changed"),
    ],
)
def test_a_change_that_makes_no_sense_changes_nothing_and_says_what(command, command_json, options, names):
    _, key = command_json("keys", "create", "--tenant", "initech")
    before = command_json("keys", "show", key["key_id"])
    status, _, said = command("keys", "change", key["key_id"], *options)
    assert status in {1, 2}
    assert names in said
    assert command_json("keys", "show", key["key_id"]) == before


def test_an_admin_key_is_not_given_a_scope_of_content(command, command_json):
    _, key = command_json("keys", "create", "--admin")
    assert command("keys", "change", key["key_id"], "--scopes", "read")[0] == 2


@pytest.mark.parametrize(
    ("owner", "scopes"),
    [
        (("--role", "auditor"), ("keys:manage",)),
        (("--role", "tenant-admin", "--tenant", "initech"), ("read",)),
    ],
)
def test_a_key_with_a_role_is_given_the_scopes_of_its_role_alone(command, command_json, owner, scopes):
    _, key = command_json("keys", "create", *owner)
    assert command("keys", "change", key["key_id"], *(f"--scopes={one}" for one in scopes))[0] == 2
    assert command("keys", "change", key["key_id"], "--scopes", "audit:read", "--name", "n")[0] == 0
    assert command_json("keys", "show", key["key_id"])[1]["scopes"] == ["audit:read"]


def test_an_admin_key_may_ask_for_decisions(command_json):
    _, key = command_json("keys", "create", "--admin", "--scopes", "decisions:ask")
    assert key["scopes"] == ["decisions:ask"]


@pytest.fixture
def of_both(command, command_json):
    """A tenant whose name another had before, and a key of each."""
    name = f"twice{uuid.uuid4().hex[:8]}"

    def make():
        command("tenants", "create", name)
        return command_json("keys", "create", "--tenant", name)[1]

    former = make()
    assert command("tenants", "remove", name, "--yes")[0] == 0
    return name, former, make()


def test_a_tenant_has_no_key_of_another_that_had_its_name_before(command, command_json, of_both, tmp_path):
    name, former, own = of_both
    assert former["tenant_record"] != own["tenant_record"]
    listed = command_json("keys", "list", "--tenant", name)[1]
    assert [one["key_id"] for one in listed] == [own["key_id"]]
    after = command_json("keys", "list", "--tenant", name, "--after", former["key_id"])[1]
    assert [one["key_id"] for one in after] == [own["key_id"]]
    reported = command_json("keys", "report", "--tenant", name)[1]["keys"]["never-expiring"]
    assert [one["key_id"] for one in reported] == [own["key_id"]]
    for edit in (("enable",), ("disable",), ("change", "--name", "x"), ("rotate",), ("close",)):
        assert command("keys", edit[0], former["key_id"], *edit[1:])[0] == 1
    found = tmp_path / "found"
    found.write_text(former["token"] + "\n" + own["token"])
    said = command_json("keys", "revoke", "--found", str(found), "--dry-run")[1]["found"]
    assert [one["tenant_record"] for one in said] == [former["tenant_record"], own["tenant_record"]]
    revoked = command_json("keys", "revoke", "--tenant", name)[1]["revoked"]
    assert [(one["key_id"], one["is_changed"]) for one in revoked] == [(own["key_id"], True)]


def test_the_record_of_a_change_names_the_tenant_that_the_key_is_of(command, command_json, of_both, tmp_path):
    _, former, own = of_both
    found = tmp_path / "found"
    found.write_text(former["token"] + "\n" + own["token"])
    command("keys", "revoke", "--found", str(found))
    for key in (former, own):
        _, lines, _ = command("audit", "search", "--key-id", key["key_id"], "--json")
        changes = [one for one in map(json.loads, lines.splitlines()) if one.get("action") == "keys.revoke"]
        assert {one["tenant_record"] for one in changes} == {key["tenant_record"]}, changes
