"""I5 and I8: the audit log agrees with what the clients saw, and contains no secret of a client.

A mixed load from several threads runs against four workers. Every answer names its record. When the gateway
has ended, each answer is looked up in the log, and the log is searched for secrets.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest

pytestmark = pytest.mark.slow

QUERY_MARK = "query-mark-5d1c"
AGENT_MARK = "agent-secret-77aa"


@dataclass(frozen=True)
class Seen:
    """A request and the answer that its client got."""

    caller: Any
    method: str
    path: str
    answer: Any


@pytest.fixture
def busy_world(build_world):
    yield from build_world("busy", workers=4)


PATHS = (
    *("/v1/models", "/v1/whoami", "/v1/models/acme/cars/1", "/v1/models/acme/cars/1/-/pkgA1"),
    *("/v1/models/acme/cars/1/-/pkgA1/weights.onnx", "/v1/models/acme/cars/1/-/pkgA1/notes.txt"),
    *("/v1/models/acme-cars/-/pkgA1/weights.onnx", "/v1/models/globex/cars/1/-/pkgA1/weights.onnx"),
    *("/v1/models/globex/wide/1/-/pkgW1/weights.onnx", "/v1/models/globex/lab/1/-/pkgL1/weights.onnx"),
    *("/v1/models/public/demo/1/-/pkgD1/weights.onnx", "/v1/models/globex/held/9/-/pkgH1/weights.onnx"),
    *("/v1/models/acme/odd/1/-/pkgB1/bad.bin", "/v1/models/nobody/nothing/0", "/v1/models/acme//cars"),
)


def mixed_load(world, facts, *, threads=6, requests=90):
    """What each thread asked and got; each keeps its connection and changes its key."""
    paths = (
        *PATHS,
        f"/v1/blobs/{facts.digest_of(facts.shared)}",
        f"/v1/blobs/{facts.digest_of(facts.hidden)}",
    )
    callers = list(world.callers.values())

    def client(seed):
        chance, seen = random.Random(seed), []
        with world.wire.talk() as talk:
            for _ in range(requests):
                caller, path = chance.choice(callers), chance.choice(paths)
                method = chance.choice(("GET", "GET", "HEAD", "POST"))
                agent = ("User-Agent", f"probe api_key={AGENT_MARK} {caller.token}")
                target = f"{path}?note={QUERY_MARK}"
                answer = talk.request(method, target, headers=(*caller.headers, agent))
                seen.append(Seen(caller, method, path, answer))
        return seen

    with ThreadPoolExecutor(threads) as pool:
        return [one for seen in pool.map(client, range(threads)) for one in seen]


def index(records):
    """Decisions and summaries by their id, and the outcomes by the id of their decision."""
    by_id, outcomes = defaultdict(list), defaultdict(list)
    for record in records:
        if record["kind"] in ("decision", "summary"):
            by_id[record["id"]].append(record)
        elif record["kind"] == "outcome":
            outcomes[record["decision_id"]].append(record)
    return by_id, outcomes


def allow_faults(seen, decision, outcomes, facts):
    """Where the records of an allow differ from what its client saw."""
    expected = {
        "decision": "allow",
        "reason": "permitted",
        "principal": "admin" if seen.caller.tenant is None else "tenant",
        "tenant": seen.caller.tenant,
        "key_id": seen.caller.key_id or decision["key_id"],  # the first admin key's id is shown nowhere
    }
    for name, value in expected.items():
        if decision.get(name) != value:
            yield f"{name} is {decision.get(name)}"
    if decision["request"]["method"] != seen.method:
        yield f"the method is {decision['request']['method']}"
    resource = decision["resource"]
    if not decision["policies"] or not (decision.get("grant") or resource["kind"] in ("self", "catalogue")):
        yield "it does not say how the right came"
    if resource["kind"] == "file":
        yield from file_faults(seen, decision, resource, facts)
    if [one["ending"] for one in outcomes] != ["complete"]:
        yield f"outcomes {outcomes}"
    elif (outcomes[0]["bytes"], outcomes[0]["status"]) != (len(seen.answer.body), seen.answer.status):
        yield f"an outcome of {outcomes[0]['bytes']} bytes, status {outcomes[0]['status']}"


def file_faults(seen, decision, resource, facts):
    """The same for the file that was sent."""
    content = facts.cache[resource["model"]][resource["package"]][resource["file"]]
    is_unhashed = resource["file"] in facts.unhashed.get(resource["model"], ())
    if resource.get("md5") != (None if is_unhashed else facts.digest_of(content)):
        yield f"the blob is {resource.get('md5')}"
    if decision["size"] != len(content):
        yield f"the size is {decision['size']}"
    if seen.method == "GET" and content != seen.answer.body:
        yield "another file was sent"


def test_the_log_agrees_with_every_answer_that_a_client_got(busy_world, facts):
    seen = mixed_load(busy_world, facts)
    assert busy_world.gateway.stop() == 0
    records = busy_world.installation.records()
    by_id, outcomes = index(records)
    faults, stood_for = [], Counter()
    for one in seen:
        found = by_id[one.answer.record_id]
        where = f"{one.caller.name}: {one.method} {one.path} -> {one.answer.status}"
        if len(found) != 1:
            faults.append(f"{where}: {len(found)} records")
        elif one.answer.status == 200:
            faults += [
                f"{where}: {fault}"
                for fault in allow_faults(one, found[0], outcomes[one.answer.record_id], facts)
            ]
        elif found[0]["kind"] == "summary":
            stood_for[found[0]["id"]] += 1
            if one.caller.is_valid and one.answer.status != 405:
                faults.append(f"{where}: a summary stands for a known caller")
        elif found[0]["decision"] != "deny" or outcomes[one.answer.record_id]:
            faults.append(f"{where}: not recorded as a denial")
    assert faults == []
    assert {200, 400, 401, 403, 404, 405} <= {one.answer.status for one in seen}
    # Each summary stands for exactly as many answers as it counts.
    assert stood_for
    assert stood_for == {record["id"]: record["count"] for record in records if record["kind"] == "summary"}
    # The log has no record without a request.
    assert len([one for one in records if one["kind"] == "decision"]) == len(seen) - sum(stood_for.values())
    busy_world.installation.verify_audit()


def test_no_secret_is_anywhere_but_with_its_owner(busy_world, facts, eventually):
    seen = mixed_load(busy_world, facts, threads=4, requests=60)
    with busy_world.wire.talk() as talk:
        for caller in busy_world.callers.values():
            if caller.token:
                talk.get(f"/v1/models?api_key={caller.token}")
                talk.get(f"/v1/models/{caller.token}")
                talk.get(f"/v1/models/{caller.token}", headers=caller.headers)
                talk.request(caller.token.replace("-", "").upper()[:20], f"/v1/models/{caller.token}")
    tokens = {caller.token for caller in busy_world.callers.values() if caller.token}
    secrets = {token.encode() for token in tokens if token.startswith("cg_")}
    secrets |= {sha256(token.encode()).hexdigest().encode() for token in tokens}
    secrets |= {sha256(token.encode()).digest() for token in tokens}
    secrets |= {QUERY_MARK.encode(), AGENT_MARK.encode()}
    client = busy_world.installation.redis()
    places = {
        "metrics": busy_world.gateway.ops.get("/metrics").body,
        "readiness": busy_world.gateway.ops.get("/readyz").body,
    }
    eventually(lambda: client.keys("*:u:*"))  # the notes of last use are written late
    for name in client.scan_iter(count=1000):
        places[f"redis {name!r}"] = name + (client.get(name) if client.type(name) == b"string" else b"")
        if client.type(name) == b"hash":
            places[f"redis {name!r}"] += b" ".join(
                part for pair in client.hgetall(name).items() for part in pair
            )
        elif client.type(name) == b"set":
            places[f"redis {name!r}"] += b" ".join(client.smembers(name))
    client.close()
    assert len(places) > 20
    busy_world.gateway.stop()
    state = busy_world.installation.state
    files = [
        path for path in state.rglob("*") if path.is_file() and not path.is_relative_to(state / "peppers")
    ]
    assert any(path.parent.name == "audit" for path in files)
    assert any("appendonly" in str(path) for path in files)
    places |= {str(path): path.read_bytes() for path in files}
    places["log"] = busy_world.gateway.log().encode()
    found = [(place, secret) for place, content in places.items() for secret in secrets if secret in content]
    assert found == []
    # A key of a foreign form has none of its own; it is taken out because it came with the request.
    opaque = [token.encode() for token in tokens if not token.startswith("cg_")]
    assert [(place, secret) for place in places for secret in opaque if secret in places[place]] == []
    assert seen


def test_many_refusals_of_an_anonymous_caller_leave_little_on_the_disk(busy_world):
    audit = busy_world.installation.audit
    before = sum(path.stat().st_size for path in audit.glob("*.jsonl"))
    count, threads = 500, 4
    started = time.monotonic()

    def limiter(number):
        with busy_world.wire.talk() as talk:
            return [
                talk.get(f"/v1/models/m{number}/{attempt}", key=f"sk-a-stranger-of-many-{number}-{attempt}")
                for attempt in range(count)
            ]

    with ThreadPoolExecutor(threads) as pool:
        answers = [answer for answers in pool.map(limiter, range(threads)) for answer in answers]
    seconds = time.monotonic() - started
    assert {answer.status for answer in answers} == {401}
    busy_world.gateway.stop()
    records = busy_world.installation.records()
    own = [one for one in records if one["kind"] == "decision" and one["reason"] == "unknown-key"]
    counted = sum(one["count"] for one in records if one["kind"] == "summary")
    assert len(own) + counted == count * threads
    # Ten a second for each worker's clock, and the seconds that were begun.
    assert len(own) <= 10 * 4 * (seconds + 2)
    grown = sum(path.stat().st_size for path in audit.glob("*.jsonl")) - before
    assert grown < 1000 * (len(own) + 4 * 2 * (seconds + 2) + 50)
    busy_world.installation.verify_audit()


def test_no_answer_outlives_its_record_when_a_worker_is_killed(busy_world, eventually):
    path, caller = "/v1/models/acme/cars/1/-/pkgA1/weights.onnx", busy_world.callers["acme"]
    is_over, received, broken = threading.Event(), [], []

    def client(_):
        while not is_over.is_set():
            try:
                with busy_world.wire.talk(timeout=5) as talk:
                    while not is_over.is_set():
                        received.append(talk.get(path, headers=caller.headers))
            except OSError as error:
                broken.append(error)

    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(client, number) for number in range(6)]
        try:
            for _ in range(3):
                enough = len(received) + 50
                eventually(lambda enough=enough: len(received) > enough)
                pids = busy_world.gateway.worker_pids()
                for pid in pids:  # all of them: it is unknown which one serves which connection
                    os.kill(pid, signal.SIGKILL)
                eventually(lambda pids=pids: set(busy_world.gateway.worker_pids()) - set(pids))
        finally:
            is_over.set()
        for one in clients:
            one.result()
    assert broken
    busy_world.gateway.await_ready()
    busy_world.gateway.stop()
    by_id, _ = index(busy_world.installation.records())
    whole = [answer for answer in received if answer.status == 200]
    assert len(whole) > 100
    assert [answer.record_id for answer in whole if len(by_id[answer.record_id]) != 1] == []
    busy_world.installation.verify_audit()
