"""Keys over their whole life, through the admin API and the tenants' own routes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest

from tests.administration import Administrator

SOON, LATER = "2027-06-01T00:00:00Z", "2027-09-01T00:00:00Z"


@dataclass
class Site:
    installation: Any
    gateway: Any
    owner: Administrator
    keys: dict[str, str]

    def key(self, **order):
        return self.owner.made("/keys", {"tenant": "acme", **order})

    def faces(self):
        """Who cares for the keys of acme, on both faces."""
        return [self.owner, Administrator(self.gateway.wire, self.keys["acme"], "/v1")]

    def status(self, token):
        return self.gateway.wire.get("/v1/whoami", token).status

    def operator(self):
        return replace(self.owner, key=self.keys["operator"])


@pytest.fixture(scope="module")
def site(new_installation):
    installation = new_installation("admin-keys", CACHEGATE_CANARY_SECONDS="0")
    gateway = installation.serve(workers=2)
    try:
        owner = Administrator(gateway.admin, installation.admin_key)
        for tenant in ("acme", "globex"):
            owner.made("/tenants", {"id": tenant})
        site = Site(installation, gateway, owner, {})
        for tenant in ("acme", "globex"):
            site.keys[tenant] = owner.made("/keys", {"tenant": tenant, "role": "tenant-admin"})["token"]
        site.keys["operator"] = owner.made("/keys", {"role": "operator"})["token"]
        yield site
    finally:
        gateway.stop()
    assert "Traceback" not in gateway.log(), gateway.log()
    installation.verify_audit()


def test_a_disabled_key_is_refused_until_it_is_enabled(site):
    for face in site.faces():
        made = site.key(expires_at=SOON)
        assert site.status(made["token"]) == 200
        assert face.post(f"/keys/{made['id']}/disable").status == 200
        assert site.status(made["token"]) == 401
        shown = face.get(f"/keys/{made['id']}").json()
        assert (shown["state"], shown["disabled_at"] is None) == ("disabled", False)
        assert not face.post(f"/keys/{made['id']}/disable").json()["changed"]
        assert face.post(f"/keys/{made['id']}/enable").status == 200
        assert site.status(made["token"]) == 200


def test_a_rotation_says_when_the_old_key_ends_and_is_closed_by_either_key(site):
    for face in site.faces():
        for which in ("old", "new"):
            old = site.key(expires_at=SOON)
            new = face.post(f"/keys/{old['id']}/rotate", {"overlap_seconds": 3600, "expires_at": LATER})
            assert new.status == 201, new.body
            assert new.json()["replaces"] == old["id"]
            ends = datetime.fromisoformat(new.json()["old_ends_at"])
            shown = face.get(f"/keys/{old['id']}").json()
            assert datetime.fromisoformat(shown["expires_at"]) == ends
            rotating = face.get("/keys?state=rotating").json()["items"]
            assert old["id"] in {one["id"] for one in rotating}
            named = {"old": old["id"], "new": new.json()["id"]}[which]
            assert face.post(f"/keys/{named}/close").status == 200
            assert (site.status(old["token"]), site.status(new.json()["token"])) == (401, 200)
            assert face.get(f"/keys/{old['id']}").json()["revoked_for"] == f"replaced by {new.json()['id']}"
            assert not face.post(f"/keys/{named}/close").json()["changed"]


def test_a_key_in_no_rotation_has_no_overlap_to_close(site):
    assert site.owner.post(f"/keys/{site.key()['id']}/close").status == 409


def test_a_rotation_that_is_sent_again_names_its_old_key_and_no_secret(site):
    old = site.key()
    sent = [
        site.owner.post(f"/keys/{old['id']}/rotate", {}, Idempotency_Key="rotated").json() for _ in range(2)
    ]
    assert [one["replaces"] for one in sent] == [old["id"]] * 2
    assert [one["token"] is None for one in sent] == [False, True]


def test_a_patch_changes_what_it_names_and_null_takes_away(site):
    for face in site.faces():
        made = site.key(name="first", networks=["127.0.0.0/8"], expires_at=SOON)
        path = f"/keys/{made['id']}"
        etag = face.get(path).header("etag")
        assert face.ask("PATCH", path, {"name": "second"}).status == 428
        done = face.ask("PATCH", path, {"name": "second", "scopes": ["read"]}, If_Match=etag)
        assert done.status == 200, done.body
        shown = face.get(path).json()
        found = (shown["name"], shown["scopes"], shown["networks"])
        assert found == ("second", ["read"], ["127.0.0.0/8"])
        assert datetime.fromisoformat(shown["expires_at"]) == datetime.fromisoformat(SOON)
        assert face.ask("PATCH", path, {"name": "third"}, If_Match=etag).status == 412
        etag = face.get(path).header("etag")
        back = {"name": None, "scopes": None, "networks": None}
        assert face.ask("PATCH", path, back, If_Match=etag).status == 200
        shown = face.get(path).json()
        assert (shown["name"], shown["networks"]) == ("", [])
        assert shown["scopes"] == ["discover", "infer", "read"]
    etag = site.owner.get(path).header("etag")
    assert site.owner.ask("PATCH", path, {"expires_at": None}, If_Match=etag).status == 200
    assert site.owner.get(path).json()["expires_at"] is None


@pytest.mark.parametrize(
    ("patch", "status", "pointer"),
    [
        ({"tenant": "globex"}, 400, "/tenant"),
        ({"role": "owner"}, 400, "/role"),
        ({"scopes": []}, 400, "/scopes"),
        ({"networks": ["10.0.0.1/8"]}, 422, "/networks"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, 422, "/expires_at"),
        ({"name": "two\nlines"}, 422, "/name"),
    ],
    ids=str,
)
def test_a_patch_that_cannot_be_names_the_field_and_changes_nothing(site, patch, status, pointer):
    path = f"/keys/{site.key()['id']}"
    before = site.owner.get(path)
    answer = site.owner.ask("PATCH", path, patch, If_Match=before.header("etag"))
    assert answer.status == status, answer.body
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    assert site.owner.get(path).body == before.body


class TestWhatARoleMayChange:
    def patched(self, who, key_id, patch):
        path = f"/keys/{key_id}"
        return who.ask("PATCH", path, patch, If_Match=who.get(path).header("etag"))

    def test_nobody_widens_a_key_beyond_what_they_hand_out(self, site):
        for who in (site.operator(), site.faces()[1]):
            made = site.key(scopes=["read"], networks=["10.0.0.0/8"], expires_at=SOON)["id"]
            for patch in ({"expires_at": None}, {"scopes": ["tokens:introspect"]}):
                answer = self.patched(who, made, patch)
                assert answer.status == 403, (patch, answer.body)
            assert self.patched(who, made, {"networks": None}).status == 200

    def test_a_key_without_an_end_is_narrowed_and_not_widened(self, site):
        made = site.key(networks=["10.0.0.0/8"])["id"]
        assert self.patched(site.operator(), made, {"networks": None}).status == 403
        assert self.patched(site.operator(), made, {"scopes": ["read"], "name": "less"}).status == 200
        assert self.patched(site.operator(), made, {"scopes": None}).status == 403

    def test_keys_of_owners_are_not_an_operators_to_change_end_or_bring_back(self, site):
        made = site.owner.made("/keys", {"role": "owner"})["id"]
        new = site.owner.made(f"/keys/{made}/rotate", {"overlap_seconds": 3600})["id"]
        for path in (f"/keys/{made}/disable", f"/keys/{made}/close", f"/keys/{new}/close"):
            assert site.operator().post(path).status == 403
        assert self.patched(site.operator(), new, {"name": "mine"}).status == 403
        assert site.owner.post(f"/keys/{new}/disable").status == 200
        assert site.operator().post(f"/keys/{new}/enable").status == 403
        assert site.owner.get(f"/keys/{made}").json()["state"] == "live"

    def test_a_tenant_does_not_enable_what_it_could_not_have_made(self, site):
        made = site.key(role="tenant-admin", expires_at=SOON)["id"]
        site.owner.made(f"/keys/{made}/disable")
        assert site.faces()[1].post(f"/keys/{made}/enable").status == 403

    def test_another_tenants_keys_are_absent(self, site):
        other = Administrator(site.gateway.wire, site.keys["globex"], "/v1")
        made = site.key(expires_at=SOON)["id"]
        for path in ("disable", "enable", "close", "revoke"):
            assert other.post(f"/keys/{made}/{path}").status == 404
        assert other.ask("PATCH", f"/keys/{made}", {"name": "x"}, If_Match="*").status == 404
        assert site.owner.get(f"/keys/{made}").json()["state"] == "live"


def test_a_reason_stands_in_the_record_and_a_key_in_it_is_refused(site):
    made = site.key()
    path = f"/keys/{made['id']}/revoke"
    assert site.owner.post(path, {"reason": f"leaked {made['token']}"}).status == 400
    assert site.owner.post(path, {"reason": "two\nlines"}).status == 422
    assert site.owner.post(path, {"reason": "in a build log"}).status == 200
    shown = site.owner.get(f"/keys/{made['id']}").json()
    assert (shown["state"], shown["revoked_for"]) == ("revoked", "in a build log")
    [record] = [
        one
        for one in site.installation.records()
        if one["kind"] == "change" and one["action"] == "keys.revoke" and one["key_id"] == made["id"]
    ]
    assert record["subject"] == ["reason: in a build log"]


def test_a_list_is_filtered_by_state_and_its_pages_lead_through_everything(site):
    made = [site.key(name=f"state {number}")["id"] for number in range(6)]
    ended = made[::2]
    for one in ended:
        site.owner.made(f"/keys/{one}/revoke")
    for face in site.faces():
        found, path = [], "/keys?state=revoked&limit=1"
        while path:
            page = face.get(path)
            assert {one["state"] for one in page.json()["items"]} <= {"revoked"}
            found += [one["id"] for one in page.json()["items"]]
            link = page.header("link")
            path = link and link.partition("<")[2].partition(">")[0].removeprefix(face.path)
        assert len(found) == len(set(found))
        assert set(ended) == set(found) & set(made)
        assert face.get("/keys?state=unknown").status == 400


def test_a_decoy_opens_nothing_and_says_what_it_is(site):
    for face in site.faces():
        made = face.made("/keys", {"decoy": True, "expires_at": SOON, **site_of(face)})
        assert site.status(made["token"]) == 401
        assert face.get(f"/keys/{made['id']}").json()["state"] == "decoy"
        assert made["id"] in {one["id"] for one in face.get("/keys?state=decoy").json()["items"]}
        assert face.post(f"/keys/{made['id']}/disable").status == 409


def site_of(face):
    return {} if face.path == "/v1" else {"tenant": "acme"}


def test_the_report_is_about_the_callers_tenant_or_all(site):
    endless, other = site.key()["id"], site.owner.made("/keys", {"tenant": "globex"})["id"]
    every = site.owner.get("/keys/report").json()
    listed = {one["key_id"] for one in every["keys"]["never-expiring"]}
    assert {endless, other} <= listed
    assert every["counts"]["never-expiring"] == len(listed)
    for face, query in zip(site.faces(), ("?tenant=acme&soon_days=3000", "?soon_days=3000"), strict=True):
        found = face.get(f"/keys/report{query}").json()
        assert {one["tenant"] for one in found["keys"]["never-expiring"]} == {"acme"}
    assert site.owner.get("/keys/report?tenant=nobody").status == 422
    assert site.faces()[1].get("/keys/report?tenant=globex").status == 400
    assert site.owner.get("/keys/report?soon_days=-1").status == 400


class TestFoundTokens:
    def test_what_is_ours_is_revoked_and_the_rest_is_named_by_its_place(self, site):
        ours, stranger = site.key(), "ghp_" + "x" * 36
        tokens = [stranger, {"token": ours["token"], "type": "a", "url": "b"}, ours["token"][:-1] + "~", "x"]
        dry = site.owner.post("/keys/revoke-found", {"tokens": tokens, "dry_run": True})
        assert (dry.status, dry.json()["revoked"], dry.json()["changed"]) == (200, [], False)
        assert site.status(ours["token"]) == 200
        answer = site.owner.post("/keys/revoke-found", {"tokens": tokens, "reason": "on a wiki"})
        assert answer.status == 200, answer.body
        found = answer.json()["found"]
        assert [one["kind"] for one in found] == ["unknown", "ours", "mistyped", "no-key"]
        assert found[1]["id"] == ours["id"]
        assert answer.json()["revoked"] == [{"id": ours["id"], "tenant": "acme", "changed": True}]
        assert site.status(ours["token"]) == 401
        assert site.owner.get(f"/keys/{ours['id']}").json()["revoked_for"] == "on a wiki"
        for secret in (ours["token"], stranger):
            assert secret.encode() not in answer.body + dry.body
            assert secret not in json.dumps(site.installation.records())

    def test_a_tenant_ends_its_own_and_learns_nothing_of_others(self, site):
        own, other = site.key(), site.owner.made("/keys", {"tenant": "globex"})
        absent = {"tokens": ["cg_" + "0" * 40, other["token"], own["token"]]}
        answer = site.faces()[1].post("/keys/revoke-found", absent).json()
        assert [one["kind"] for one in answer["found"]][1:] == ["unknown", "ours"]
        assert (answer["found"][1]["id"], answer["found"][1]["tenant"]) == (None, None)
        assert (site.status(own["token"]), site.status(other["token"])) == (401, 200)

    @pytest.mark.parametrize(
        "body",
        [
            {"tokens": []},
            {"tokens": ["a"] * 201},
            {"tokens": [{"secret": "a"}]},
            {"tokens": ["a" * 9000]},
            {"tokens": "a"},
            {},
        ],
        ids=lambda body: str(body)[:30],
    )
    def test_a_list_that_is_none_or_too_long_is_refused(self, site, body):
        answer = site.owner.post("/keys/revoke-found", body)
        assert answer.status == 400, answer.body

    def test_a_key_elsewhere_in_the_body_is_refused_and_not_repeated(self, site):
        token = site.key()["token"]
        for body in (
            {"tokens": ["a"], "reason": token},
            {"tokens": ["a"], token: 1},
            {"tokens": [{token: "a"}]},
            {"tokens": [[token]]},
        ):
            answer = site.owner.post("/keys/revoke-found", body)
            assert answer.status == 400
            assert token.encode() not in answer.body
        assert token not in json.dumps(site.installation.records())
