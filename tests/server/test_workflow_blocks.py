"""Every block of the server: what it is said to load and do, and what it loads and does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from http_client import image
from upstream import PYTHON, Server
from workflow_texts import python_block

from gateway.front_door.table import load_table

pytestmark = pytest.mark.server

HERE = Path(__file__).parent
RUN = "/workflows/run"
LEAST_RUN = 60
"""Of the 250 blocks, how many run here: without other hosts, without models that are not built here."""


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    done = subprocess.run(
        [PYTHON, HERE / "block_types.py"],
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path_factory.mktemp("blocks"),
        env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_table_has_what_blocks_make_of_a_value(blocks):
    """Where an input names a model, the server describes the input, not what the block makes of its value."""
    known = load_table("1.8.3").workflows.selectors
    made = {one["type"]: one["resolved"] for one in blocks if one["resolved"]}
    assert known == {
        kind: found[0].replace("V", "{value}", 1) if found != ["V"] else "{value}"
        for kind, found in made.items()
        if len(found) == 1 and found[0] is not None
    }


def test_what_blocks_were_said_to_load_is_what_they_load(front, blocks):
    ran, refused = [], []
    key = front.key("acme")
    for block in blocks:
        front.notes.mark()
        document = {"specification": block["specification"], "inputs": {"image": image(), "value": "hello"}}
        answer = front.post(RUN, document, key)
        runs = [note for note in front.sent() if note.path == RUN]
        if not runs:
            refused.append((block["type"], answer.status))
            assert front.notes.all("add", "infer", "load") == [], block["type"]
            continue
        [run] = runs
        loaded = {note.model for note in front.notes.of(run, "add", "infer", "load")}
        ran.append((block["type"], answer, loaded))
    allowed = _models_by_record(front)
    for kind, answer, loaded in ran:
        assert loaded <= allowed[answer.record_id], kind
    finished = [kind for kind, answer, _ in ran if answer.status == 200]
    assert len(finished) >= LEAST_RUN, (len(finished), refused)
    assert {status for _, status in refused} <= {400, 403, 404, 503}, refused  # 503: it cannot describe it


def _models_by_record(front):
    """By the id of the first record of a request, all models that were permitted with it."""
    found, first = {}, None
    for record in front.installation.records():
        if record.get("kind", "decision") != "decision" or record.get("decision") != "allow":
            continue
        place = (record["request"].get("trace"), record["time"], record["request"]["route"])
        if first is None or first[1] != place:
            first = record["id"], place
            found[first[0]] = set()
        found[first[0]].add((record.get("resource") or {}).get("model"))
    return found


@pytest.fixture
def own_server(upstream):
    """A server of one tenant, with custom Python switched on."""
    server = Server(upstream.provider.api_url, ALLOW_CUSTOM_PYTHON_EXECUTION_IN_WORKFLOWS="True")
    try:
        server.await_ready()
        yield server
    finally:
        server.stop()


def test_custom_python_and_the_cache_run_on_a_server_of_the_tenants_own(front_with, upstream, own_server):
    front = front_with(INFERENCE_URL=f"{upstream.server.url},acme={own_server.url}")
    specification = {
        "version": "1.0",
        "inputs": [{"type": "WorkflowImage", "name": "image"}],
        "steps": [
            {"type": "Said", "name": "said"},
            {
                "type": "roboflow_core/cache_set@v1",
                "name": "set",
                "image": "$inputs.image",
                "key": "k",
                "value": "$steps.said.said",
            },
        ],
        "outputs": [{"type": "JsonField", "name": "out", "selector": "$steps.said.said"}],
        "dynamic_blocks_definitions": [python_block()],
    }
    document = {"specification": specification, "inputs": {"image": image()}}
    key = front.key("acme")
    refused = front.post(RUN, document, key)
    assert (refused.status, front.reason(refused)) == (403, "missing-action"), refused.body
    assert "is not allowed" in refused.json()["detail"]
    assert RUN not in [note.path for note in own_server.notes.requests()]
    front.installation.run("tenants", "allow", "acme", "custom-python", "cache-write")
    answer = front.post(RUN, document, key)
    assert answer.status == 200, answer.body
    assert answer.json()["outputs"] == [{"out": "here"}]
    front.installation.run("tenants", "disallow", "acme", "custom-python")
    assert front.post(RUN, document, key).status == 403
