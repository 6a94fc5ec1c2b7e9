"""Redis is down: 503 once the lease is over, readiness shows it, and service resumes when it is back (I7)."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from gateway.problems import PROBLEMS, Reason
from tests.conftest import request_bytes


def verify_undecided(answer):
    assert answer.status == 503
    assert answer.header("retry-after") == "1"
    assert answer.json()["type"] == "urn:cachegate:problem:unavailable"


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "path",
    [
        "<small>",
        pytest.param("/v1/whoami", marks=SLOW),
        pytest.param("/v1/models", marks=SLOW),
        pytest.param("/v1/models/cars", marks=SLOW),
        pytest.param("/v1/blobs/<md5>", marks=SLOW),
    ],
)
def test_nothing_is_decided_while_redis_says_nothing(path, site, serve, paths, eventually):
    gateway = serve(site.installation)
    path = path.replace("<small>", paths.small).replace("<md5>", site.place_of("small.bin").name)
    good = gateway.wire.get(path, site.token)
    assert good.status == 200
    with site.stopped_valkey():
        eventually(lambda: not gateway.is_ready())  # until then, what is remembered may be trusted
        undecided = []
        for key in (site.token, "sk-of-somebody-unknown"):
            undecided.append(gateway.wire.get(path, key))
            verify_undecided(undecided[-1])
        # The key could not be looked up; a request without a key needs no lookup.
        assert gateway.wire.get(path).status == 401
        assert gateway.ops.get("/healthz").status == 200
    eventually(lambda: gateway.wire.get(path, site.token).status == 200)
    eventually(gateway.is_ready)
    for answer in undecided:
        [record] = site.records("decision", id=answer.record_id)
        assert (record["decision"], record["reason"]) in {("deny", "no-lease"), ("deny", "no-facts")}
    assert gateway.metrics()["cachegate_lease_losses_total"] > 0


@pytest.mark.parametrize("path", ["/access/v1/evaluation", "/access/v1/evaluations"])
def test_no_question_is_answered_while_redis_says_nothing(path, site, serve, paths, eventually):
    created = site.installation.json("keys", "create", "--admin", "--scopes", "decisions:ask")
    gateway = serve(site.installation)
    _, model, package, file = re.fullmatch(r"(/v1/models/)(.+)/-/([^/]+)/(.+)", paths.small).groups()
    one = {
        "subject": {"type": "tenant", "id": model.partition("/")[0]},
        "action": {"name": "read"},
        "resource": {"type": "file", "id": file, "properties": {"model": model, "package": package}},
    }
    body = json.dumps({**one, "evaluations": [{}, {}]} if path.endswith("s") else one).encode()
    headers = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))

    def ask():
        return gateway.wire.send(
            request_bytes("POST", path, created["token"], headers, is_last=True) + body, timeout=60.0
        )

    def is_yes():
        answer = ask()
        return answer.status == 200 and b"false" not in answer.body

    eventually(is_yes)
    with site.stopped_valkey():
        eventually(lambda: not gateway.is_ready())
        verify_undecided(ask())
    eventually(is_yes)


def test_a_killed_redis_denies_nothing_and_serve_starts_it_again_on_the_same_facts(
    site, serve, paths, eventually
):
    gateway = serve(site.installation, workers=2)
    assert gateway.wire.get(paths.small, site.token).status == 200
    killed = site.valkey_pid()
    os.kill(killed, signal.SIGKILL)

    def is_back():
        # Until then: what is remembered under the lease, or "undecided"; never a denial.
        assert gateway.wire.get(paths.small, site.token).status in {200, 503}
        return "was started again" in gateway.log() and site.valkey_pid() != killed

    eventually(is_back)
    eventually(gateway.is_ready)
    keys = site.installation.json("keys", "list", "--tenant", "acme")
    assert [key["key_id"] for key in keys] == [site.key_id]
    assert gateway.wire.get(paths.small, site.token).body == paths.content
    site.installation.run("keys", "revoke", site.key_id)
    assert gateway.wire.get(paths.small, site.token).status == 401


@pytest.mark.slow
def test_a_change_that_cannot_reach_redis_is_no_change_and_says_so(site, serve, paths, eventually):
    gateway = serve(site.installation)
    with site.stopped_valkey():
        done = site.installation.run("keys", "revoke", site.key_id, status=3)
        assert "Traceback" not in done.stderr
    eventually(lambda: gateway.wire.get(paths.small, site.token).status == 200)


def test_the_client_is_told_one_thing_whatever_it_was_that_did_not_answer():
    undecided = (Reason.NO_FACTS, Reason.NO_POLICY, Reason.NO_AUDIT, Reason.FACTS_MOVED)
    assert {PROBLEMS[reason].body("") for reason in undecided} == {PROBLEMS[Reason.CHANGED_ON_DISK].body("")}
