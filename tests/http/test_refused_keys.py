"""A known key that is refused: the record names the key; the answer is that of an anonymous caller."""

from __future__ import annotations

import json

import pytest

REFUSED = {
    "acme revoked": "revoked-key",
    "acme rotated out": "revoked-key",
    "acme expired": "expired-key",
    "acme not yet": "not-yet-valid",
    "acme from outside": "outside-networks",
    "initech": "suspended-tenant",
}


def plain(answer):
    varying = {"date", "traceparent", "cachegate-record"}
    headers = [one for one in answer.headers if one[0] not in varying]
    return answer.status, headers, answer.body.replace(answer.record_id.encode(), b"")


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_the_record_of_a_refused_key_names_its_tenant_and_the_answer_does_not(
    world, eventually, name, reason
):
    caller = world.callers[name]
    answer = world.wire.get("/v1/models", headers=caller.headers)
    assert plain(answer) == plain(world.wire.get("/v1/models", world.token("unknown opaque")))
    [record] = [one for one in world.installation.records() if one.get("id") == answer.record_id]
    if record["kind"] == "summary":
        assert record["reasons"] == {reason: record["count"]}
    else:
        assert (record["decision"], record["reason"]) == ("deny", reason)
        assert "key_id" not in record
        assert "principal" not in record
    assert (record["claimed_key_id"], record["tenant"]) == (caller.key_id, caller.tenant)
    out = world.installation.run(
        "audit", "search", "--tenant", caller.tenant, "--key-id", caller.key_id, "--json"
    )
    assert answer.record_id in {json.loads(line)["id"] for line in out.stdout.splitlines()}


def test_the_summary_of_a_refused_key_names_its_tenant(world, eventually):
    caller = world.callers["acme revoked"]
    with world.wire.talk() as talk:
        answers = [talk.get("/v1/whoami", headers=caller.headers) for _ in range(40)]
    ids = {answer.record_id for answer in answers}

    def summaries():
        return [one for one in world.installation.records() if one["kind"] == "summary" and one["id"] in ids]

    [summary, *_] = eventually(summaries)
    assert (summary["tenant"], summary["claimed_key_id"]) == ("acme", caller.key_id)


def test_a_key_that_nobody_knows_has_no_tenant(world):
    answer = world.wire.get("/v1/models", world.token("unknown"))
    found = [one for one in world.installation.records() if one.get("id") == answer.record_id]
    assert all("tenant" not in one for one in found)
