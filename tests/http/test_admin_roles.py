"""Every operation with every role and every owner of the object, on both faces of the administration.

What each role may do is written down here by hand; no code of the gateway computes it.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import pytest

from gateway.admin.face import OPERATIONS, OWN_OPERATIONS
from gateway.model.facts import Scope
from tests.administration import Administrator

EVERY_READ = {
    *("tenants.list", "tenants.read", "keys.list", "keys.read", "grants.list", "grants.read"),
    *("keys.report", "keys.rotations", "keys.identify", "tenants.removed"),
    *("models.list", "models.read", "policy.plan"),
    *("model-rules.list", "model-rules.read", "aliases.list", "groups.list", "groups.read", "policy.read"),
    *("quarantine.list", "quarantine.read", "issuers.list", "issuers.read", "bindings.list"),
    *("bindings.read", "access.explain", "access.readers"),
}
EVERY_CHANGE = {one.action.value for one in OPERATIONS} - EVERY_READ
MAY = {
    "owner": EVERY_READ | EVERY_CHANGE,
    "operator": EVERY_READ | EVERY_CHANGE - {"policy.change", "policy.apply"},
    "auditor": EVERY_READ,
    "owner, token that reads": EVERY_READ,
    "owner, token for a model": set(),
    "owner without keys:manage": EVERY_READ,
    "owner that introspects": set(),
    "tenant-admin": set(),
    "tenant": set(),
    "tenant with all scopes": set(),
}
OWN = {one.action.value for one in OWN_OPERATIONS}
OWN_READS = {"keys.list", "keys.read", "keys.report", "grants.list", "grants.read"}
MAY_OWN = {name: set() for name in MAY} | {"tenant-admin": OWN, "tenant-admin that reads": OWN_READS}
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


@dataclass
class Site:
    installation: Any
    gateway: Any
    owner: Administrator
    keys: dict[str, str]
    objects: dict[str, str]

    def on_admin(self, who):
        return replace(self.owner, key=self.keys[who])

    def on_public(self, who):
        return Administrator(self.gateway.wire, self.keys[who], "/v1")

    def token(self, key, **narrowed):
        form = {
            "grant_type": EXCHANGE,
            "subject_token": key,
            "subject_token_type": "urn:cachegate:token-type:api-key",
            **narrowed,
        }
        body = urlencode(form).encode()
        head = (
            "POST /v1/token HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        answer = self.gateway.wire.send(head.encode() + body)
        assert answer.status == 200, answer.body
        return answer.json()["access_token"]

    def record(self, answer):
        [record] = [one for one in self.installation.records() if one.get("id") == answer.record_id]
        return record


@pytest.fixture(scope="module")
def site(new_installation):
    installation = new_installation(
        "roles",
        CACHEGATE_PUBLIC_URL="https://models.example",
        CACHEGATE_LEASE_MILLISECONDS="5000",
        CACHEGATE_CANARY_SECONDS="0",
        CACHEGATE_AUDIT_REFUSALS_PER_SECOND="10000",
    )
    gateway = installation.serve()
    try:
        owner = Administrator(gateway.admin, installation.admin_key)
        for tenant in ("acme", "globex"):
            owner.made("/tenants", {"id": tenant})

        def key(**order):
            return owner.made("/keys", order)["token"]

        def by_command(*order):  # the first key has not all scopes, and hands out none that it has not
            return installation.json("keys", "create", *order)["token"]

        every = [part for scope in Scope for part in ("--scopes", scope.value)]
        site = Site(installation, gateway, owner, {}, {})
        site.keys = {
            "owner": installation.admin_key,
            "operator": key(role="operator"),
            "auditor": key(role="auditor"),
            "owner, token that reads": site.token(installation.admin_key, scope="audit:read"),
            "owner, token for a model": site.token(installation.admin_key, model="acme/*"),
            "owner without keys:manage": key(scopes=["audit:read"]),
            "owner that introspects": by_command("--admin", "--scopes", "tokens:introspect"),
            "tenant-admin": key(tenant="acme", role="tenant-admin"),
            "tenant-admin that reads": key(tenant="acme", role="tenant-admin", scopes=["audit:read"]),
            "tenant": key(tenant="acme"),
            "tenant with all scopes": by_command("--tenant", "acme", *every),
        }
        for tenant in ("acme", "globex"):
            site.objects[f"key of {tenant}"] = owner.made("/keys", {"tenant": tenant})["id"]
            grant = owner.made("/grants", {"tenant": tenant, "model": f"shared/{tenant}"})
            site.objects[f"grant of {tenant}"] = grant["id"]
        yield site
    finally:
        gateway.stop()
    assert "Traceback" not in gateway.log(), gateway.log()


def ids(site, operation, owner):
    match operation.path.split("/")[1]:
        case "keys":
            return site.objects[f"key of {owner}"]
        case "grants":
            return site.objects[f"grant of {owner}"]
        case "tenants":
            return owner
        case _:
            return "none"


def is_let(answer):
    """Whether the rules let it: what it came to is another question."""
    if answer.status == 401:
        return None
    return answer.status != 403


@pytest.mark.parametrize("who", MAY)
def test_every_operation_of_the_admin_api_is_for_those_roles_and_no_others(site, who):
    for one in OPERATIONS:
        for owner in ("acme", "globex"):
            path = one.path.replace("{id}", ids(site, one, owner))
            # An unknown field: nobody gets further than the decision, so that nothing is changed here.
            answer = site.on_admin(who).ask(one.method, path, {"nobody-knows": 1})
            assert is_let(answer) is (one.action.value in MAY[who]), (one.action, owner, answer.body)
            if answer.status == 403:
                record = site.record(answer)
                assert (record["decision"], record["action"]) == ("deny", one.action.value)


@pytest.mark.parametrize("who", MAY_OWN)
def test_every_operation_of_tenants_is_for_their_administrators_alone(site, who):
    for one in OWN_OPERATIONS:
        path = one.path.replace("{id}", ids(site, one, "acme"))
        answer = site.on_public(who).ask(one.method, path, {"nobody-knows": 1})
        assert is_let(answer) is (one.action.value in MAY_OWN[who]), (one.action, answer.body)


def test_what_is_another_tenants_is_as_absent_as_what_is_not_there(site):
    admin = site.on_public("tenant-admin")
    absent = {"keys": "key_000000000000", "grants": "acme:grant_00000000"}
    for one in OWN_OPERATIONS:
        if "{id}" not in one.path:
            continue
        kind = one.path.split("/")[1]
        body = {} if one.body else None
        match = {"If_Match": "*"} if one.needs_match else {}
        other = admin.ask(one.method, one.path.replace("{id}", ids(site, one, "globex")), body, **match)
        nothing = admin.ask(one.method, one.path.replace("{id}", absent[kind]), body, **match)
        assert other.status == nothing.status == 404, (one.action, other.body)
        assert other.comparable() == nothing.comparable()
    assert site.owner.get(f"/keys/{site.objects['key of globex']}").json()["state"] == "live"
    assert site.owner.get(f"/grants/{site.objects['grant of globex']}").status == 200


def test_a_tenant_sees_and_makes_its_own_and_nothing_else(site):
    admin = site.on_public("tenant-admin")
    made = admin.post("/keys", {"name": "laptop", "expires_at": "2027-06-01T00:00:00Z"})
    assert made.status == 201, made.body
    assert made.header("location") == f"/v1/keys/{made.json()['id']}"
    whoami = site.gateway.wire.get("/v1/whoami", made.json()["token"]).json()
    assert (whoami["tenant"], whoami["name"]) == ("acme", "laptop")
    listed = admin.get("/keys?limit=1000").json()["items"]
    assert {one["tenant"] for one in listed} == {"acme"}
    assert {one["tenant"] for one in admin.get("/grants").json()["items"]} == {"acme"}
    assert admin.post(f"/keys/{made.json()['id']}/revoke").status == 200
    assert site.gateway.wire.get("/v1/whoami", made.json()["token"]).status == 401


@pytest.mark.parametrize(
    "more",
    [
        {"tenant": "globex"},
        {"role": "tenant-admin"},
        {"sha256": "0" * 64},
        {"key_id": "x"},
        {"source": "cli"},
    ],
)
def test_a_tenant_says_nothing_that_is_not_its_own_to_say(site, more):
    answer = site.on_public("tenant-admin").post("/keys", {"expires_at": "2027-06-01T00:00:00Z", **more})
    assert answer.status == 400
    assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(more))}"


@pytest.mark.parametrize("query", ["tenant=globex", "admin=true"])
def test_no_query_reaches_another_tenant(site, query):
    assert site.on_public("tenant-admin").get(f"/keys?{query}").status == 400
    assert site.on_public("tenant-admin").get("/keys?after=globex:").json()["items"][0]["tenant"] == "acme"


SOON = "2027-06-01T00:00:00Z"
HANDED = [
    # who, what, and the field for which it is refused
    ("owner", {"role": "owner"}, None),
    ("owner", {"role": "operator"}, None),
    ("owner", {"tenant": "acme"}, None),
    ("operator", {"tenant": "acme", "scopes": ["decisions:ask"], "expires_at": SOON}, "/scopes"),
    ("operator", {"role": "owner", "expires_at": SOON}, "/role"),
    ("operator", {"role": "operator", "expires_at": SOON}, "/role"),
    ("operator", {"expires_at": SOON}, "/role"),  # an admin key that names none is an owner's
    ("operator", {"role": "auditor", "expires_at": SOON}, None),
    ("operator", {"role": "auditor"}, "/expires_at"),
    ("operator", {"tenant": "acme", "expires_at": SOON}, None),
    ("operator", {"tenant": "acme"}, "/expires_at"),
    ("operator", {"tenant": "acme", "expires_at": "2090-01-01T00:00:00Z"}, "/expires_at"),
    ("operator", {"tenant": "acme", "role": "tenant-admin", "expires_at": SOON}, None),
    ("operator", {"tenant": "acme", "scopes": ["tokens:introspect"], "expires_at": SOON}, "/scopes"),
]


@pytest.mark.parametrize(("who", "order", "pointer"), HANDED, ids=str)
def test_a_role_hands_out_what_its_row_says(site, who, order, pointer):
    answer = site.on_admin(who).post("/keys", order)
    if pointer is None:
        assert answer.status == 201, answer.body
        return
    assert answer.status == 403, answer.body
    assert answer.json()["type"] == "urn:cachegate:problem:excess-rights"
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    outcome = site.installation.outcome_of(answer.record_id)
    assert (outcome["status"], outcome["reason"]) == (403, "excess-rights")


def test_a_narrowed_token_hands_out_no_more_than_it_has(site):
    narrowed = replace(site.owner, key=site.token(site.keys["owner"], scope="keys:manage"))
    for order in ({"role": "auditor"}, {"role": "owner"}, {"tenant": "acme", "scopes": ["audit:read"]}):
        assert narrowed.post("/keys", order).status == 403
    assert narrowed.post("/keys", {"tenant": "acme"}).status == 201
    full = replace(site.owner, key=site.token(site.keys["owner"]))
    assert full.post("/keys", {"role": "owner"}).status == 403


def test_an_operator_neither_ends_nor_replaces_the_keys_of_owners(site):
    operator = site.on_admin("operator")
    for role in ("owner", "operator"):
        key_id = site.owner.made("/keys", {"role": role})["id"]
        assert operator.post(f"/keys/{key_id}/revoke").status == 403
        assert operator.post(f"/keys/{key_id}/rotate", {"expires_at": SOON}).status == 403
        assert site.owner.get(f"/keys/{key_id}").json()["state"] == "live"
    own = site.gateway.wire.get("/v1/whoami", site.keys["operator"]).json()["key_id"]
    assert operator.post(f"/keys/{own}/rotate", {"expires_at": SOON}).status == 403


def test_the_keys_that_were_there_before_are_owners(site):
    own = site.gateway.wire.get("/v1/whoami", site.keys["owner"]).json()["key_id"]
    assert site.owner.get(f"/keys/{own}").json()["role"] == "owner"


def test_an_administering_key_reads_no_content(site):
    for who in ("owner", "operator", "auditor", "tenant-admin"):
        assert site.gateway.wire.get("/v1/models", site.keys[who]).status == 403


def test_no_secret_is_in_what_is_recorded(site):
    records = json.dumps(site.installation.records())
    assert not [who for who, key in site.keys.items() if key in records]


def test_the_record_of_a_request_with_an_access_token_names_the_token(site):
    token = site.keys["owner, token that reads"]
    claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    for path, status in (("/tenants", 200), ("/tenants/nobody/suspend", 403)):
        ask = site.on_admin("owner, token that reads")
        answer = ask.get(path) if status == 200 else ask.post(path)
        assert (answer.status, site.record(answer)["token_id"]) == (status, claims["jti"])
    found = site.installation.run("audit", "search", "--token-id", claims["jti"], "--json").stdout
    named = [json.loads(line)["token_id"] for line in found.splitlines()]
    assert len(named) >= 2
    assert set(named) == {claims["jti"]}
    assert "token_id" not in site.record(site.owner.get("/tenants"))
