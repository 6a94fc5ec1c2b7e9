"""The audit folder of a running gateway fails: no record, no byte (I5)."""

from __future__ import annotations

import json
import resource
import shutil
from contextlib import contextmanager

import pytest

from gateway.audit import verify
from gateway.problems import UNRECORDED


@contextmanager
def full_disk(pid):
    """No file of this process may grow by a byte: what a full disk or a quota does to it."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def verify_refused(answer, content):
    assert answer.status == 503
    assert answer.header("retry-after") == "1"
    assert answer.record_id == UNRECORDED
    assert content not in answer.body


def test_nothing_is_sent_while_nothing_can_be_recorded(site, serve, paths, eventually):
    gateway = serve(site.installation)
    [worker] = gateway.worker_pids()
    assert gateway.wire.get(paths.small, site.token).status == 200
    with full_disk(worker):
        for method in ("GET", "HEAD"):
            answer = gateway.wire.request(method, paths.small, site.token)
            assert (answer.status, answer.record_id) == (503, UNRECORDED)
        for path in (paths.small, "/v1/models", "/v1/whoami", "/v1/models/nobody/nothing"):
            verify_refused(gateway.wire.get(path, site.token), paths.content)
        # Refusals of anonymous callers are recorded as well, so even they get 503.
        verify_refused(gateway.wire.get(paths.small), paths.content)
        eventually(lambda: not gateway.is_ready())
    eventually(gateway.is_ready)
    answer = gateway.wire.get(paths.small, site.token)
    assert answer.body == paths.content
    assert gateway.metrics()['cachegate_dependency_failures_total{dependency="audit"}'] >= 6
    gateway.stop()
    assert len(site.records("decision", id=answer.record_id)) == 1
    site.installation.verify_audit()


def test_a_full_disk_is_a_line_in_the_log_and_not_one_for_each_request(site, serve, paths, eventually):
    gateway = serve(site.installation)
    [worker] = gateway.worker_pids()
    with full_disk(worker), gateway.wire.talk() as talk:
        # Few: what takes a minute here has its count logged meanwhile, and that line would be lost as well.
        for _ in range(40):
            verify_refused(talk.get(paths.small, site.token), paths.content)
    eventually(gateway.is_ready)
    assert gateway.wire.get(paths.small, site.token).status == 200
    gateway.stop()
    # The log is a file as well here, so its first line is lost; the count is logged at the end.
    lines = [json.loads(line) for line in gateway.log().splitlines() if '"not decided' in line]
    told = [line for line in lines if line["dependency"] == "audit"]
    assert 1 <= len(told) <= 3
    assert sum(line["times"] for line in told if "times" in line) >= 39  # the first is a line of its own
    assert {line["reason"] for line in told} == {"no-audit"}


def test_a_segment_that_is_taken_away_stops_the_next_answer_and_is_missed(site, serve, paths, eventually):
    gateway = serve(site.installation)
    assert gateway.wire.get(paths.small, site.token).status == 200
    audit = site.installation.audit
    [live] = [path for path in audit.glob("*-0*.jsonl") if b'"state":"closed"' not in path.read_bytes()]
    live.unlink()
    verify_refused(gateway.wire.get(paths.small, site.token), paths.content)
    eventually(lambda: gateway.wire.get(paths.small, site.token).status == 200)
    eventually(gateway.is_ready)
    gateway.stop()
    report = verify(audit)
    assert not report.is_intact
    assert live.name.rpartition("-")[0] in str(report.missing_chains)


def test_an_audit_folder_that_is_gone_stops_everything_until_it_is_back(site, serve, paths, eventually):
    gateway = serve(site.installation)
    audit, aside = site.installation.audit, site.installation.folder / "aside"
    assert gateway.wire.get(paths.small, site.token).status == 200
    audit.rename(aside)
    audit.write_text("a file in its place")
    for _ in range(3):
        verify_refused(gateway.wire.get(paths.small, site.token), paths.content)
    eventually(lambda: not gateway.is_ready())
    audit.unlink()
    shutil.copytree(aside, audit)
    eventually(lambda: gateway.wire.get(paths.small, site.token).status == 200)


@pytest.mark.slow
def test_a_transfer_that_was_recorded_ends_even_when_its_outcome_cannot_be(
    site_with_big_file, serve, paths, eventually
):
    site = site_with_big_file
    gateway = serve(site.installation)
    [worker] = gateway.worker_pids()
    with gateway.wire.talk() as talk:
        assert talk.get("/v1/whoami", site.token).status == 200
        with full_disk(worker):
            verify_refused(talk.get(paths.small, site.token), paths.content)
        eventually(gateway.is_ready)
        answer = talk.get(paths.big, site.token)
    assert answer.body == site.big
    assert gateway.is_ready()


def test_a_record_that_somebody_else_wrote_is_noticed_before_the_next_answer(site, serve, paths, eventually):
    gateway = serve(site.installation)
    assert gateway.wire.get(paths.small, site.token).status == 200
    audit = site.installation.audit
    [live] = [path for path in audit.glob("*-0*.jsonl") if b'"state":"closed"' not in path.read_bytes()]
    last = live.read_bytes().splitlines(keepends=True)[-1]
    with live.open("ab") as file:
        file.write(last)
    spoilt = live.read_bytes()
    # A file that is in memory, which is the fastest kind of answer.
    verify_refused(gateway.wire.get(paths.small, site.token), paths.content)
    eventually(gateway.is_ready)
    answer = gateway.wire.get(paths.small, site.token)
    assert answer.status == 200
    assert live.read_bytes() == spoilt
    gateway.stop()
    assert len(site.records("decision", id=answer.record_id)) == 1
    report = verify(audit)
    [chain] = [one for one in report.chains if one.chain == live.name.rpartition("-")[0]]
    assert chain.fault is not None
    assert (chain.fault.file, chain.fault.line) == (live.name, spoilt.count(b"\n"))
