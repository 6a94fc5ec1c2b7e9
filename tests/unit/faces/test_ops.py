"""The ops face: readiness of all workers together, and metrics that a scraper can sum."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from platform import python_version

import pytest

from gateway import __version__
from gateway.faces.ops import ops_app
from gateway.request_times import REQUEST_SECONDS
from gateway.telemetry import COUNTERS, sample


@dataclass
class Status:
    is_ready: bool = True
    expected: int = 2
    answering: int = 2
    ready: dict = field(default_factory=lambda: {"redis": True, "audit": True})
    counters: dict = field(default_factory=dict)
    gauges: dict = field(default_factory=dict)


def get(path, status, method="GET"):
    sent = []

    async def ask():
        return status

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
    asyncio.run(ops_app(ask)(scope, receive, send))
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent)


def samples(status):
    _, body = get("/metrics", status)
    lines = (line.rsplit(" ", 1) for line in body.decode().splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


@pytest.mark.parametrize(("is_ready", "expected"), [(True, 200), (False, 503)])
def test_readiness_is_a_status_and_says_which_check_fails(is_ready, expected):
    status, body = get("/readyz", Status(is_ready=is_ready, ready={"redis": is_ready, "audit": True}))
    assert status == expected
    assert json.loads(body) == {
        "ready": is_ready,
        "workers": {"expected": 2, "answering": 2},
        "checks": {"redis": is_ready, "audit": True},
    }


def test_health_is_that_somebody_answers():
    assert get("/healthz", Status(is_ready=False, answering=0)) == (200, b"ok\n")


@pytest.mark.parametrize("path", ["/", "/v1/models", "/metrics/x"])
def test_nothing_else_is_here(path):
    assert get(path, Status())[0] == 404


def test_a_counter_without_labels_is_there_before_anything_was_counted():
    seen = samples(Status())
    for name, metric in COUNTERS.items():
        if not metric.labels:
            assert seen[name] == 0
    assert (seen["cachegate_ready"], seen["cachegate_workers"]) == (1, 2)


def test_counters_keep_their_labels_and_values():
    counters = {
        sample("cachegate_decisions_total", "/v1/models/{model}", "permitted"): 3,
        sample("cachegate_responses_total", "200"): 4,
        "cachegate_sent_bytes_total": 5,
    }
    seen = samples(Status(counters=counters))
    assert seen['cachegate_decisions_total{reason="permitted",route="/v1/models/{model}"}'] == 3
    assert seen['cachegate_responses_total{status="200"}'] == 4
    assert seen["cachegate_sent_bytes_total"] == 5


def test_what_nobody_declared_is_not_shown():
    of_another_version = sample("cachegate_responses_total", "200") + "\tmore"
    seen = samples(Status(counters={"cachegate_surprise_total": 1, "not a name": 1, of_another_version: 1}))
    assert not [
        name for name in seen if name.startswith(("cachegate_responses", "not")) or "surprise" in name
    ]


def test_the_times_of_a_face_are_a_histogram_of_all_workers():
    def times(face, label):
        return f"{REQUEST_SECONDS}\t{face}\t{label}"

    counters = {times("content", "0.001"): 5, times("content", "0.5"): 2, times("content", "+Inf"): 1}
    seen = samples(Status(counters={**counters, times("content", "sum"): 33.5}))
    assert seen['cachegate_request_seconds_bucket{face="content",le="0.0005"}'] == 0
    assert seen['cachegate_request_seconds_bucket{face="content",le="0.001"}'] == 5
    assert seen['cachegate_request_seconds_bucket{face="content",le="0.25"}'] == 5
    assert seen['cachegate_request_seconds_bucket{face="content",le="0.5"}'] == 7
    assert seen['cachegate_request_seconds_bucket{face="content",le="+Inf"}'] == 8
    assert seen['cachegate_request_seconds_count{face="content"}'] == 8
    assert seen['cachegate_request_seconds_sum{face="content"}'] == 33.5


def test_what_runs_is_in_the_labels_of_a_metric():
    seen = samples(Status())
    assert seen[f'cachegate_build_info{{python="{python_version()}",version="{__version__}"}}'] == 1


def test_each_check_of_readiness_is_a_metric():
    seen = samples(Status(ready={"lease": False, "audit": True}))
    assert (seen['cachegate_check{check="lease"}'], seen['cachegate_check{check="audit"}']) == (0, 1)
    assert (seen["cachegate_workers"], seen["cachegate_workers_expected"]) == (2, 2)


def test_room_that_nobody_could_measure_is_not_told_as_none():
    assert "cachegate_audit_disk_free_bytes" not in samples(Status())
    seen = samples(Status(gauges={"cachegate_audit_disk_free_bytes": 5.0}))
    assert seen["cachegate_audit_disk_free_bytes"] == 5
