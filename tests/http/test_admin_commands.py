"""Commands through a running gateway: the same outputs, from a machine that has neither state nor Redis."""

from __future__ import annotations

import pytest

from gateway.cli.local_commands import WHY_LOCAL
from tests.conftest import Installation


@pytest.fixture(scope="module")
def served(new_installation):
    installation = new_installation("commands", CACHEGATE_CANARY_SECONDS="0")
    gateway = installation.serve()
    try:
        yield installation, gateway
    finally:
        gateway.stop()


@pytest.fixture
def far(served, tmp_path):
    """Somebody with the URL and a key, and with nothing else."""
    installation, gateway = served
    environment = {
        "CACHEGATE_URL": f"http://127.0.0.1:{gateway.admin.port}",
        "CACHEGATE_ADMIN_KEY": installation.admin_key,
    }
    return Installation(tmp_path, environment, runs_here=True)


def test_an_operator_makes_tenants_keys_and_grants_from_afar(served, far):
    installation, gateway = served
    assert far.json("tenants", "create", "acme")["tenant"] == "acme"
    made = far.json("keys", "create", "--tenant", "acme", "--name", "ci", "--expires", "30d")
    assert gateway.wire.get("/v1/whoami", made["token"]).json()["key_id"] == made["key_id"]
    successor = far.json("keys", "rotate", made["key_id"], "--overlap", "1h")
    assert successor["replaces"] == made["key_id"]
    revoked = far.json("keys", "revoke", made["key_id"])
    assert {"key_id", "generation", "workers", "milliseconds"} <= revoked.keys()
    assert gateway.wire.get("/v1/whoami", made["token"]).status == 401
    far.run("grants", "add", "--tenant", "acme", "--models", "globex/*", "--models", "shared/1")
    far.run("tenants", "suspend", "acme")
    assert gateway.wire.get("/v1/whoami", successor["token"]).status == 401
    far.run("tenants", "resume", "acme")
    for command in (
        ("tenants", "list"),
        ("keys", "list"),
        ("keys", "list", "--tenant", "acme"),
        ("grants", "list"),
    ):
        here, there = installation.json(*command), far.json(*command)
        for one in (*here, *there):
            one.pop("pepper", None)  # the gateway does not tell it
            one.pop("last_used_at", None)
        by_text = [sorted(map(str, listed)) for listed in (here, there)]
        assert by_text[0] == by_text[1]


def test_the_key_alone_is_on_standard_output(far):
    far.run("tenants", "create", "piped")
    done = far.run("keys", "create", "--tenant", "piped")
    assert done.stdout.startswith("cg_live_")
    assert len(done.stdout.split()) == 1


def test_what_the_gateway_refuses_is_said_as_a_command_says_it(far):
    assert "there is no tenant nobody" in far.run("keys", "create", "--tenant", "nobody", status=1).stderr
    far.run("keys", "show", "key_000000000000", status=1)
    far.environment["CACHEGATE_ADMIN_KEY"] = "cg_live_" + "0" * 30
    assert "CACHEGATE_ADMIN_KEY" in far.run("keys", "list", status=2).stderr


def test_a_gateway_that_is_not_there_is_a_dependency_that_is_not_there(far):
    far.environment["CACHEGATE_URL"] = "http://127.0.0.1:9"
    done = far.run("keys", "list", status=3)
    assert far.environment["CACHEGATE_ADMIN_KEY"] not in done.stdout + done.stderr


def test_one_of_the_two_alone_stops_a_command(far):
    del far.environment["CACHEGATE_ADMIN_KEY"]
    assert "CACHEGATE_ADMIN_KEY" in far.run("keys", "list", status=2).stderr


def test_a_command_that_stays_local_says_so(served):
    installation, gateway = served
    beside = Installation(
        installation.folder,
        {
            **installation.environment,
            "CACHEGATE_URL": f"http://127.0.0.1:{gateway.admin.port}",
            "CACHEGATE_ADMIN_KEY": installation.admin_key,
        },
    )
    said = {
        command: " ".join(beside.run(*command).stderr.split())
        for command in (("tokens", "keys"), ("cache", "status"), ("directory", "show"))
    }
    for (group, name), text in said.items():
        assert "whatever CACHEGATE_URL says" in text
        assert WHY_LOCAL.get(f"{group} {name}", WHY_LOCAL.get(group)) in text
    assert len(set(said.values())) == len(said)


def test_keys_have_their_whole_life_from_afar(served, far, tmp_path):
    installation, gateway = served
    far.run("tenants", "create", "living")

    def made(*more):
        return far.json("keys", "create", "--tenant", "living", *more)

    def status(key):
        return gateway.wire.get("/v1/whoami", key["token"]).status

    first = made("--expires", "30d")
    for verb, expected in (("disable", 401), ("enable", 200)):
        assert far.json("keys", verb, first["key_id"])["changed"]
        assert status(first) == expected
    far.run("keys", "change", first["key_id"], "--name", "renamed", "--scopes", "read", "--no-expiry")
    shown = far.json("keys", "show", first["key_id"])
    assert (shown["name"], shown["scopes"], shown["expires_at"]) == ("renamed", ["read"], None)
    assert "--name" in far.run("keys", "change", first["key_id"], status=2).stderr
    successor = far.json("keys", "rotate", first["key_id"], "--overlap", "1h")
    assert successor["old_ends_at"] == far.json("keys", "show", first["key_id"])["expires_at"]
    far.run("keys", "close", successor["key_id"])
    assert (status(first), status(successor)) == (401, 200)
    decoy = made("--decoy")
    assert status(decoy) == 401
    for state in ("decoy", "revoked", "live"):
        for command in (("--state", state), ("--state", state, "--tenant", "living")):
            here, there = (at.json("keys", "list", *command) for at in (installation, far))
            assert {one["key_id"] for one in here} == {one["key_id"] for one in there}
    whole = [one["key_id"] for one in far.json("keys", "list", "--tenant", "living")]
    page = far.json("keys", "list", "--tenant", "living", "--limit", "1", "--after", whole[0])
    assert [one["key_id"] for one in page] == whole[1:2]
    report = far.json("keys", "report", "--tenant", "living")
    assert [one["key_id"] for one in report["keys"]["never-expiring"]] == [successor["key_id"]]
    reason = far.json("keys", "revoke", successor["key_id"], "--reason", "in a log")
    assert reason["changed"]
    assert far.json("keys", "show", successor["key_id"])["revoked_for"] == "in a log"
    leaked, others = made(), [made() for _ in range(2)]
    found = tmp_path / "found"
    found.write_text("\n".join([*(f"nobody-knows-{number:08}" for number in range(250)), leaked["token"]]))
    dry = far.json("keys", "revoke", "--found", str(found), "--dry-run")
    assert (dry["revoked"], status(leaked)) == ([], 200)
    done = far.json("keys", "revoke", "--found", str(found))
    assert [one["key_id"] for one in done["revoked"]] == [leaked["key_id"]]
    assert done["found"][-1] == {
        "place": 251,
        "kind": "ours",
        "key_id": leaked["key_id"],
        "tenant": "living",
        "tenant_record": far.json("keys", "show", leaked["key_id"])["tenant_record"],
    }
    assert status(leaked) == 401
    far.run("keys", "revoke", "--tenant", "living", "--reason", "over")
    assert [status(one) for one in others] == [401, 401]


def test_a_tenant_is_shown_removed_and_restored_from_afar(served, far):
    installation, gateway = served
    far.run("tenants", "create", "passing")
    key = far.json("keys", "create", "--tenant", "passing")
    installation.run("models", "own", "passing", "passing/*")
    far.run("grants", "add", "--tenant", "passing", "--models", "shared/9")
    assert far.json("tenants", "show", "passing") == installation.json("tenants", "show", "passing")
    command = ("tenants", "remove", "passing", "--dry-run")
    assert far.json(*command) == installation.json(*command)
    far.run("tenants", "remove", "passing", status=1)  # nobody said yes
    assert gateway.wire.get("/v1/whoami", key["token"]).status == 200
    removed = far.json("tenants", "remove", "passing", "--yes")
    assert (removed["keys"], removed["sure"]) == (1, True)
    assert gateway.wire.get("/v1/whoami", key["token"]).status == 401
    assert far.json("tenants", "removed") == installation.json("tenants", "removed")
    assert far.json("tenants", "restore", "passing")["left"] == []
    assert far.json("tenants", "show", "passing")["owns"] == ["passing/*"]
