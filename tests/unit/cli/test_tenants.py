from __future__ import annotations

import uuid

import pytest

from gateway.model.facts import MAX_DEGRADED_SECONDS


@pytest.fixture
def tenant(command):
    name = f"t-{uuid.uuid4().hex[:8]}"
    assert command("tenants", "create", name)[0] == 0
    return name


def test_a_tenant_is_closed_without_redis_until_something_else_is_said(command_json, tenant):
    shown = command_json("tenants", "show", tenant)[1]
    assert (shown["degraded_seconds"], shown["without_redis"]) == (0.0, "closed")


@pytest.mark.parametrize(("mode", "seconds"), [("60s", 60.0), ("1h", MAX_DEGRADED_SECONDS), ("0s", 0.0)])
def test_a_degraded_time_is_set_and_shown(command, command_json, tenant, mode, seconds):
    status, done = command_json("tenants", "degraded", tenant, mode)
    assert (status, done["changed"]) == (0, seconds > 0)
    assert command_json("tenants", "show", tenant)[1]["degraded_seconds"] == seconds
    listed = {one["tenant"]: one for one in command_json("tenants", "list")[1]}
    assert listed[tenant]["degraded_seconds"] == seconds
    [row] = [line for line in command("tenants", "list")[1].splitlines() if line.startswith(tenant)]
    assert (f"last-known-good for {seconds:g} s" if seconds else "closed") in row
    assert command_json("tenants", "degraded", tenant, "closed")[1]["changed"] is (seconds > 0)


@pytest.mark.parametrize(("mode", "status"), [("61m", 1), ("2h", 1), ("-1s", 2), ("soon", 2), ("", 2)])
def test_a_degraded_time_beyond_an_hour_or_one_that_does_not_parse_is_refused(command, tenant, mode, status):
    assert command("tenants", "degraded", tenant, "--", mode)[0] == status


def test_the_mode_is_in_the_audit_log(command, installed, tenant):
    command("tenants", "degraded", tenant, "30s")
    written = b"".join(path.read_bytes() for path in installed.settings.audit_folder.glob("*.jsonl"))
    assert b"tenants.degraded" in written
    assert b"degraded 30s" in written


def test_hosts_of_images_are_set_replaced_and_taken_away(command, command_json, installed, tenant):
    hosts = ["images.example.com", "http://cdn.example.com:8080"]
    assert command_json("tenants", "show", tenant)[1]["image_hosts"] == []
    assert command_json("tenants", "image-hosts", tenant, *hosts)[1]["changed"]
    assert command_json("tenants", "show", tenant)[1]["image_hosts"] == hosts
    assert not command_json("tenants", "image-hosts", tenant, *hosts)[1]["changed"]
    assert command_json("tenants", "image-hosts", tenant, "none")[1]["changed"]
    assert command_json("tenants", "show", tenant)[1]["image_hosts"] == []
    written = b"".join(path.read_bytes() for path in installed.settings.audit_folder.glob("*.jsonl"))
    assert b"tenants.image-hosts" in written
    assert b"images from images.example.com http://cdn.example.com:8080" in written


def test_what_workflows_may_do_is_allowed_disallowed_recorded_and_explained(
    command, command_json, installed, tenant
):
    key = command_json("keys", "create", "--tenant", tenant)[1]["key_id"]
    asked = ("explain", "--key-id", key, "--action", "external-request")
    assert command_json("tenants", "show", tenant)[1]["allows"] == []
    status, answer = command_json(*asked)
    assert (status, answer["reason"], answer["cause"]) == (1, "missing-action", "not-granted")
    [[remedy]] = answer["remedies"]
    assert remedy["command"] == f"cachegate tenants allow {tenant} external-request"
    assert command_json("tenants", "allow", tenant, "external-request", "cache-read")[1]["changed"]
    assert command_json("tenants", "show", tenant)[1]["allows"] == ["cache-read", "external-request"]
    assert not command_json("tenants", "allow", tenant, "cache-read")[1]["changed"]
    status, answer = command_json(*asked)
    assert (status, answer["verdict"]) == (0, "allow")
    assert [one["policy"] for one in answer["policies"]] == ["tenant-allows-external-request"]
    assert command_json("tenants", "disallow", tenant, "external-request")[1]["changed"]
    assert command_json(*asked)[0] == 1
    assert command_json("tenants", "show", tenant)[1]["allows"] == ["cache-read"]
    written = b"".join(path.read_bytes() for path in installed.settings.audit_folder.glob("*.jsonl"))
    assert b"tenants.allow" in written
    assert b"tenants.disallow" in written


def test_what_is_no_action_of_workflows_is_not_allowed(command, command_json, tenant):
    for wrong in ("infer", "custom_python", "*", ""):
        assert command("tenants", "allow", tenant, wrong)[0] == 2
    assert command("tenants", "allow", tenant)[0] == 2
    assert command_json("tenants", "show", tenant)[1]["allows"] == []


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (["*"], 2),
        (["none", "*"], 2),
        (["https://a.example"], 2),
        ([f"h{n}.example" for n in range(65)], 1),
        ([], 2),
    ],
)
def test_what_is_no_list_of_hosts_is_refused(command, command_json, tenant, hosts, status):
    assert command("tenants", "image-hosts", tenant, *hosts)[0] == status
    assert command_json("tenants", "show", tenant)[1]["image_hosts"] == []


def test_suspending_needs_no_force_and_resuming_does_not_for_facts_of_commands(command_json, tenant):
    assert command_json("tenants", "suspend", tenant)[1]["changed"]
    assert command_json("tenants", "show", tenant)[1]["state"] == "suspended"
    assert command_json("tenants", "resume", tenant)[1]["changed"]
