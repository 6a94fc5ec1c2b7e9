"""Keys over their life, as clients, the audit log and the operator see it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

ABSENT = "an-opaque-key-that-nobody-has"
ABSENT_OF_FORM = "an-opaque-key-of-somebody-else"


@pytest.fixture(scope="module")
def world(build_world):
    """One worker, behind a proxy that says where a client is."""
    yield from build_world("key-life", workers=1, CACHEGATE_TRUSTED_PROXIES="127.0.0.1/32")


@pytest.fixture
def new_key(world):
    def make(*more):
        return world.installation.json("keys", "create", "--tenant", "acme", *more)

    return make


def ask(world, token, client="198.51.100.7"):
    headers = (("Authorization", f"Bearer {token}"), ("X-Forwarded-For", client))
    return world.wire.get("/v1/whoami", headers=headers)


def plain(answer):
    varying = {"date", "traceparent", "cachegate-record"}
    headers = [one for one in answer.headers if one[0] not in varying]
    return answer.status, headers, answer.body.replace(answer.record_id.encode(), b"")


def record_of(world, answer, eventually):
    [record] = eventually(
        lambda: [one for one in world.installation.records() if one.get("id") == answer.record_id]
    )
    return record


@pytest.fixture
def stranger(world):
    return plain(ask(world, world.token("unknown")))


def test_a_decoy_opens_nothing_and_its_use_is_a_record_a_count_and_a_log_line(
    world, new_key, eventually, stranger
):
    decoy = new_key("--decoy", "--name", "in the old wiki")
    before = world.gateway.metrics().get("cachegate_decoy_uses_total", 0)
    answer = ask(world, decoy["token"])
    assert plain(answer) == stranger
    record = record_of(world, answer, eventually)
    assert (record["reason"], record["claimed_key_id"], record["tenant"]) == (
        "decoy-key", decoy["key_id"], "acme",
    )  # fmt: skip
    assert eventually(lambda: world.gateway.metrics()["cachegate_decoy_uses_total"] == before + 1)

    def logged():
        lines = [line for line in world.gateway.log().splitlines() if decoy["key_id"] in line]
        return [json.loads(line) for line in lines if line.startswith("{") and "decoy" in line]

    [line] = eventually(logged)
    assert (line["level"], line["client"], line["tenant"]) == ("error", "198.51.100.7", "acme")
    assert decoy["token"] not in world.gateway.log()


def test_a_disabled_key_is_refused_like_an_unknown_one_until_it_is_enabled(
    world, new_key, eventually, stranger
):
    key = new_key()
    assert ask(world, key["token"]).status == 200
    world.installation.json("keys", "disable", key["key_id"])
    answer = ask(world, key["token"])
    assert plain(answer) == stranger
    assert record_of(world, answer, eventually)["reason"] == "disabled-key"
    assert world.installation.json("keys", "list", "--state", "disabled")[0]["key_id"] == key["key_id"]
    world.installation.json("keys", "enable", key["key_id"])
    assert ask(world, key["token"]).status == 200


def test_the_log_tells_the_two_keys_of_a_rotation_apart_and_the_overlap_is_closed_early(
    world, new_key, eventually
):
    old = new_key()
    new = world.installation.json("keys", "rotate", old["key_id"], "--overlap", "1d")
    seen = [record_of(world, ask(world, one["token"]), eventually)["key_id"] for one in (old, new)]
    assert seen == [old["key_id"], new["key_id"]]
    rotations = lambda: {one["old"]: one for one in world.installation.json("keys", "rotations")}  # noqa: E731
    rotation = rotations()[old["key_id"]]
    assert (rotation["old"], rotation["new"], rotation["ends_at"]) == (
        old["key_id"], new["key_id"], new["old_ends_at"],
    )  # fmt: skip
    world.installation.json("keys", "close", new["key_id"])
    assert (ask(world, old["token"]).status, ask(world, new["token"]).status) == (401, 200)
    assert old["key_id"] not in rotations()


def test_what_a_key_may_do_and_from_where_is_changed_at_once(world, new_key):
    key = new_key()
    world.installation.json("keys", "change", key["key_id"], "--networks", "203.0.113.0/24", "--name", "x")
    assert ask(world, key["token"]).status == 401
    assert ask(world, key["token"], "203.0.113.9").status == 200
    world.installation.json("keys", "change", key["key_id"], "--any-network", "--scopes", "discover")
    shown = json.loads(ask(world, key["token"]).body)
    assert shown["scopes"] == ["discover"]


def test_a_use_from_a_new_network_is_reported_and_moves_no_generation(world, new_key, eventually):
    key = new_key()

    def generation():
        found = world.installation.in_session(lambda session: session.listing.find_key(key["key_id"]))
        return found.generation

    before = generation()

    def last_network():
        return world.installation.json("keys", "show", key["key_id"])["last_used_network"]

    assert ask(world, key["token"], "198.51.100.7").status == 200
    assert eventually(lambda: last_network() == "198.51.100.0/24")
    events = lambda: [one for one in world.installation.records() if one.get("action") == "keys.new-network"]  # noqa: E731
    assert [one for one in events() if one["key_id"] == key["key_id"]] == []  # the first one is not new
    assert ask(world, key["token"], "198.51.100.200").status == 200
    assert ask(world, key["token"], "2001:db8:1:2::3").status == 200
    assert eventually(lambda: last_network() == "2001:db8:1::/48")
    [event] = eventually(lambda: [one for one in events() if one["key_id"] == key["key_id"]])
    assert (event["tenant"], event["subject"]) == ("acme", ["2001:db8:1::/48"])
    assert event["tenant_record"] == key["tenant_record"]
    assert world.gateway.metrics()["cachegate_key_new_networks_total"] >= 1
    report = world.installation.json("keys", "report", "--tenant", "acme")
    [reported] = [one for one in report["keys"]["new-networks"] if one["key_id"] == key["key_id"]]
    assert list(reported["new_networks"]) == ["2001:db8:1::/48"]
    assert generation() == before


def test_a_refused_key_keeps_its_records_among_many_strangers(world, new_key, eventually):
    keys = [new_key() for _ in range(3)]
    for key in keys:
        world.installation.json("keys", "revoke", key["key_id"])

    def refused(number):
        return ask(world, ABSENT, f"10.{number >> 8 & 255}.{number & 255}.1").status

    with ThreadPoolExecutor(4) as pool:
        strangers = [pool.submit(refused, number) for number in range(1500)]
        answers = [(key, ask(world, key["token"], "192.0.2.9")) for _ in range(40) for key in keys]
        assert {one.result() for one in strangers} == {401}
    for key, answer in answers:
        record = record_of(world, answer, eventually)
        assert record["claimed_key_id"] == key["key_id"]
        assert "revoked-key" in (record.get("reason"), *record.get("reasons", {}))
    for key in keys:
        own = [
            one for one in world.installation.records()
            if one.get("claimed_key_id") == key["key_id"] and one["kind"] == "decision"
        ]  # fmt: skip
        assert own
        summaries = [
            one for one in world.installation.records()
            if one.get("claimed_key_id") == key["key_id"] and one["kind"] == "summary"
        ]  # fmt: skip
        seconds = {one["second"][:19] for one in summaries}
        assert seconds <= {one["time"][:19] for one in own}, "a second with a summary has a record as well"


def test_found_tokens_are_revoked_if_they_are_ours_and_none_is_repeated(world, new_key, tmp_path):
    ours, revoked = new_key(), new_key()
    world.installation.json("keys", "revoke", revoked["key_id"])
    mistyped = ours["token"][:-1] + ("0" if ours["token"][-1] != "0" else "1")
    listed = [
        ours["token"],
        ABSENT_OF_FORM,
        mistyped,
        "eyJhbGciOiJFZERTQSJ9.e30.c2ln",
        "x y",
        revoked["token"],
    ]
    file = tmp_path / "found.json"
    file.write_text(json.dumps([{"token": one, "type": "cachegate", "url": "https://x"} for one in listed]))
    dry = world.installation.json("keys", "revoke", "--found", str(file), "--dry-run")
    assert (dry["revoked"], ask(world, ours["token"]).status) == ([], 200)
    done = world.installation.run("keys", "revoke", "--found", str(file), "--json")
    document = json.loads(done.stdout)
    assert [one["kind"] for one in document["found"]] == [
        "ours", "unknown", "mistyped", "access-token", "no-key", "ours",
    ]  # fmt: skip
    assert {one["key_id"]: one["is_changed"] for one in document["revoked"]} == {
        ours["key_id"]: True, revoked["key_id"]: False,
    }  # fmt: skip
    assert document["sure"]
    assert ask(world, ours["token"]).status == 401
    assert world.installation.json("keys", "show", ours["key_id"])["revoked_for"]
    log = "".join(map(json.dumps, world.installation.records()))
    shown = world.installation.run("keys", "revoke", "--found", str(file))
    for token in listed[:4]:
        assert token not in done.stdout + done.stderr + shown.stdout + shown.stderr + log


def test_a_found_token_is_identified_and_not_repeated(world, new_key):
    key = new_key()
    done = world.installation.run("keys", "identify", "--json", text=key["token"] + "\n")
    assert json.loads(done.stdout)["key_id"] == key["key_id"]
    assert key["token"] not in done.stdout + done.stderr
    unknown = world.installation.run("keys", "identify", text=ABSENT_OF_FORM, status=1)
    assert ABSENT_OF_FORM not in unknown.stdout + unknown.stderr


def test_all_keys_of_a_tenant_are_revoked_and_nobody_elses(world, new_key):
    world.installation.json("tenants", "create", "umbrella")
    theirs = [world.installation.json("keys", "create", "--tenant", "umbrella") for _ in range(3)]
    other = new_key()
    done = world.installation.json("keys", "revoke", "--tenant", "umbrella", "--reason", "off-boarded")
    assert {one["key_id"] for one in done["revoked"]} == {one["key_id"] for one in theirs}
    assert [ask(world, one["token"]).status for one in (*theirs, other)] == [401, 401, 401, 200]
    changes = [one for one in world.installation.records() if one.get("action") == "keys.revoke"]
    told = {one.get("key_id"): (one.get("tenant"), one.get("subject")) for one in changes}
    for key in theirs:
        assert told[key["key_id"]] == ("umbrella", ["reason: off-boarded"])
