"""I6: a change that returned is in force for every request that starts after it, in every worker.

Clients request one resource all the time while the command runs. Each answer is placed on a time line by the
moment at which it was requested; none that was requested after the command returned may reflect the old
facts. A grant takes effect as fast as a revocation.
"""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.directory.edits import models as model_operations
from gateway.model.names import parse_pattern

pytestmark = pytest.mark.slow

OWN = "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"
CLIENTS = 4
ENOUGH = 20  # answers after a change, however long they take


@pytest.fixture(scope="module")
def fleet(build_world):
    """Four workers, and a tenant that only commands know: what they change, they change back."""
    for built in build_world("fleet", workers=4):
        built.installation.run("tenants", "create", "umbrella")
        created = built.installation.json("keys", "create", "--tenant", "umbrella")
        umbrella = replace(
            built.callers["hooli"], tenant="umbrella", **{k: created[k] for k in ("token", "key_id")}
        )
        yield replace(built, callers={**built.callers, "umbrella": umbrella})


@contextmanager
def hammering(fleet, path, caller):
    """Clients that request one resource all the time; yields the list of (requested at, status)."""
    seen, is_over, faults = [], threading.Event(), []

    def client():
        try:
            while not is_over.is_set():
                # A connection for a few requests only, so that all workers get requests.
                with fleet.wire.talk() as talk:
                    for _ in range(5):
                        asked_at = time.monotonic()
                        answer = talk.get(path, headers=caller.headers)
                        seen.append((asked_at, answer.status, answer.record_id))
        except OSError as error:
            faults.append(error)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert faults == []


def changes_at_once(fleet, path, caller, before, after, *command):
    """Run a command under load; requests sent after it returned get the new answer."""
    with hammering(fleet, path, fleet.callers[caller]) as seen:
        while not seen:
            time.sleep(0.01)
        started_at = time.monotonic()
        fleet.installation.run(*command)
        returned_at = time.monotonic()
        while len([one for one in list(seen) if one[0] >= returned_at]) < ENOUGH:
            time.sleep(0.01)
    old = {status for asked_at, status, _ in seen if asked_at < started_at}
    late = [status for asked_at, status, _ in seen if asked_at >= returned_at]
    assert old == {before}
    assert set(late) == {after}
    # 503 while facts change during a request is correct; any other answer in between would be wrong.
    assert {status for _, status, _ in seen} <= {before, after, 503}


def test_a_revoked_key_is_refused_from_then_on(fleet):
    key_id = fleet.callers["acme reads only"].key_id
    changes_at_once(fleet, OWN, "acme reads only", 200, 401, "keys", "revoke", key_id)


def test_a_suspended_tenant_is_refused_and_a_resumed_one_let_in_from_then_on(fleet):
    path = "/v1/models/public/demo/1/-/pkgD1/weights.onnx"
    changes_at_once(fleet, path, "umbrella", 200, 401, "tenants", "suspend", "umbrella")
    changes_at_once(fleet, path, "umbrella", 401, 200, "tenants", "resume", "umbrella")


def test_a_new_grant_opens_from_then_on_and_a_removed_one_no_more(fleet):
    path = "/v1/models/acme/trucks/2/-/pkgT1/weights.onnx"
    grant = ("--tenant", "umbrella", "--models", "acme/trucks/*")
    changes_at_once(fleet, path, "umbrella", 404, 200, "grants", "add", *grant)
    changes_at_once(fleet, path, "umbrella", 200, 404, "grants", "remove", *grant)


def test_a_published_model_is_shown_from_then_on_and_an_unpublished_one_hidden(fleet):
    path = "/v1/models/orphan/model/1/-/pkgX1/weights.onnx"
    changes_at_once(fleet, path, "umbrella", 404, 200, "models", "publish", "orphan/*")
    changes_at_once(fleet, path, "umbrella", 200, 404, "models", "unpublish", "orphan/*")


def test_a_rule_that_was_applied_holds_from_then_on(fleet):
    policies = fleet.installation.folder / "policies"
    path = "/v1/models/globex/held/9/-/pkgH1/weights.onnx"
    hold = policies / "hold.cedar"
    hold.write_text(
        '@id("hold") forbid (principal, action, resource in ModelGroup::"pattern:globex/held/*");\n'
    )
    command = ("policy", "apply", str(policies), "--yes")
    try:
        changes_at_once(fleet, path, "globex", 200, 404, *command)
    finally:
        hold.unlink()
    changes_at_once(fleet, path, "globex", 404, 200, *command)


def test_an_allow_whose_facts_moved_before_its_first_byte_is_withdrawn(fleet):
    # Facts change all the time, so that some do between the record of an allow and its first byte.
    path, caller = "/v1/models/flicker/1/-/pkgF1/weights.onnx", fleet.callers["umbrella"]
    pattern = [parse_pattern("flicker/1")]

    flickering = SampleModel(model_id="flicker/1", packages={"pkgF1": {"weights.onnx": b"now and then\n"}})
    write_sample_cache(fleet.installation.cache_root, [flickering])

    async def flicker(session):
        while not (
            {200, 404} <= {status for _, status, _ in list(seen)}
            and any(one.get("ending") == "withdrawn" for one in fleet.installation.records())
        ):
            for operation in (model_operations.publish, model_operations.unpublish):
                await session.perform(
                    "models.flicker",
                    lambda changes, operation=operation: operation(changes, patterns=pattern),
                )

    with hammering(fleet, path, caller) as seen:
        fleet.installation.in_session(flicker)
        stilled_at = time.monotonic()
        while not any(asked_at >= stilled_at for asked_at, *_ in list(seen)):
            time.sleep(0.01)
    assert {status for asked_at, status, _ in seen if asked_at >= stilled_at} == {404}
    assert {200, 404} <= {status for _, status, _ in seen} <= {200, 404, 503}
    endings = {
        one["decision_id"]: one
        for one in fleet.installation.records()
        if one["kind"] == "outcome" and one["ending"] == "withdrawn"
    }
    assert endings, "no allow was ever withdrawn, so nothing was tested"
    assert all((one["bytes"], one["status"]) == (0, 0) for one in endings.values())
    # What was withdrawn was sent to no client.
    assert not endings.keys() & {record_id for _, _, record_id in seen}


def test_an_incident_does_not_wait_for_the_policy_folder(installation, tmp_path):
    # A document's tenant can be suspended by command; the next apply asks, and does not undo it.
    folder = tmp_path / "policies"
    (folder / "tenants").mkdir(parents=True)
    for source in (*CHECKOUT_POLICIES.glob("*.cedar"), CHECKOUT_POLICIES / "schema.cedarschema"):
        shutil.copy(source, folder)
    (folder / "tenants" / "acme.toml").write_text('[tenant]\nid = "acme"\n')
    installation.run("policy", "apply", str(folder), "--yes")
    installation.run("tenants", "suspend", "acme")
    installation.run("policy", "apply", str(folder), "--yes", status=1)
    assert installation.json("tenants", "show", "acme")["state"] == "suspended"
