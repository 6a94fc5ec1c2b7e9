"""Figures over HTTP: the operator's readers get all, a tenant its own and no more than it was told."""

from __future__ import annotations

import pytest

FILE = "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"
USAGE, READERS, KEYS = "/audit/v1/usage", "/audit/v1/readers", "/audit/v1/keys"
SIZE = 1800
NOWHERE = "key_0123456789ab"


@pytest.fixture(scope="module")
def site(build_world):
    yield from build_world("usage", workers=1)


@pytest.fixture(scope="module")
def keys(site):
    """Keys that read the log: of an auditor, and of two tenants that read files as well."""
    create = ("keys", "create", "--scopes", "audit:read")
    made = {"auditor": site.installation.json("keys", "create", "--admin", "--role", "auditor")}
    for tenant in ("acme", "globex"):
        more = ("--scopes", "read", "--scopes", "discover", "--tenant", tenant)
        made[tenant] = site.installation.json(*create, *more)
    return made


@pytest.fixture(scope="module")
def used(site, keys, eventually):
    """Two reads of acme, and three refusals of globex: of a rule, of what is absent, of a key elsewhere."""
    token = keys["acme"]["token"]
    for _ in range(2):
        answer = site.wire.get(FILE, token)
        assert answer.status == 200
        eventually_closed(site, answer)
    for path in (FILE, "/v1/models/globex/none/1/-/p/f", "/v1/models/acme/none/1/-/p/f"):
        assert site.wire.get(path, keys["globex"]["token"]).status == 404
    eventually(lambda: is_counted(site, keys))
    return site


def is_counted(site, keys):
    """Whether the process that keeps the index has come so far."""
    found = told(site, USAGE, keys["auditor"])
    reads = sum(one["reads"] for one in found["usage"] if one.get("key_id") == keys["acme"]["key_id"])
    mine = (one for one in found["refusals"] if one.get("key_id") == keys["globex"]["key_id"])
    return (reads, sum(one["count"] for one in mine)) == (2, 3)


def eventually_closed(site, answer):
    """Wait for the outcome of a request, which is recorded after its last byte."""
    assert site.installation.outcome_of(answer.header("cachegate-record"))["bytes"] == len(answer.body)


def told(site, path, key):
    answer = site.wire.get(path, key["token"])
    assert answer.status == 200, answer.body
    return answer.json()


def test_an_auditor_sees_reads_bytes_and_refusals_of_all_by_key_and_model(used, keys):
    found = told(used, USAGE, keys["auditor"])
    of_key = [one for one in found["usage"] if one.get("key_id") == keys["acme"]["key_id"]]
    [row] = [one for one in of_key if one["reads"]]
    assert (row["tenant"], row["model"], row["reads"], row["bytes"]) == ("acme", "acme/cars/1", 2, 2 * SIZE)
    refusals = {
        one["reason"]: one["count"]
        for one in found["refusals"]
        if one.get("key_id") == keys["globex"]["key_id"]
    }
    assert sum(refusals.values()) == 3
    assert "not-permitted" in refusals
    assert any(one["action"] == "keys.create" for one in found["changes"])
    assert found["is_current"]


def test_a_tenant_sees_its_own_and_cannot_tell_why_it_was_refused(used, keys):
    found = told(used, USAGE, keys["globex"])
    mine = [one for one in found["refusals"] if one["key_id"] == keys["globex"]["key_id"]]
    assert [(one["problem"], one["count"]) for one in mine] == [("not-found", 3)]
    assert not [one for one in found["usage"] if one.get("model")]
    text = str(found)
    assert "acme" not in text
    assert "not-permitted" not in text
    assert "changes" not in found
    own = told(used, USAGE, keys["acme"])
    [row] = [one for one in own["usage"] if one.get("model") == "acme/cars/1"]
    assert row["reads"] == 2
    assert "globex" not in str(own)


def test_a_key_or_model_of_another_tenant_is_answered_like_one_that_is_nowhere(used, keys):
    def without_key(path):
        found = told(used, path, keys["globex"])
        return {name: value for name, value in found.items() if name != "key_id"}

    assert without_key(f"{KEYS}/{keys['acme']['key_id']}") == without_key(f"{KEYS}/{NOWHERE}")
    others = told(used, f"{READERS}?model=acme/cars/1", keys["globex"])
    nowhere = told(used, f"{READERS}?model=no/1", keys["globex"])
    assert others == nowhere
    assert others["readers"] == []


def test_who_read_a_model_and_what_a_key_did(used, keys):
    [reader] = told(used, f"{READERS}?model=acme/cars/1", keys["auditor"])["readers"]
    assert (reader["key_id"], reader["reads"]) == (keys["acme"]["key_id"], 2)
    found = told(used, f"{KEYS}/{keys['acme']['key_id']}", keys["auditor"])
    assert [one["model"] for one in found["models"] if one.get("model")] == ["acme/cars/1"]
    assert [one["network"] for one in found["networks"]] == ["127.0.0.0/24"]


def test_who_read_a_file_is_looked_for_in_the_log_by_readers_of_all_of_it(used, keys):
    found = told(used, f"{READERS}?file=weights.onnx", keys["auditor"])
    assert found["readers"][0]["key_id"] == keys["acme"]["key_id"]
    assert found["is_whole"]
    assert used.wire.get(f"{READERS}?file=weights.onnx", keys["acme"]["token"]).status == 400


@pytest.mark.parametrize(
    "path",
    [
        f"{USAGE}?nothing=1",
        f"{USAGE}?since=never",
        f"{USAGE}?since=2026-11-02&since=2026-11-03",
        f"{USAGE}?since",
        f"{USAGE}?blob=ab",
        f"{READERS}",
        f"{READERS}?file=x&after=nothing",
        f"{USAGE}?model={'a' * 2000}",
    ],
)
def test_what_is_not_asked_as_it_has_to_be_is_refused(site, keys, path):
    assert site.wire.get(path, keys["auditor"]["token"]).status == 400


def test_a_tenant_may_not_name_a_tenant(site, keys):
    assert site.wire.get(f"{USAGE}?tenant=acme", keys["acme"]["token"]).status == 400
    assert told(site, f"{USAGE}?tenant=acme", keys["auditor"])["node"]


@pytest.mark.parametrize("path", [USAGE, f"{READERS}?model=a/1", f"{KEYS}/{NOWHERE}"])
def test_a_key_without_the_scope_and_nobody_get_nothing(site, path):
    assert site.wire.get(path).status == 401
    assert site.wire.get(path, site.token("acme")).status == 403


def test_a_question_is_recorded_as_a_reading_of_the_log(used, keys):
    answer = used.wire.get(f"{USAGE}?tenant=acme", keys["auditor"]["token"])
    [record] = [one for one in used.installation.records() if one["id"] == answer.header("cachegate-record")]
    assert (record["action"], record["key_id"]) == ("audit-read", keys["auditor"]["key_id"])
