"""The admin API over real sockets: what it does, what it refuses, and that a refusal changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gateway.admin.call import Call
from gateway.admin.documents import PagedKeys
from gateway.admin.face import OPERATIONS
from gateway.admin.keys import list_keys
from gateway.admin.pages import MAX_WALKED
from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.directory.edits.changes import change
from gateway.identity.authenticate import principal_of
from gateway.model.access import Action
from gateway.model.facts import Tenant
from gateway.model.names import TenantId
from gateway.operations.listings import KeyFilter
from tests.administration import Administrator

PUBLIC_URL = "https://models.example"


@dataclass
class Site:
    installation: Any
    gateway: Any
    owner: Administrator

    def as_key(self, key):
        return replace(self.owner, key=key)

    def record(self, answer):
        [record] = [one for one in self.installation.records() if one.get("id") == answer.record_id]
        return record

    def changes_of(self, action):
        return [
            one for one in self.installation.records() if one["kind"] == "change" and one["action"] == action
        ]

    def token(self, key):
        """An access token of a key."""
        form = (
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token="
            f"{key}&subject_token_type=urn:cachegate:token-type:api-key"
        ).encode()
        head = (
            "POST /v1/token HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n"
        )
        return self.gateway.wire.send(head.encode() + form).json()["access_token"]

    @property
    def owner_id(self):
        return self.owner.get("/keys?admin=true").json()["items"][0]["id"]

    def generation(self):
        return self.installation.in_session(lambda session: session.store.generation())


@pytest.fixture(scope="module")
def site(new_installation):
    installation = new_installation(
        "admin",
        CACHEGATE_PUBLIC_URL=PUBLIC_URL,
        CACHEGATE_LEASE_MILLISECONDS="5000",
        CACHEGATE_CANARY_SECONDS="0",
        CACHEGATE_AUDIT_REFUSALS_PER_SECOND="10000",
    )
    gateway = installation.serve(workers=2)
    try:
        owner = Administrator(gateway.admin, installation.admin_key)
        for tenant in ("acme", "globex"):
            owner.made("/tenants", {"id": tenant})
        yield Site(installation, gateway, owner)
    finally:
        gateway.stop()
    assert "Traceback" not in gateway.log(), gateway.log()
    installation.verify_audit()


def problem(answer, status, kind):
    assert (answer.status, answer.json()["type"]) == (status, f"urn:cachegate:problem:{kind}"), answer.body
    return answer.json()


class TestListeners:
    def test_the_public_listener_knows_no_admin_path(self, site):
        on_public = site.gateway.wire.get("/admin/v1/tenants", site.owner.key)
        unknown = site.gateway.wire.get("/admin/v2/tenants", site.owner.key)
        assert (on_public.status, on_public.body[:-50]) == (404, unknown.body[:-50])
        assert site.record(on_public)["reason"] == "no-route"

    def test_the_admin_listener_serves_nothing_else(self, site):
        for path in ("/v1/models", "/v1/whoami", "/v1/keys", "/healthz", "/metrics"):
            assert site.gateway.admin.get(path, site.owner.key).status == 404

    def test_the_ops_listener_has_no_admin_api(self, site):
        assert site.gateway.ops.get("/admin/v1/tenants", site.owner.key).status == 404

    def test_on_the_public_listener_if_the_settings_say_so(self, new_installation):
        installation = new_installation("admin-public", CACHEGATE_ADMIN_PUBLIC="on")
        gateway = installation.serve()
        try:
            owner = Administrator(gateway.wire, installation.admin_key)
            assert owner.get("/tenants").status == 200
            with pytest.raises(ConnectionRefusedError):
                gateway.admin.connect()
        finally:
            gateway.stop()

    def test_without_a_key_nothing_is_told_but_the_document(self, site):
        nobody = site.as_key(None)
        assert nobody.get("/openapi.json").status == 200
        for one in OPERATIONS:
            answer = nobody.ask(one.method, one.path.replace("{id}", "acme"), {} if one.body else None)
            assert answer.status == 401, one.action

    def test_a_page_of_another_origin_gets_no_answer_that_it_may_read(self, site):
        answer = site.owner.ask("OPTIONS", "/tenants", Origin="https://evil.example")
        assert answer.status == 405
        for one in (answer, site.owner.get("/tenants", Origin="https://evil.example")):
            assert not [name for name, _ in one.headers if name.startswith("access-control")]
            assert one.header("set-cookie") is None

    def test_a_form_that_a_page_could_send_is_no_change(self, site):
        answer = site.owner.post(
            "/tenants", b'{"id":"formed"}', content_type="text/plain", Content_Type="text/plain"
        )
        problem(answer, 400, "malformed-body")


class TestChanges:
    def test_a_new_thing_is_where_its_location_says(self, site):
        answer = site.owner.post("/tenants", {"id": "located", "name": "A name"})
        assert answer.status == 201
        assert {"generation", "workers", "milliseconds"} <= answer.json().keys()
        assert (answer.json()["workers"], answer.json()["sure"]) == (2, True)
        path = answer.header("location").removeprefix("/admin/v1")
        assert site.owner.get(path).json()["name"] == "A name"

    def test_a_change_that_is_not_waited_for_says_from_when_it_is_sure(self, site):
        answer = site.owner.post("/tenants?wait=false", {"id": "hurried"})
        assert answer.status == 202
        assert answer.header("location") == "/admin/v1/tenants/hurried"
        assert not answer.json()["sure"]
        assert answer.json()["sure_at"]

    def test_a_tenant_that_is_served_without_redis_makes_it_sure_that_much_later(self, site):
        site.owner.made("/tenants", {"id": "degraded"})
        site.installation.run("tenants", "degraded", "degraded", "1h")
        answer = site.owner.post("/tenants/degraded/suspend?wait=false").json()
        sure_at = datetime.fromisoformat(answer["sure_at"]).timestamp()
        assert sure_at - time.time() > 3590  # noqa: TID251 -- what it says is a time of day

    def test_a_stopped_worker_makes_a_change_unsure_and_no_error(self, new_installation):
        installation = new_installation("admin-stopped", CACHEGATE_CANARY_SECONDS="0")
        gateway = installation.serve(workers=2)
        try:
            owner = Administrator(gateway.admin, installation.admin_key)
            owner.made("/tenants", {"id": "acme"})
            installation.run("tenants", "degraded", "acme", "1h")
            pids = gateway.worker_pids()
            statuses = set()
            for pid in pids:  # one of them answers, and waits for the other
                os.kill(pid, signal.SIGSTOP)
                try:
                    answer = Administrator(gateway.admin, installation.admin_key).post(
                        "/tenants/acme/suspend"
                    )
                    statuses.add(answer.status)
                    if answer.status == 202:
                        assert not answer.json()["sure"]
                        break
                except TimeoutError:  # the kernel gave the connection to the one that is stopped
                    continue
                finally:
                    os.kill(pid, signal.SIGCONT)
            assert 202 in statuses
            assert owner.get("/tenants/acme").json()["suspended"]
        finally:
            gateway.stop()

    def test_a_revoked_key_is_refused_when_the_answer_is_there_and_stays_readable(self, site):
        made = site.owner.made("/keys", {"tenant": "acme"})
        assert site.gateway.wire.get("/v1/whoami", made["token"]).status == 200
        assert site.owner.post(f"/keys/{made['id']}/revoke").status == 200
        assert site.gateway.wire.get("/v1/whoami", made["token"]).status == 401
        assert site.owner.get(f"/keys/{made['id']}").json()["state"] == "revoked"
        assert site.owner.ask("DELETE", f"/keys/{made['id']}").status == 405

    def test_a_key_that_ends_itself_is_told_so(self, site):
        spare = site.owner.made("/keys", {"name": "spare"})
        answer = site.as_key(spare["token"]).post(f"/keys/{spare['id']}/revoke")
        assert (answer.status, answer.json()["sure"]) == (200, True)
        assert site.as_key(spare["token"]).get("/tenants").status == 401

    def test_a_rotated_key_has_the_rights_of_the_old_one(self, site):
        old = site.owner.made("/keys", {"tenant": "acme", "scopes": ["read"], "networks": ["127.0.0.0/8"]})
        answer = site.owner.post(f"/keys/{old['id']}/rotate", {"overlap_seconds": 3600})
        new = answer.json()
        found = site.owner.get(answer.header("location").removeprefix("/admin/v1")).json()
        assert (found["scopes"], found["networks"]) == (["read"], ["127.0.0.0/8"])
        for token in (old["token"], new["token"]):
            assert site.gateway.wire.get("/v1/whoami", token).status == 200

    def test_grants_rules_aliases_and_groups_have_their_whole_life(self, site):
        owner = site.owner
        rule = owner.post("/model-rules", {"pattern": "acme/*", "owner": "acme"})
        assert rule.status == 201
        path = rule.header("location").removeprefix("/admin/v1")
        etag = owner.get(path).header("etag")
        changed = owner.ask("PATCH", path, {"visibility": "public"}, If_Match=etag)
        assert (changed.status, owner.get(path).json()["visibility"]) == (200, "public")
        back = owner.ask("PATCH", path, {"visibility": None}, If_Match=changed.header("etag"))
        assert (back.status, owner.get(path).json()["visibility"]) == (200, None)
        grant = owner.post(
            "/grants", {"tenant": "globex", "model": "acme/cars/*", "actions": ["read", "infer"]}
        )
        granted = grant.header("location").removeprefix("/admin/v1")
        assert owner.get(granted).json()["actions"] == ["infer", "read"]
        readers = owner.get("/readers?model=acme%2Fcars%2F1").json()
        assert {(one["tenant"], one["right"].split()[0]) for one in readers["readers"]} == {
            ("acme", "owner"),
            ("globex", "grant"),
        }
        assert owner.ask("DELETE", granted).status == 200
        assert owner.get(granted).status == 404
        assert owner.post("/aliases", {"alias": "best", "model": "acme/cars/1"}).status == 200
        assert owner.get("/aliases").json()["items"][0]["model"] == "acme/cars/1"
        assert owner.ask("DELETE", "/aliases?alias=best").status == 200
        assert owner.post("/groups/vision/add", {"patterns": ["acme/cars/*"]}).status == 200
        assert owner.get("/groups/vision").json()["patterns"] == ["acme/cars/*"]
        assert owner.post("/groups/vision/remove", {"patterns": ["acme/cars/*"]}).status == 200
        assert owner.get("/groups/vision").status == 404

    def test_what_a_key_may_do_is_explained(self, site):
        key = site.owner.made("/keys", {"tenant": "globex"})
        answer = site.owner.post("/explain", {"key_id": key["id"], "model": "acme/x/1"})
        assert not answer.json()["served"]
        assert answer.json()["explanation"]["verdict"] == "deny"


class TestPreconditions:
    def test_of_two_operators_at_once_one_is_told_so(self, site):
        site.owner.made("/tenants", {"id": "raced"})
        etag = site.owner.get("/tenants/raced").header("etag")
        answers, both = [], threading.Barrier(6)

        def change(seconds):
            both.wait()
            answers.append(
                site.owner.ask("PATCH", "/tenants/raced", {"degraded_seconds": seconds}, If_Match=etag)
            )

        threads = [threading.Thread(target=change, args=(seconds,)) for seconds in range(1, 7)]
        [one.start() for one in threads]
        [one.join() for one in threads]
        assert sorted(one.status for one in answers) == [200, 412, 412, 412, 412, 412]

    def test_a_change_of_a_record_needs_the_state_that_it_is_meant_for(self, site):
        before = site.owner.get("/tenants/acme")
        problem(
            site.owner.ask("PATCH", "/tenants/acme", {"degraded_seconds": 5}), 428, "precondition-required"
        )
        for tag in ('"0"', f"W/{before.header('etag')}", "acme", ""):
            answer = site.owner.ask("PATCH", "/tenants/acme", {"degraded_seconds": 5}, If_Match=tag)
            problem(answer, 412, "precondition-failed")
        assert site.owner.get("/tenants/acme").body == before.body

    def test_its_last_use_does_not_move_the_state_of_a_key(self, site, eventually):
        made = site.owner.made("/keys", {"tenant": "acme"})
        etag = site.owner.get(f"/keys/{made['id']}").header("etag")
        site.gateway.wire.get("/v1/whoami", made["token"])
        eventually(lambda: site.owner.get(f"/keys/{made['id']}").json()["last_used_at"])
        assert site.owner.get(f"/keys/{made['id']}").header("etag") == etag

    def test_the_digest_of_the_rules_is_their_state(self, site):
        found = site.owner.get("/policy")
        rules = {name: found.json()[name] for name in ("schema", "policies")}
        assert found.header("etag") == f'"{found.json()["digest"]}"'
        rules["policies"] += [
            {"file": "held.cedar", "text": '@id("held") forbid (principal, action == Action::"read", '
             'resource in ModelGroup::"pattern:held/*");'}
        ]  # fmt: skip
        problem(site.owner.ask("PUT", "/policy", rules), 428, "precondition-required")
        changed = site.owner.ask("PUT", "/policy", rules, If_Match=found.header("etag"))
        assert changed.status == 200, changed.body
        problem(
            site.owner.ask("PUT", "/policy", rules, If_Match=found.header("etag")), 412, "precondition-failed"
        )
        assert site.owner.get("/policy").header("etag") == changed.header("etag")

    def test_rules_that_do_not_hold_or_lock_their_author_out_are_not_put_into_force(self, site):
        found = site.owner.get("/policy")
        tag = found.header("etag")
        rules = {name: found.json()[name] for name in ("schema", "policies")}
        broken = {**rules, "policies": [{"file": "a.cedar", "text": "permit (nobody"}]}
        answer = problem(site.owner.ask("PUT", "/policy", broken, If_Match=tag), 422, "impossible-value")
        assert answer["errors"][0]["pointer"] == "/policies"
        alone = {**rules, "policies": [one for one in rules["policies"] if one["file"] != "roles.cedar"]}
        problem(site.owner.ask("PUT", "/policy", alone, If_Match=tag), 409, "conflict")
        assert site.owner.get("/policy").header("etag") == tag

    def test_what_the_policy_folder_says_is_changed_there(self, site, tmp_path):

        folder = tmp_path / "policies"
        shutil.copytree(CHECKOUT_POLICIES, folder)
        (folder / "tenants" / "example.toml").unlink()
        (folder / "tenants" / "folded.toml").write_text(
            '[tenant]\nid = "folded"\n[models]\nown = ["folded/*"]\n'
        )
        before = site.owner.get("/policy").json()
        site.installation.run("policy", "apply", str(folder), "--yes")
        tag = site.owner.get("/tenants/folded").header("etag")
        answer = site.owner.ask("PATCH", "/tenants/folded", {"degraded_seconds": 60}, If_Match=tag)
        problem(answer, 409, "folder-owned")
        assert site.owner.get("/tenants/folded").header("etag") == tag
        assert before["digest"] != ""


class TestIdempotency:
    def test_a_request_that_is_sent_twice_is_carried_out_once(self, site):
        first = site.owner.post("/keys", {"tenant": "acme"}, Idempotency_Key="once-1")
        again = site.owner.post("/keys", {"tenant": "acme"}, Idempotency_Key="once-1")
        assert (first.status, again.status) == (201, 201)
        assert again.json()["id"] == first.json()["id"]
        assert again.header("location") == first.header("location")
        assert first.json()["token"]
        assert again.json()["token"] is None
        assert again.json()["replayed"]
        assert first.json()["token"].encode() not in again.body

    def test_another_body_with_the_same_key_is_refused(self, site):
        site.owner.made("/tenants", {"id": "idem-a"})
        assert site.owner.post("/tenants", {"id": "idem-b"}, Idempotency_Key="other").status == 201
        answer = site.owner.post("/tenants", {"id": "idem-c"}, Idempotency_Key="other")
        problem(answer, 422, "reused-idempotency-key")
        assert site.owner.get("/tenants/idem-c").status == 404

    def test_the_key_of_somebody_else_replays_nothing(self, site):
        other = site.owner.made("/keys", {"name": "another owner"})["token"]
        first = site.owner.post("/keys", {"tenant": "acme"}, Idempotency_Key="leaked")
        answer = site.as_key(other).post("/keys", {"tenant": "acme"}, Idempotency_Key="leaked")
        assert answer.status == 201
        assert not answer.json()["replayed"]
        assert answer.json()["id"] != first.json()["id"]

    def test_many_at_once_make_one(self, site):
        answers, all_at_once = [], threading.Barrier(8)

        def send():
            all_at_once.wait()
            answers.append(
                site.owner.post("/keys", {"tenant": "globex", "name": "one"}, Idempotency_Key="crowd")
            )

        threads = [threading.Thread(target=send) for _ in range(8)]
        [one.start() for one in threads]
        [one.join() for one in threads]
        assert {one.status for one in answers} <= {201, 409}
        made = {one.json()["id"] for one in answers if one.status == 201}
        listed = [
            one for one in site.owner.get("/keys?tenant=globex").json()["items"] if one["name"] == "one"
        ]
        assert made == {one["id"] for one in listed}
        assert len(made) == 1

    def test_a_refused_request_is_tried_anew(self, site):
        body = {"tenant": "later"}
        assert site.owner.post("/keys", body, Idempotency_Key="retried").status == 422
        site.owner.made("/tenants", {"id": "later"})
        assert site.owner.post("/keys", body, Idempotency_Key="retried").status == 201

    def test_no_key_is_in_what_is_kept(self, site):
        made = site.owner.post("/keys", {"tenant": "acme"}, Idempotency_Key="kept").json()
        with site.installation.redis() as client:
            names = list(client.scan_iter(b"{cachegate}:idem:*"))
            assert names
            assert all(0 < client.ttl(name) <= 86_400 for name in names)
            for name in client.scan_iter(b"*"):
                if client.type(name) == b"string":
                    assert made["token"].encode() not in client.get(name)


BAD_BODIES = [
    ("/tenants", {"id": "bad", "owner": True}, 400, "/owner"),
    ("/tenants", {"id": 5}, 400, "/id"),
    ("/tenants", {}, 400, "/id"),
    ("/tenants", {"id": "../etc"}, 400, "/id"),
    ("/keys", {"tenant": "acme", "key_id": "key_000000000000"}, 400, "/key_id"),
    ("/keys", {"tenant": "acme", "generation": 1}, 400, "/generation"),
    ("/keys", {"tenant": "acme", "scopes": ["read", "everything"]}, 400, "/scopes/1"),
    ("/keys", {"tenant": "acme", "scopes": []}, 400, "/scopes"),
    ("/keys", {"tenant": "acme", "networks": ["10.0.0.1/8"]}, 422, "/networks"),
    ("/keys", {"tenant": "acme", "expires_at": "tomorrow"}, 400, "/expires_at"),
    ("/keys", {"tenant": "acme", "expires_at": "2001-01-01T00:00:00Z"}, 422, "/expires_at"),
    ("/keys", {"tenant": "acme", "expires_at": "2090-01-01T00:00:00"}, 400, "/expires_at"),
    (
        "/keys",
        {"tenant": "acme", "not_before": "2090-01-02T00:00:00Z", "expires_at": "2090-01-01T00:00:00Z"},
        422,
        "/expires_at",
    ),
    ("/keys", {"tenant": "nobody"}, 422, "/tenant"),
    ("/keys", {"tenant": "acme", "role": "owner"}, 422, "/role"),
    ("/keys", {"role": "tenant-admin"}, 422, "/role"),
    ("/keys", {"role": "auditor", "scopes": ["keys:manage"]}, 422, "/scopes"),
    ("/keys", {"scopes": ["read"]}, 422, "/scopes"),
    ("/grants", {"tenant": "acme", "model": "*"}, 422, "/model"),
    ("/grants", {"tenant": "acme"}, 422, "/model"),
    ("/grants", {"tenant": "acme", "model": "a/b", "actions": ["own"]}, 400, "/actions/0"),
    ("/grants", {"tenant": "nobody", "model": "a/b"}, 422, "/tenant"),
    ("/model-rules", {"pattern": "a/../b", "owner": "acme"}, 422, "/pattern"),
    ("/model-rules", {"pattern": "a/b"}, 422, "/owner"),
    ("/model-rules", {"pattern": "a/b", "owner": "nobody"}, 422, "/owner"),
    ("/groups/vision/add", {"patterns": ["a/b", "*"]}, 422, "/patterns/1"),
]


class TestBadInput:
    @pytest.mark.parametrize(("path", "body", "status", "pointer"), BAD_BODIES, ids=lambda one: str(one)[:40])
    def test_a_clear_problem_names_the_field_and_nothing_changes(self, site, path, body, status, pointer):
        before = site.generation()
        answer = site.owner.post(path, body)
        assert answer.status == status, answer.body
        assert [one["pointer"] for one in answer.json()["errors"]] == [pointer], answer.body
        assert site.generation() == before

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"[]",
            b'"x"',
            b"{",
            b'{"id":"a","id":"b"}',
            b'{"id":"a","\\u0069d":"b"}',
            b'{"id":NaN}',
            b'\xff\xfe{"id":"a"}',
            b'{"id":"\\ud800"}',
            b'{"a":' * 5000 + b"1" + b"}" * 5000,
            b"[" * 60_000,
        ],
        ids=lambda raw: raw[:20].decode("latin-1"),
    )
    def test_what_is_no_plain_object_is_refused(self, site, raw):
        before = site.generation()
        problem(site.owner.post("/tenants", raw), 400, "malformed-body")
        assert site.generation() == before

    def test_no_body_is_read_for_a_caller_without_a_valid_key(self, site):
        for key in (None, "cg_live_" + "0" * 30, "somebody-else's-key"):
            lines = [
                "POST /admin/v1/tenants HTTP/1.1",
                "Host: gateway",
                "Connection: close",
                "Content-Length: 60000",
            ]
            lines += [] if key is None else [f"Authorization: Bearer {key}"]
            with site.gateway.admin.connect() as connection:
                connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")  # and no body
                assert site.gateway.admin.read(connection).status == 401

    def test_a_body_that_is_too_large_is_not_read(self, site):
        problem(site.owner.post("/tenants", b" " * 70_000), 413, "body-too-large")
        problem(site.owner.ask("PUT", "/policy", b" " * 1_100_000), 413, "body-too-large")

    @pytest.mark.parametrize(
        "query",
        [
            "limit=0",
            "limit=1001",
            "limit=x",
            "limit=1&limit=2",
            "unknown=1",
            "after",
            "tenant=%ff",
            "limit=+1",
        ],
    )
    def test_a_query_that_does_not_parse_is_refused(self, site, query):
        problem(site.owner.get(f"/keys?{query}"), 400, "malformed-query")

    @pytest.mark.parametrize(
        "path",
        [
            "/tenants/%2e%2e",
            "/tenants/a%2Fb",
            "/keys/key_x",
            "/grants/acme",
            "/quarantine/x",
            "/model-rules/rule_",
        ],
    )
    def test_what_can_be_no_name_is_as_absent_as_what_is_not_there(self, site, path):
        problem(site.owner.get(path), 404, "not-found")

    def test_an_unknown_path_and_method_are_refused_as_everywhere(self, site):
        assert site.owner.get("/nothing").status == 404
        assert site.owner.get("/tenants/acme/suspend").status == 405
        assert site.owner.ask("DELETE", "/tenants").header("allow") == "GET, POST, HEAD"


class TestPages:
    def test_pages_lead_through_everything_once(self, site):
        for number in range(7):
            site.owner.post("/keys", {"tenant": "globex", "name": f"page {number}"})
        for start in ("/keys", "/keys?tenant=globex", "/tenants", "/grants"):
            whole = site.owner.get(f"{start}{'&' if '?' in start else '?'}limit=1000").json()["items"]
            found, path = [], f"{start}{'&' if '?' in start else '?'}limit=3"
            while path and len(found) < 100:  # another test may have made thousands of tenants
                page = site.owner.get(path)
                found += page.json()["items"]
                assert len(page.json()["items"]) <= 3
                link = page.header("link")
                path = link and link.partition("<")[2].partition(">")[0].removeprefix("/admin/v1")
            assert [one["id"] for one in found] == [one["id"] for one in whole[: len(found)]]
            assert len(found) >= min(len(whole), 100)
            assert len({one["id"] for one in found}) == len(found)


class TestRecords:
    def test_a_change_is_recorded_with_its_actor_and_what_was_before_and_after(self, site):
        made = site.owner.made("/keys", {"tenant": "acme"})
        site.owner.post(f"/keys/{made['id']}/revoke")
        owner_id = site.gateway.wire.get("/v1/whoami", site.owner.key).json()["key_id"]
        [created] = [one for one in site.changes_of("keys.create") if one["key_id"] == made["id"]]
        [revoked] = [one for one in site.changes_of("keys.revoke") if one["key_id"] == made["id"]]
        outcomes = {
            one["change_id"]: one for one in site.installation.records() if one["kind"] == "change-outcome"
        }
        assert (created["actor"], created["tenant"], revoked["actor"]) == (owner_id, "acme", owner_id)
        assert outcomes[revoked["id"]]["before"] == outcomes[created["id"]]["after"]
        assert outcomes[created["id"]]["before"] != outcomes[created["id"]]["after"]

    def test_a_request_is_recorded_with_its_action_and_what_it_is_about(self, site):
        record = site.record(site.owner.get("/tenants/acme"))
        assert (record["decision"], record["action"]) == ("allow", "tenants.read")
        assert record["resource"] == {"kind": "administration", "subject": "acme"}
        assert record["request"]["route"] == "/admin/v1/tenants/{id}"

    def test_a_refusal_is_recorded_with_its_reason(self, site):
        auditor = site.owner.made("/keys", {"role": "auditor"})["token"]
        record = site.record(site.as_key(auditor).post("/tenants/acme/suspend"))
        assert (record["decision"], record["reason"], record["action"]) == (
            "deny",
            "missing-scope",
            "tenants.suspend",
        )
        bad = site.record(site.owner.post("/tenants", {"x": 1}))
        assert (bad["decision"], bad["reason"]) == ("deny", "malformed-body")

    def test_a_change_that_the_facts_refuse_is_recorded_with_who_asked_for_it(self, site):
        made = site.owner.made("/keys", {"role": "operator"})
        problem(site.as_key(made["token"]).post("/tenants/nobody-here/suspend"), 404, "not-found")
        site.as_key(made["token"]).get("/tenants/nobody-here")  # a question, no change
        [refused] = [
            one
            for one in site.installation.records()
            if one["kind"] == "refused-change" and one["key_id"] == made["id"]
        ]
        assert (refused["actor"], refused["action"]) == (made["id"], "tenants.suspend")
        assert (refused["reason"], refused["subject"]) == ("absent", ["nobody-here"])

    def test_no_key_is_in_any_record(self, site):
        token = site.owner.made("/keys", {"tenant": "acme"})["token"]
        assert site.owner.post("/tenants", {"id": token}).status == 400
        assert (
            site.owner.post("/tenants", json.dumps({"id": token}).replace("c", "\\u0063").encode()).status
            == 400
        )
        assert site.owner.get(f"/tenants/{token}").status == 400
        assert site.owner.get(f"/tenants/{token.replace('g', '%67')}").status == 400
        assert site.owner.get(f"/keys?tenant={token}").status == 400
        assert token not in json.dumps(site.installation.records())


def all_pages(administrator, path, limit=1):
    """The ids of all pages of a list, in order, and the places from which it went on."""
    found, places, after = [], [], ""
    while True:
        page = administrator.get(f"{path}{'&' if '?' in path else '?'}limit={limit}{after}").json()
        found += [one["id"] for one in page["items"]]
        if page["after"] is None:
            return found, places
        places.append(page["after"])
        after = f"&after={page['after']}"


@pytest.fixture(scope="module")
def keys(site):
    """The keys of a tenant that was removed, and those of another one that took its name."""
    made = []
    for _ in range(2):
        site.owner.made("/tenants", {"id": "twice"})
        keys = [site.owner.made("/keys", {"tenant": "twice"})["id"] for _ in range(5)]
        made.append(sorted(keys))
        if len(made) == 1:
            site.installation.run("tenants", "remove", "twice", "--yes")
    return made


class TestATakenName:
    """A tenant that was removed, and another one that took its name."""

    def test_the_list_of_one_tenant_has_its_own_keys_on_whatever_pages(self, site, keys):
        former, own = keys
        assert all_pages(site.owner, "/keys?tenant=twice")[0] == own
        admin = site.owner.made("/keys", {"tenant": "twice", "role": "tenant-admin"})
        as_tenant = Administrator(site.gateway.wire, admin["token"], "/v1")
        found, places = all_pages(as_tenant, "/keys")
        assert found == sorted([*own, admin["id"]])
        assert not any(key_id.removeprefix("key_") in place for key_id in former for place in places)
        assert as_tenant.get(f"/keys/{former[0]}").status == 404

    def test_the_list_of_all_keys_has_those_of_removed_tenants(self, site, keys):
        site.owner.made("/tenants", {"id": "gone"})
        gone = site.owner.made("/keys", {"tenant": "gone"})["id"]
        site.installation.run("tenants", "remove", "gone", "--yes")
        found, _ = all_pages(site.owner, "/keys")
        assert len(found) == len(set(found))
        assert {gone, *keys[0], *keys[1]} <= set(found)

    def test_the_record_of_a_change_names_the_tenant_that_the_key_is_of(self, site, keys):
        former, own = (site.owner.get(f"/keys/{one[0]}").json() for one in keys)
        assert former["tenant_record"] != own["tenant_record"]
        for key in (former, own):
            site.owner.post(f"/keys/{key['id']}/revoke")
            [record] = [one for one in site.changes_of("keys.revoke") if one["key_id"] == key["id"]]
            assert (record["tenant"], record["tenant_record"]) == ("twice", key["tenant_record"])


def test_a_list_holds_no_worker_for_long(site):
    """A filter that matches nothing, over thousands of tenants: others have their turn between its reads."""

    async def fill(session):
        async def work(changes):
            for number in range(3000):
                name = TenantId(f"zz-many-{number:05}")
                await changes.put_tenant(
                    Tenant(tenant_id=name, name=name, is_suspended=False, created_at=1.0)
                )

        await change(session.store, work)

    site.installation.in_session(fill)
    page = site.owner.get("/tenants?limit=1000&after=zz-many-")
    assert len(page.json()["items"]) == 1000

    async def scan(session):
        """The turns of the event loop that others had during each page of the scan."""
        turns = 0

        async def others():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        key = await session.listing.find_key(site.owner_id)
        call = Call(
            action=Action.KEYS_LIST,
            session=session,
            catalogue=None,
            principal=principal_of(key, None),
            own=None,
            now=session.clock.now(),
        )
        running = asyncio.ensure_future(others())
        after, of_pages = "zz-many-02199:", []
        while after is not None:
            before = turns
            query = PagedKeys(state=KeyFilter.NOT_YET_VALID, after=after)
            page = (await list_keys(msgspec.structs.replace(call, query=query))).document
            assert page.items == []
            after = page.after
            of_pages.append(turns - before)
        running.cancel()
        return of_pages

    of_pages = site.installation.in_session(scan)
    assert len(of_pages) > 3
    assert min(of_pages[:-1]) >= MAX_WALKED  # each tenant is a read of its own, which is waited for


@pytest.fixture(scope="module")
def reborn(site):
    owner = site.owner
    owner.made("/tenants", {"id": "reborn"})
    old = {
        "key": owner.made("/keys", {"tenant": "reborn"}),
        "admin": owner.made("/keys", {"tenant": "reborn", "role": "tenant-admin"}),
        "grant": owner.made("/grants", {"tenant": "reborn", "model": "lent/1"}),
    }
    owner.made("/model-rules", {"pattern": "reborn/*", "owner": "reborn"})
    site.installation.run("tenants", "remove", "reborn", "--yes")
    owner.made("/tenants", {"id": "reborn"})
    return old


class TestWhoHadTheNameBefore:
    """A tenant was removed and another one has its name: no object of the first is one of the second."""

    def test_its_keys_are_listed_among_all_and_not_among_those_of_the_new_one(self, site, reborn):
        new = site.owner.made("/keys", {"tenant": "reborn"})["id"]
        for limit in (1, 1000):
            listed, _ = all_pages(site.owner, "/keys?tenant=reborn", limit)
            assert new in listed
            assert not {reborn["key"]["id"], reborn["admin"]["id"]} & set(listed)
        page = site.owner.get("/keys?after=reborn:&limit=1000").json()["items"]
        assert {reborn["key"]["id"], reborn["admin"]["id"], new} <= {one["id"] for one in page}
        assert len({one["tenant_record"] for one in page if one["tenant"] == "reborn"}) == 2

    def test_its_administrator_reaches_nothing_of_the_new_one(self, site, reborn):
        old = Administrator(site.gateway.wire, reborn["admin"]["token"], "/v1")
        assert old.get("/keys").status == 401
        admin = site.owner.made("/keys", {"tenant": "reborn", "role": "tenant-admin"})["token"]
        new = Administrator(site.gateway.wire, admin, "/v1")
        assert reborn["key"]["id"] not in {one["id"] for one in new.get("/keys").json()["items"]}
        for method, path in (("GET", ""), ("POST", "/revoke"), ("POST", "/rotate")):
            body = {} if path == "/rotate" else None
            assert new.ask(method, f"/keys/{reborn['key']['id']}{path}", body).status == 404
        assert new.get(f"/grants/{reborn['grant']['id']}").status == 404

    def test_a_grant_that_is_taken_away_leaves_the_others(self, site, reborn):
        first = site.owner.made("/grants", {"tenant": "reborn", "model": "lent/2"})["id"]
        second = site.owner.made("/grants", {"tenant": "reborn", "model": "lent/3"})["id"]
        assert site.owner.ask("DELETE", f"/grants/{first}").status == 200
        assert site.owner.get(f"/grants/{first}").status == 404
        assert site.owner.get(f"/grants/{second}").json()["state"] == "in-force"

    def test_its_keys_are_explained_as_refused_whatever_the_new_one_may(self, site, reborn):
        site.owner.post("/model-rules", {"pattern": "again/*", "owner": "reborn"})
        answer = site.owner.post("/explain", {"key_id": reborn["key"]["id"], "model": "again/1"}).json()
        assert not answer["served"]
        assert not answer["explanation"]["key"]["valid"]


def test_who_can_read_is_told_of_now(site):
    soon, begins = "2090-01-01T00:00:00Z", "2089-01-01T00:00:00Z"
    site.owner.made("/grants", {"tenant": "acme", "model": "timed/1", "expires_at": soon})
    later = {"tenant": "globex", "model": "timed/1", "not_before": begins, "expires_at": soon}
    site.owner.made("/grants", later)
    site.installation.run("models", "publish", "timed/2", "--expires", "1h")
    found = site.owner.get("/readers?model=timed%2F1").json()["readers"]
    assert [one["tenant"] for one in found] == ["acme"]
    found = site.owner.get("/readers?model=timed%2F2").json()["readers"]
    assert [(one["tenant"], one["right"]) for one in found] == [(None, "public")]


class TestWhatTheHeadSays:
    """A request is refused by its head as far as that says enough: its body is not waited for, nor kept."""

    def test_a_key_without_the_right_sends_no_body(self, site):
        auditor = site.owner.made("/keys", {"role": "auditor"})["token"]
        for method, path in (("POST", "/tenants"), ("PUT", "/policy"), ("POST", "/policy/apply")):
            head = (
                f"{method} /admin/v1{path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {auditor}\r\n"
                "Content-Type: application/json\r\nContent-Length: 60000\r\nConnection: close\r\n\r\n"
            )
            answer = site.gateway.admin.send(head.encode())  # and nothing of the body
            problem(answer, 403, "missing-scope")
            record = site.record(answer)
            assert (record["decision"], record["reason"]) == ("deny", "missing-scope")
            assert record["principal"] == "admin"

    def test_a_condition_that_would_not_be_looked_at_is_refused(self, site):
        before = site.generation()
        for path, body in (("/tenants", {"id": "conditional"}), ("/groups/some/add", {"patterns": ["x/*"]})):
            problem(site.owner.post(path, body, If_Match='"1"'), 400, "malformed-request")
        problem(site.owner.get("/tenants", If_Match="*"), 400, "malformed-request")
        found = {"tokens": ["nobody-knows-this"]}
        answer = site.owner.post("/keys/revoke-found", found, Idempotency_Key="once")
        problem(answer, 400, "malformed-request")
        assert site.generation() == before

    def test_a_read_is_answered_of_the_state_that_is_meant_or_not_at_all(self, site):
        tag = site.owner.get("/tenants/acme").header("etag")
        assert site.owner.get("/tenants/acme", If_Match=tag).status == 200
        assert site.owner.get("/tenants/acme", If_Match=f'"0", {tag}').status == 200
        assert site.owner.get("/tenants/acme", If_Match="*").status == 200
        problem(site.owner.get("/tenants/acme", If_Match='"0"'), 412, "precondition-failed")


@pytest.fixture(scope="module")
def bound(site):
    """Somebody whose key is bound to networks."""
    order = {"role": "operator", "networks": ["127.0.0.0/8", "10.0.0.0/8"]}
    return site.as_key(site.owner.made("/keys", order)["token"])


class TestNetworks:
    """A key that is bound to networks hands out none that is of use elsewhere."""

    def test_who_names_none_hands_on_its_own(self, site, bound):
        made = bound.made("/keys", {"tenant": "acme", "expires_at": "2027-06-01T00:00:00Z"})
        assert made["key"]["networks"] == ["10.0.0.0/8", "127.0.0.0/8"]
        assert site.owner.get(f"/keys/{made['id']}").json()["networks"] == made["key"]["networks"]

    @pytest.mark.parametrize(
        ("networks", "status"),
        [
            (["10.1.0.0/16"], 201),
            (["127.0.0.1/32", "10.0.0.0/8"], 201),
            (["192.0.2.0/24"], 403),
            (["10.0.0.0/8", "192.0.2.0/24"], 403),
            (["0.0.0.0/0"], 403),
            (["::/0"], 403),
        ],
    )
    def test_it_hands_out_parts_of_its_own_alone(self, bound, networks, status):
        order = {"tenant": "acme", "networks": networks, "expires_at": "2027-06-01T00:00:00Z"}
        answer = bound.post("/keys", order)
        assert answer.status == status, answer.body
        if status == 403:
            assert [one["pointer"] for one in answer.json()["errors"]] == ["/networks"]

    def test_it_neither_frees_nor_replaces_nor_enables_a_key_that_is_of_use_elsewhere(self, site, bound):
        order = {"tenant": "acme", "expires_at": "2027-06-01T00:00:00Z"}
        free = site.owner.made("/keys", order)["id"]
        own = bound.made("/keys", order)["id"]
        freed = bound.ask("PATCH", f"/keys/{own}", {"networks": None}, If_Match="*")
        assert freed.status == 403, freed.body
        assert bound.post(f"/keys/{free}/rotate", {}).status == 403
        assert bound.post(f"/keys/{free}/disable").status == 200
        assert bound.post(f"/keys/{free}/enable").status == 403
        assert bound.post(f"/keys/{own}/rotate", {}).status == 201

    def test_its_access_tokens_are_bound_as_it_is(self, site, bound):
        answer = site.as_key(site.token(bound.key)).post(
            "/keys", {"tenant": "acme", "networks": ["192.0.2.0/24"]}
        )
        assert answer.status == 403


class TestPublicationsForATime:
    SOON, LATER = "2027-06-01T00:00:00Z", "2090-01-01T00:00:00Z"

    def test_a_rule_is_made_and_changed_with_its_times(self, site):
        owner = site.owner
        order = {"pattern": "timed/*", "visibility": "public", "expires_at": self.SOON}
        made = owner.post("/model-rules", order)
        assert made.status == 201, made.body
        path = f"/model-rules/{made.json()['id']}"
        rule = owner.get(path).json()
        assert (rule["state"], rule["not_before"], rule["expires_at"]) == ("in-force", None, self.SOON)
        [change] = [one for one in site.changes_of("model-rules.create") if one["subject"][0] == "timed/*"]
        assert change["subject"][1].startswith("until 2027-06-01")

        def patch(**what):
            return owner.ask("PATCH", path, what, If_Match="*")

        assert patch(not_before="2026-12-31T00:00:00Z").status == 200
        rule = owner.get(path).json()  # what was left out stays
        assert (rule["not_before"], rule["expires_at"]) == ("2026-12-31T00:00:00Z", self.SOON)
        assert patch(not_before=None, expires_at=self.LATER).status == 200
        rule = owner.get(path).json()
        assert (rule["state"], rule["not_before"], rule["expires_at"]) == ("in-force", None, self.LATER)
        assert patch(visibility="private").status == 200
        assert owner.get(path).json()["expires_at"] is None
        assert patch(expires_at=None).status == 200  # what is not there can be taken away
        assert owner.get(path).json()["visibility"] == "private"
        assert patch(expires_at=self.LATER).json()["errors"][0]["pointer"] == "/visibility"
        assert patch(visibility="public", expires_at="2001-01-01T00:00:00Z").status == 422
        assert patch(visibility="public", expires_at=self.LATER).status == 200
        assert patch(visibility=None).status == 200
        assert owner.get(path).status == 404  # nothing is left to be said, its times included

    def test_several_are_published_in_one_transaction_and_shown(self, site):
        body = {"patterns": ["lent/1", "lent/2"], "expires_at": self.SOON}
        done = site.owner.post("/model-rules/publish", body)
        assert done.status == 200, done.body
        listed = {one["pattern"]: one for one in site.owner.get("/model-rules?limit=1000").json()["items"]}
        assert {listed[one]["expires_at"] for one in body["patterns"]} == {self.SOON}
        key = site.owner.made("/keys", {"tenant": "globex"})["id"]
        told = site.owner.post("/explain", {"key_id": key, "model": "lent/1"}).json()
        assert self.SOON in json.dumps(told)

    def test_it_ends_at_its_moment_in_every_worker(self, site, eventually):
        token = site.owner.made("/keys", {"tenant": "globex"})["token"]
        ends = datetime.now(UTC) + timedelta(seconds=3)
        body = {"patterns": ["brief/*"], "expires_at": ends.isoformat(timespec="milliseconds")}
        assert site.owner.post("/model-rules/publish", body).status == 200
        listed = {one["pattern"]: one for one in site.owner.get("/model-rules?limit=1000").json()["items"]}
        key_id = site.gateway.wire.get("/v1/whoami", token).json()["key_id"]

        def verdicts():
            asked = {"key_id": key_id, "model": "brief/1"}
            return {site.owner.post("/explain", asked).json()["explanation"]["verdict"] for _ in range(6)}

        assert "brief/*" in listed
        eventually(lambda: datetime.now(UTC) > ends)
        assert verdicts() == {"deny"}


class TestManyAtOnce:
    """What commands do with several things at once is one change here, too."""

    def test_what_was_not_there_is_told_and_the_rest_is_done(self, site):
        owner = site.owner
        several = {"tenant": "acme", "patterns": ["many/1", "many/2"]}
        assert owner.post("/model-rules/own", several).json()["changed"]
        gone = owner.post("/model-rules/disown", {"tenant": "acme", "patterns": ["many/1", "many/3"]}).json()
        assert gone["changed"]
        [missing] = gone["missing"]
        assert missing["name"] == "many/3"
        assert missing["nearest"] in several["patterns"]
        made = owner.post("/grants", {"tenant": "globex", "models": ["many/1", "many/2"], "groups": ["g"]})
        assert made.status == 201, made.body
        taken = owner.post("/grants/remove", {"tenant": "globex", "models": ["many/1", "many/9"]}).json()
        assert [one["name"] for one in taken["missing"]] == ["many/9"]
        left = owner.get("/grants?tenant=globex&limit=1000").json()["items"]
        assert {model for one in left for model in one["models"]} >= {"many/2"}
        assert "many/1" not in {model for one in left for model in one["models"]}

    def test_who_owns_them_decides_in_one_transaction(self, site):
        site.owner.post("/model-rules/own", {"tenant": "acme", "patterns": ["taken/1"]})
        both = {"tenant": "globex", "patterns": ["free/1", "taken/1"]}
        problem(site.owner.post("/model-rules/own", both), 409, "conflict")
        patterns = {one["pattern"] for one in site.owner.get("/model-rules?limit=1000").json()["items"]}
        assert "free/1" not in patterns


class TestWhoseATokenIs:
    def test_a_found_key_is_identified_and_nothing_of_it_is_told_or_recorded(self, site):
        made = site.owner.made("/keys", {"tenant": "acme"})
        answer = site.owner.post("/keys/identify", {"token": made["token"]})
        assert (answer.status, answer.json()["id"]) == (200, made["id"])
        assert made["token"] not in answer.body.decode()
        assert made["token"] not in json.dumps(site.installation.records())
        stranger = site.owner.post("/keys/identify", {"token": "nobody-knows-this-one"})
        problem(stranger, 409, "conflict")
        assert b"nobody-knows" not in stranger.body


@pytest.fixture(scope="module")
def folder(site):
    """The rules in force, and a document of a tenant."""
    now = site.owner.get("/policy").json()
    document = '[tenant]\nid = "sent"\n\n[models]\nown = ["sent/*"]\n'
    return {
        "schema": now["schema"],
        "policies": now["policies"],
        "tenants": [{"file": "sent.toml", "text": document}],
    }


class TestPolicyFolders:
    def test_a_folder_is_planned_and_applied_if_it_is_what_was_shown(self, site, folder):
        plan = site.owner.post("/policy/plan", folder).json()
        assert [line for line in plan["changes"] if "sent" in line]
        wrong = site.owner.post("/policy/apply", {**folder, "confirmed": "0" * 64})
        problem(wrong, 409, "conflict")
        assert site.owner.get("/tenants/sent").status == 404
        done = site.owner.post("/policy/apply", {**folder, "confirmed": plan["digest"]})
        assert (done.status, done.json()["plan"]["changes"]) == (200, plan["changes"])
        assert site.owner.get("/tenants/sent").json()["source"] == "policies:sent"
        assert site.owner.post("/policy/plan", folder).json()["changes"] == []

    @pytest.mark.parametrize(
        "more",
        [
            {"tenants": [{"file": "../x.toml", "text": ""}]},
            {"tenants": [{"file": "x.toml", "text": ""}, {"file": "x.toml", "text": ""}]},
            {"tenants": [{"file": "x.toml", "text": "[tenant"}]},
            {"tests": [{"file": "x.toml", "text": "[[cases]]\nname = 1"}]},
            {"policies": [{"file": "x.cedar", "text": "permit (principal, action, resource);"}]},
            {"policies": [{"file": "x.cedar", "text": '@id("x")\npermit (principal, action, resource'}]},
            {"schema": "nonsense"},
            {"tenants": [{"file": "x.toml\n", "text": ""}]},
            {"tenants": None},
        ],
        ids=str,
    )
    def test_what_is_no_folder_is_refused_and_leaves_nothing_behind(self, site, folder, more):
        before = site.generation(), site.owner.get("/policy").header("etag")
        answer = site.owner.post("/policy/apply", {**folder, **more})
        assert answer.status in {400, 422}, answer.body
        assert str(site.installation.state) not in answer.body.decode()
        assert (site.generation(), site.owner.get("/policy").header("etag")) == before
        assert not [*site.installation.state.glob("policies-*")]

    def test_a_folder_whose_tenants_were_forgotten_is_not_one_without_tenants(self, site, folder):
        forgotten = {name: said for name, said in folder.items() if name != "tenants"}
        for path in ("/policy/plan", "/policy/apply"):
            refused = problem(site.owner.post(path, forgotten), 400, "malformed-body")
            assert refused["errors"][0]["pointer"] == "/tenants"

    def test_rules_with_a_file_that_no_folder_would_have_are_refused(self, site):
        now = site.owner.get("/policy")
        files = [{"file": "more.cedar\n", "text": ""}, *now.json()["policies"]]
        sent = {"schema": now.json()["schema"], "policies": files}
        refused = site.owner.ask("PUT", "/policy", sent, If_Match=now.header("etag"))
        problem(refused, 422, "impossible-value")
        assert site.owner.get("/policy").header("etag") == now.header("etag")

    def test_rules_that_would_lock_their_author_out_are_not_applied(self, site, folder):
        rules = [{"file": "x.cedar", "text": '@id("x")\nforbid (principal, action, resource);'}]
        problem(site.owner.post("/policy/apply", {**folder, "policies": rules}), 409, "conflict")
        assert site.owner.get("/tenants").status == 200
