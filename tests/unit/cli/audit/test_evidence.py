"""`cachegate audit prove`, `heads`, `anchor`, `rotate-key` and `schema` on the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from gateway.audit.schema import kinds


@pytest.fixture
def public_key(installation):
    """A copy that an auditor has, elsewhere."""
    path = installation.folder / "own.pub"
    shutil.copy(installation.audit / "signing.pub", path)
    return path


@pytest.fixture
def here(installation):
    installation.runs_here = True
    return installation


def first_change(installation):
    return next(one for one in installation.records() if one["kind"] == "change")


def test_a_proof_is_checked_where_there_is_no_log_and_no_setting_is_right(here, public_key, tmp_path):
    record = first_change(here)
    proof = tmp_path / "proof.json"
    here.run("audit", "prove", "--record", record["id"], "--out", str(proof))
    shutil.move(here.state, tmp_path / "gone")
    command = ["audit", "prove", "--check", proof, "--public-key", public_key, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *command],
        env={"PATH": os.defpath, "CACHEGATE_NO_SUCH_SETTING": "1"},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    shutil.move(tmp_path / "gone", here.state)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["record"] == record


def test_what_does_not_hold_is_told_with_status_1(here, public_key, tmp_path):
    proof = json.loads(here.run("audit", "prove", "--record", first_change(here)["id"]).stdout)
    edited = {**proof["record"], "actor": "x"}
    for number, changed in enumerate(({"record": edited}, {"path": []}, {"version": 9})):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps({**proof, **changed}))
        told = here.json("audit", "prove", "--check", str(path), "--public-key", str(public_key), status=1)
        assert told["proven"] is False
        assert told["why"]


def test_a_proof_that_holds_is_shown_to_people(here, public_key, tmp_path):
    path = tmp_path / "proof.json"
    record = first_change(here)
    here.run("audit", "prove", "--record", record["id"], "--out", str(path))
    done = here.run("audit", "prove", "--check", str(path), "--public-key", str(public_key))
    assert record["id"] in done.stdout
    assert "Proven" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("prove",), 2),
        (("prove", "--record", "x"), 2),
        (("prove", "--check", "x"), 2),
        (("prove", "--check", "none.json", "--public-key", "none.pub"), 2),
        (("anchor",), 2),
        (("anchor", "--check", "--authority", "http://x", "--roots", "x"), 2),
        (("heads", "none.jsonl"), 2),
        (("schema", "--kind", "none"), 1),
    ],
)
def test_what_cannot_be_done_says_what_to_do(here, arguments, status):
    assert here.run("audit", *arguments, status=status).stderr


def test_the_schema_is_printed(here):
    assert set(json.loads(here.run("audit", "schema").stdout)["discriminator"]["mapping"]) == set(kinds())
    assert json.loads(here.run("audit", "schema", "--kind", "head").stdout)["$ref"]


def test_heads_are_compared_with_an_earlier_copy(here, tmp_path):
    copy = tmp_path / "heads.jsonl"
    shutil.copy(here.audit / "heads.jsonl", copy)
    assert here.json("audit", "heads", str(copy))["continued"] is True
    (here.audit / "heads.jsonl").write_bytes(copy.read_bytes()[200:])
    assert here.json("audit", "heads", str(copy), status=1)["line"] == 1
    shutil.copy(copy, here.audit / "heads.jsonl")


def test_after_a_rotation_the_installation_and_an_auditor_verify_and_search(here, public_key):
    done = here.json("audit", "rotate-key")
    assert done["old"] != done["new"]
    assert here.json("audit", "verify")["intact"] is True
    assert here.json("audit", "verify", str(here.audit), "--public-key", str(public_key))["intact"] is True
    found = here.run("audit", "search", str(here.audit), "--public-key", str(public_key), "--json").stdout
    assert "rotate-key" in found
    assert '"proven":false' not in found
