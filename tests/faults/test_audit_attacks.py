"""Attacks on the audit folder of a real gateway by somebody with write access and without a signing key.

One table: what is done to a copy, the exit status of `cachegate audit verify`, its message, and what it
names. The folder has a chain of each kind: of commands, of a worker that was killed and is recovered, and of
a running worker, with records after its last head.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from gateway.audit.envelope import Envelopes
from gateway.audit.record import ChainPosition, OpenRecord, encode, seal
from gateway.cli.main import run

if TYPE_CHECKING:
    from pathlib import Path

NODE = "test-node"


@dataclass
class Folder:
    """A copy of the folder, by what its chains are."""

    path: Path
    closed: str
    recovered: str
    running: str

    @property
    def heads(self) -> Path:
        return self.path / "heads.jsonl"

    def segment(self, chain: str) -> Path:
        return max(self.path.glob(f"{chain}-*.jsonl"))

    def lines(self, chain: str) -> list[bytes]:
        return self.segment(chain).read_bytes().splitlines(keepends=True)

    def last_head(self, chain: str) -> dict:
        return next(json.loads(line) for line in reversed(self.lines(chain)) if b'"kind":"head"' in line)

    def last_seq(self, chain: str) -> int:
        return json.loads(self.lines(chain)[-1])["seq"]

    def forge(self, chain: str, count: int, *, seconds: float = 0.5, path: Path | None = None) -> None:
        """Append records with correct hashes to a chain, so long after its last head."""
        path = path or self.segment(chain)
        lines = path.read_bytes().splitlines() if path.exists() else []
        last = json.loads(lines[-1]) if lines else {"seq": 0, "hash": "0" * 64}
        head = next((json.loads(line) for line in reversed(lines) if b'"kind":"head"' in line), None)
        moment = datetime.fromisoformat(head["time"]).timestamp() if head else 1_790_000_000.0
        links = ChainPosition(chain)
        links.seq, links.hash = last["seq"], last["hash"]
        envelopes = Envelopes(NODE)
        with path.open("ab") as file:
            for _ in range(count):
                record = OpenRecord(**envelopes.members(moment + seconds, links), reason="forged")
                line, links.hash = seal(encode(record))
                links.seq += 1
                file.write(line)


@contextmanager
def stopped(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def chains_of(path):
    return sorted({one.name.rpartition("-")[0] for one in path.glob("*-0*.jsonl")})


def listed(path):
    return [json.loads(line)["head"] for line in (path / "heads.jsonl").read_bytes().splitlines()]


@pytest.fixture(scope="module")
def taken(furnished_site, paths, eventually, tmp_path_factory):
    """A copy of the folder of a running gateway, whose worker was killed once."""
    site = furnished_site
    audit = site.installation.audit
    gateway = site.installation.serve()
    try:
        assert gateway.wire.get(paths.small, site.token).status == 200
        [worker] = gateway.worker_pids()
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: [head for head in listed(audit) if head["state"] == "recovered"])
        gateway.await_ready()
        copy = tmp_path_factory.mktemp("taken") / "audit"

        def take():
            """With records behind the last head of the worker that runs: none comes while it is stopped."""
            shutil.rmtree(copy, ignore_errors=True)
            assert gateway.wire.get(paths.small, site.token).status == 200
            with stopped(gateway.worker_pids()):
                shutil.copytree(audit, copy)
            heads = listed(copy)
            ended = {head["chain"] for head in heads if head["state"] != "live"}
            [running] = set(chains_of(copy)) - ended
            closed = next(head["chain"] for head in heads if head["state"] == "closed")
            recovered = next(head["chain"] for head in heads if head["state"] == "recovered")
            folder = Folder(copy, closed=closed, recovered=recovered, running=running)
            return folder if folder.last_seq(running) > folder.last_head(running)["seq"] else None

        yield eventually(take, seconds=60)
    finally:
        gateway.stop()


@pytest.fixture
def folder(taken, tmp_path):
    """A copy of that copy, for one attack."""
    path = tmp_path / "audit"
    shutil.copytree(taken.path, path)
    return Folder(path, closed=taken.closed, recovered=taken.recovered, running=taken.running)


@pytest.fixture
def judge(capsys, tmp_path, monkeypatch):
    """Run `cachegate audit verify` on a folder: its status, its JSON, and its message."""
    monkeypatch.chdir(tmp_path)

    def call(path):
        capsys.readouterr()
        status = run(["audit", "verify", str(path), "--json"])
        document = json.loads(capsys.readouterr().out)
        again = run(["audit", "verify", str(path)])
        printed = capsys.readouterr()
        assert again == status
        return status, document, printed.err

    return call


# The attacks, and what names the damage: a chain, a file of it, the number of its first bad record.


def nothing(folder):
    return {}


def one_record_behind_a_running_chain(folder):
    folder.forge(folder.running, 1)
    return {}


def as_many_as_the_promise_allows(folder):
    folder.forge(
        folder.running, 1000 - (folder.last_seq(folder.running) - folder.last_head(folder.running)["seq"])
    )
    return {}


def one_more_than_the_promise_allows(folder):
    first = folder.last_head(folder.running)["seq"] + 1001
    folder.forge(folder.running, first - folder.last_seq(folder.running))
    return {"chain": folder.running, "damage": "unsigned-tail", "seq": first}


def a_record_of_a_minute_later(folder):
    seq = folder.last_seq(folder.running) + 1
    folder.forge(folder.running, 3, seconds=60)
    return {"chain": folder.running, "damage": "unsigned-tail", "seq": seq}


def a_record_of_a_year_ago(folder):
    seq = folder.last_seq(folder.running) + 1
    folder.forge(folder.running, 3, seconds=-31e6)
    return {"chain": folder.running, "damage": "unsigned-tail", "seq": seq}


def a_record_behind_a_closed_chain(folder):
    seq = folder.last_seq(folder.closed) + 1
    folder.forge(folder.closed, 1)
    return {"chain": folder.closed, "damage": "after-close", "seq": seq}


def a_segment_behind_a_closed_chain(folder):
    path = folder.path / f"{folder.closed}-000002.jsonl"
    seq = folder.last_seq(folder.closed) + 1
    path.touch()
    return {"chain": folder.closed, "damage": "after-close", "seq": seq, "file": path.name}


def a_record_behind_a_recovered_chain(folder):
    seq = folder.last_seq(folder.recovered) + 1
    folder.forge(folder.recovered, 1)
    return {"chain": folder.recovered, "damage": "after-recovered", "seq": seq}


def a_chain_without_a_head(folder):
    """Issue: three records with right hashes as a segment of their own: "Intact"."""
    chain = f"{NODE}.019c1c38a400-00000000"
    path = folder.path / f"{chain}-000001.jsonl"
    folder.forge(chain, 3, path=path)
    return {"chain": chain, "damage": "no-head", "seq": 1, "file": path.name}


def an_empty_chain(folder):
    chain = f"{NODE}.019c1c38a400-00000000"
    path = folder.path / f"{chain}-000001.jsonl"
    path.touch()
    return {"chain": chain, "damage": "no-head", "seq": 1, "file": path.name}


def a_chain_with_the_heads_of_another(folder):
    chain = f"{NODE}.019c1c38a400-00000000"
    path = folder.path / f"{chain}-000001.jsonl"
    path.write_bytes(folder.segment(folder.closed).read_bytes())
    return {"chain": chain, "damage": "foreign", "seq": 1, "file": path.name}


def a_chain_that_begins_late(folder):
    chain = f"{NODE}.019c1c38a400-00000000"
    folder.forge(chain, 3, path=folder.path / f"{chain}-000002.jsonl")
    return {"words": f"{chain}-000001.jsonl"}


def a_proven_record_is_changed(folder):
    path = folder.segment(folder.closed)
    path.write_bytes(path.read_bytes().replace(b'"node":"test-node"', b'"node":"best-node"', 1))
    return {"chain": folder.closed, "damage": "edited", "seq": 1}


def an_unproven_record_is_changed(folder):
    path = folder.segment(folder.running)
    seq = folder.last_seq(folder.running)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        b"".join(lines[:-1]) + lines[-1].replace(b'"node":"test-node"', b'"node":"best-node"', 1)
    )
    return {"chain": folder.running, "damage": "edited", "seq": seq}


def a_closed_chain_is_deleted(folder):
    folder.segment(folder.closed).unlink()
    return {"words": f"{folder.closed}: this whole chain is missing"}


def a_closed_chain_is_deleted_with_its_heads(folder):
    folder.segment(folder.closed).unlink()
    lines = folder.heads.read_bytes().splitlines(keepends=True)
    folder.heads.write_bytes(
        b"".join(one for one in lines if json.loads(one)["head"]["chain"] != folder.closed)
    )
    return {"words": "heads.jsonl, line "}


def the_segment_of_the_running_chain_is_deleted(folder):
    folder.segment(folder.running).unlink()
    return {"words": f"{folder.running}: this whole chain is missing"}


def the_heads_are_deleted(folder):
    folder.heads.unlink()
    return {"words": "heads.jsonl is missing"}


def the_heads_are_emptied(folder):
    folder.heads.write_bytes(b"")
    return {"words": "heads.jsonl was cut, replaced or begun anew"}


def the_heads_are_cut(folder):
    lines = folder.heads.read_bytes().splitlines(keepends=True)
    folder.heads.write_bytes(b"".join(lines[: len(lines) // 2]))
    return {"words": "heads.jsonl was cut, replaced or begun anew"}


def the_recovered_head_is_taken_out(folder):
    lines = folder.heads.read_bytes().splitlines(keepends=True)
    folder.heads.write_bytes(b"".join(one for one in lines if b'"state":"recovered"' not in one))
    return {"words": "heads.jsonl, line "}


def heads_and_all_other_chains_are_deleted(folder):
    for path in folder.path.glob("*.jsonl"):
        if not path.name.startswith(folder.running):
            path.unlink()
    return {"words": "heads.jsonl is missing"}


def heads_are_emptied_and_all_other_chains_deleted(folder):
    heads_and_all_other_chains_are_deleted(folder)
    folder.heads.touch()
    return {"words": folder.running}


def the_end_of_the_running_chain_is_cut_off_to_its_head(folder):
    """Records that no head covers can be removed unnoticed: that is the meaning of "not proven"."""
    lines = folder.lines(folder.running)
    last = max(place for place, line in enumerate(lines) if b'"kind":"head"' in line)
    folder.segment(folder.running).write_bytes(b"".join(lines[: last + 1]))
    return {}


def a_head_of_the_running_chain_is_cut_off(folder):
    lines = folder.lines(folder.running)
    last = max(place for place, line in enumerate(lines) if b'"kind":"head"' in line)
    folder.segment(folder.running).write_bytes(b"".join(lines[:last]))
    return {"chain": folder.running, "damage": "truncated", "seq": json.loads(lines[last])["seq"]}


UNPROVEN = [
    nothing,
    one_record_behind_a_running_chain,
    as_many_as_the_promise_allows,
    the_end_of_the_running_chain_is_cut_off_to_its_head,
]
DAMAGE = [
    one_more_than_the_promise_allows,
    a_record_of_a_minute_later,
    a_record_of_a_year_ago,
    a_record_behind_a_closed_chain,
    a_segment_behind_a_closed_chain,
    a_record_behind_a_recovered_chain,
    a_chain_without_a_head,
    an_empty_chain,
    a_chain_with_the_heads_of_another,
    a_chain_that_begins_late,
    a_proven_record_is_changed,
    an_unproven_record_is_changed,
    a_closed_chain_is_deleted,
    a_closed_chain_is_deleted_with_its_heads,
    the_segment_of_the_running_chain_is_deleted,
    the_heads_are_deleted,
    the_heads_are_emptied,
    the_heads_are_cut,
    the_recovered_head_is_taken_out,
    heads_and_all_other_chains_are_deleted,
    heads_are_emptied_and_all_other_chains_deleted,
    a_head_of_the_running_chain_is_cut_off,
]


def _name(attack):
    return attack.__name__


@pytest.mark.parametrize("attack", UNPROVEN, ids=_name)
def test_what_is_within_the_promise_is_counted_as_not_proven(taken, folder, judge, attack):
    _, before, _ = judge(taken.path)
    attack(folder)
    status, document, words = judge(folder.path)
    [checked] = document["checked"]
    behind = {
        chain: folder.last_seq(chain) - folder.last_head(chain)["seq"]
        for chain in (folder.running, folder.recovered)
    }
    assert (status, document["intact"]) == (0, True)
    assert checked["verdict"] == "not-all-proven"
    assert checked["unproven"] == sum(behind.values()) > 0
    assert checked["proven"] == before["checked"][0]["proven"]
    assert f"{checked['unproven']} not" in words
    endings = {chain["chain"]: chain["ending"] for chain in checked["chains"]}
    assert endings[folder.running] == "open"
    assert endings[folder.recovered] == "recovered"


@pytest.mark.parametrize("attack", DAMAGE, ids=_name)
def test_anything_else_is_damage_and_is_named(folder, judge, attack):
    expected = attack(folder)
    status, document, words = judge(folder.path)
    [checked] = document["checked"]
    assert (status, document["intact"], checked["verdict"]) == (1, False, "damaged")
    assert expected.get("words", "") in words
    if "chain" not in expected:
        return
    [fault] = [one["fault"] for one in checked["chains"] if one["chain"] == expected["chain"]]
    file = expected.get("file") or folder.segment(expected["chain"]).name
    assert (fault["damage"], fault["seq"], fault["file"]) == (expected["damage"], expected["seq"], file)
    assert f"{file}, line {fault['line']} (record {fault['seq']}): {fault['damage']}" in words


@pytest.mark.slow
def test_history_that_is_taken_away_beside_a_running_gateway_stays_damage(
    site, serve, paths, eventually, judge
):
    """Issue: damage at once, and "Intact", exit 0 for good, 23 seconds later."""
    gateway = serve(site.installation)
    audit = site.installation.audit
    assert gateway.wire.get(paths.small, site.token).status == 200
    closed = {head["chain"] for head in listed(audit) if head["state"] == "closed"}
    running = set(chains_of(audit)) - closed
    for path in audit.glob("*.jsonl"):
        if path.name == "heads.jsonl" or path.name.rpartition("-")[0] in closed:
            path.unlink()
    assert judge(audit)[0] == 1
    eventually(lambda: set(chains_of(audit)) - running)  # it was noticed: a new chain
    eventually(gateway.is_ready)
    for _ in range(2):
        before = len(listed(audit))
        assert gateway.wire.get(paths.small, site.token).status == 200
        eventually(lambda before=before: len(listed(audit)) > before)
        assert judge(audit)[0] == 1
    site.installation.run("tenants", "create", "later")
    gateway.stop()
    site.installation.run("tenants", "create", "later-still")
    status, document, words = judge(audit)
    assert (status, document["checked"][0]["verdict"]) == (1, "damaged")
    assert "heads.jsonl, line 1: lines are missing in front of it" in words
