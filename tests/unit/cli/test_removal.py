from __future__ import annotations

import uuid

import pytest


@pytest.fixture
def tenant(command):
    name = f"t-{uuid.uuid4().hex[:8]}"
    assert command("tenants", "create", name)[0] == 0
    assert command("models", "own", name, f"{name}/*")[0] == 0
    assert command("grants", "add", "--tenant", "globex", "--models", f"{name}/x", "--expires", "2d")[0] == 0
    return name


@pytest.fixture
def key_id(command_json, tenant):
    return command_json("keys", "create", "--tenant", tenant)[1]["key_id"]


def states(command_json):
    return {one["key_id"]: one["state"] for one in command_json("keys", "list")[1]}


def test_it_is_shown_and_nothing_is_done_before_somebody_says_yes(command, command_json, tenant, key_id):
    before = command_json("tenants", "show", tenant)[1]
    status, plan = command_json("tenants", "remove", tenant, "--dry-run")
    assert (status, plan["keys"], plan["patterns"]) == (0, 1, [f"{tenant}/*"])
    status, printed, said = command("tenants", "remove", tenant)
    assert status == 1
    assert f"{tenant}/*" in printed
    assert "say --yes" in said
    assert command("tenants", "remove", tenant, "--json")[0] == 2  # scripts say which of the two they mean
    assert command_json("tenants", "show", tenant)[1] == before


def test_it_is_done_and_undone_by_command(command, command_json, tenant, key_id):
    status, removed = command_json("tenants", "remove", tenant, "--yes", "--restorable", "2d")
    assert (status, removed["keys"], removed["patterns"], removed["grants_of_others"]) == (0, 1, 1, 1)
    assert removed["sure"]
    assert command("tenants", "show", tenant)[0] == 1
    assert states(command_json)[key_id] == "revoked"
    [listed] = [one for one in command_json("tenants", "removed")[1] if one["tenant"] == tenant]
    assert listed["restorable_until"] == removed["restorable_until"]
    status, restored = command_json("tenants", "restore", tenant)
    assert (status, restored["left"], restored["keys"]) == (0, [], 1)
    assert command_json("tenants", "show", tenant)[1]["record_id"] == removed["plan"]["record_id"]
    assert states(command_json)[key_id] == "revoked"
    assert tenant in command("tenants", "removed")[1]


def test_what_was_not_given_back_makes_it_a_no(command, command_json, tenant):
    command("tenants", "remove", tenant, "--yes")
    command("models", "own", "initech", f"{tenant}/*")
    status, printed, said = command("tenants", "restore", tenant)
    assert status == 1
    assert f"not given back: {tenant}/* belongs to tenant initech now" in printed + said


@pytest.mark.parametrize("limit", ["91d", "soon", "-1s"])
def test_a_limit_out_of_bounds_is_refused(command, tenant, limit):
    assert command("tenants", "remove", tenant, "--yes", f"--restorable={limit}")[0] == 2
    assert command("tenants", "show", tenant)[0] == 0


def test_without_a_time_nothing_can_be_restored(command, tenant):
    status, printed, said = command("tenants", "remove", tenant, "--yes", "--restorable", "0s")
    assert status == 0
    assert "It cannot be restored." in printed + said
    status, _, said = command("tenants", "restore", tenant)
    assert status == 1
    assert "could be restored until" in said


def test_ownership_is_moved_by_command(command, command_json, tenant):
    status, moved = command_json("models", "move", "--from", tenant, "--to", "initech")
    assert (status, moved["changed"]) == (0, True)
    assert command_json("tenants", "show", tenant)[1]["owns"] == []
    assert f"{tenant}/*" in command_json("tenants", "show", "initech")[1]["owns"]
    assert command("models", "move", "--from", tenant, "--to", "initech", f"{tenant}/*")[0] == 1
