"""Off-boarding and the move of ownership, through the admin API."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gateway.configuration.settings import CHECKOUT_POLICIES
from tests.administration import Administrator


@dataclass
class Site:
    installation: Any
    gateway: Any
    owner: Administrator

    def tenant(self, name):
        """A tenant with a key, a model, a grant, and another's grant on its model."""
        self.owner.made("/tenants", {"id": name})
        key = self.owner.made("/keys", {"tenant": name})
        self.owner.made("/model-rules", {"pattern": f"{name}/*", "owner": name})
        self.owner.made("/grants", {"tenant": name, "model": "shared/1"})
        lent = self.owner.made("/grants", {"tenant": "globex", "model": f"{name}/1"})
        return key, lent["id"]

    def owners(self):
        listed = self.owner.get("/model-rules?limit=1000").json()["items"]
        return {one["pattern"]: one["owner"] for one in listed}


@pytest.fixture(scope="module")
def site(new_installation):
    installation = new_installation("admin-removals", CACHEGATE_CANARY_SECONDS="0")
    gateway = installation.serve(workers=2)
    try:
        owner = Administrator(gateway.admin, installation.admin_key)
        owner.made("/tenants", {"id": "globex"})
        yield Site(installation, gateway, owner)
    finally:
        gateway.stop()
    assert "Traceback" not in gateway.log(), gateway.log()
    installation.verify_audit()


def test_a_dry_run_shows_the_plan_and_changes_nothing(site):
    key, lent = site.tenant("shown")
    before = site.installation.in_session(lambda session: session.store.generation())
    answer = site.owner.post("/tenants/shown/remove?dry_run=true&restorable_days=1")
    assert answer.status == 200, answer.body
    document = answer.json()
    assert (document["changed"], document["done"]) == (False, None)
    plan = document["plan"]
    assert (plan["keys"], plan["patterns"], plan["restorable_seconds"]) == (1, ["shown/*"], 86_400)
    assert plan["grants_of_others"] == [{"tenant": "globex", "grants": [lent.partition(":")[2]]}]
    assert site.installation.in_session(lambda session: session.store.generation()) == before
    assert site.gateway.wire.get("/v1/whoami", key["token"]).status == 200
    here = site.installation.json("tenants", "remove", "shown", "--dry-run", "--restorable", "1d")
    assert plan == here


def test_a_removed_tenant_is_gone_listed_and_comes_back_without_its_keys(site):
    key, lent = site.tenant("leaving")
    removed = site.owner.post("/tenants/leaving/remove")
    assert removed.status == 200, removed.body
    assert (removed.json()["sure"], removed.json()["done"]["keys"]) == (True, 1)
    assert site.gateway.wire.get("/v1/whoami", key["token"]).status == 401
    assert site.owner.get("/tenants/leaving").status == 404
    assert site.owner.get(f"/grants/{lent}").status == 404
    assert site.owner.post("/tenants/leaving/remove").status == 404
    [listed] = [
        one for one in site.owner.get("/removed-tenants").json()["items"] if one["tenant"] == "leaving"
    ]
    assert listed["removal_id"] == removed.json()["done"]["removal_id"]
    restored = site.owner.post("/tenants/leaving/restore", {"removal": listed["removal_id"]})
    assert restored.status == 200, restored.body
    assert (restored.json()["left"], restored.json()["record"]) == ([], listed["record_id"])
    assert site.owner.get("/tenants/leaving").status == 200
    assert site.owner.get(f"/grants/{lent}").status == 200
    assert site.gateway.wire.get("/v1/whoami", key["token"]).status == 401
    assert site.owner.post("/tenants/leaving/restore").status == 409


def test_the_actor_of_each_step_is_the_key(site):
    site.tenant("traced")
    site.owner.post("/tenants/traced/remove")
    own = site.gateway.wire.get("/v1/whoami", site.owner.key).json()["key_id"]
    steps = [
        one
        for one in site.installation.records()
        if one["kind"] == "change"
        and one.get("tenant") == "traced"
        and one["action"].startswith(("tenants.remove", "removal."))
    ]
    assert {"tenants.remove", "removal.keys", "removal.end"} <= {one["action"] for one in steps}
    assert {one["actor"] for one in steps} == {own}


def test_the_list_of_removals_leads_through_everything(site):
    for name in ("page-a", "page-b", "page-c"):
        site.owner.made("/tenants", {"id": name})
        assert site.owner.post(f"/tenants/{name}/remove").status == 200
    found, path = [], "/removed-tenants?limit=1"
    while path:
        page = site.owner.get(path)
        found += [one["tenant"] for one in page.json()["items"]]
        link = page.header("link")
        path = link and link.partition("<")[2].partition(">")[0].removeprefix("/admin/v1")
    whole = [one["tenant"] for one in site.owner.get("/removed-tenants").json()["items"]]
    assert found == whole
    assert {"page-a", "page-b", "page-c"} <= set(found)
    assert site.owner.get("/removed-tenants?after=rem_00").status == 422


def test_what_cannot_be_removed_or_restored_is_told_so(site):
    assert site.owner.post("/tenants/nobody/remove").status == 404
    assert site.owner.post("/tenants/nobody/restore").status == 404
    assert site.owner.post("/tenants/globex/restore").status == 409  # it is there, and was never removed
    assert site.owner.post("/tenants/globex/remove?restorable_days=91").status == 400
    assert site.owner.post("/tenants/globex/restore", {"removal": "x"}).status == 400
    assert site.owner.get("/tenants/globex").status == 200


def test_a_tenant_of_which_the_policy_folder_says_something_stays(site, tmp_path):
    folder = tmp_path / "policies"
    shutil.copytree(CHECKOUT_POLICIES, folder)
    (folder / "tenants" / "example.toml").unlink()
    (folder / "tenants" / "folded.toml").write_text('[tenant]\nid = "folded"\n[models]\nown = ["folded/*"]\n')
    site.installation.run("policy", "apply", str(folder), "--yes")
    assert site.owner.post("/tenants/folded/remove?dry_run=true").json()["plan"]["in_the_way"]
    assert site.owner.post("/tenants/folded/remove").status == 409
    assert site.owner.get("/tenants/folded").status == 200


def test_ownership_moves_in_one_transaction_or_not_at_all(site):
    site.tenant("giving")
    site.owner.made("/model-rules", {"pattern": "given/*", "owner": "giving", "visibility": "public"})
    site.owner.made("/tenants", {"id": "taking"})
    order = {"from_tenant": "giving", "to_tenant": "taking"}
    some = site.owner.post("/model-rules/move", {**order, "patterns": ["given/*", "globex/*"]})
    assert (some.status, some.json()["changed"]) == (200, False)
    assert [one["name"] for one in some.json()["missing"]] == ["globex/*"]
    assert site.owners()["given/*"] == "giving"
    moved = site.owner.post("/model-rules/move", {**order, "patterns": ["given/*"]})
    assert moved.status == 200, moved.body
    assert (site.owners()["given/*"], site.owners()["giving/*"]) == ("taking", "giving")
    assert site.owner.post("/model-rules/move", order).status == 200
    assert site.owners()["giving/*"] == "taking"
    again = site.owner.post("/model-rules/move", order)
    assert (again.status, again.json()["changed"]) == (200, False)
    for bad, pointer in (({"to_tenant": "nobody"}, "/to_tenant"), ({"from_tenant": "no"}, "/from_tenant")):
        answer = site.owner.post("/model-rules/move", {**order, **bad})
        assert (answer.status, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_an_auditor_sees_removals_and_removes_nothing(site):
    site.owner.made("/tenants", {"id": "kept"})
    auditor = replace(site.owner, key=site.owner.made("/keys", {"role": "auditor"})["token"])
    assert auditor.get("/removed-tenants").status == 200
    for path in ("/tenants/kept/remove", "/tenants/kept/remove?dry_run=true", "/tenants/kept/restore"):
        assert auditor.post(path).status == 403
    assert site.owner.get("/tenants/kept").status == 200
