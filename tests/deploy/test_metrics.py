"""What alerts and dashboards ask for is there in the `/metrics` of a served gateway, label by label."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.model.errors import Reason
from gateway.request_times import FACES, NONE, OTHER
from gateway.telemetry import COUNTERS

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = json.loads((DEPLOY / "grafana/cachegate.json").read_text())["panels"]
QUERIES = [rule["expr"] for rule in ALERTS] + [
    target["expr"] for panel in PANELS for target in panel.get("targets", ())
]
OF_PROMETHEUS = {"instance", "job", "le"}  # labels that every series, or every histogram, has
VALUES = {
    "reason": {reason.value for reason in Reason},
    "face": {NONE, OTHER, *(face for _, face in FACES)},
    "event": set(re.findall(r"[a-z-]+", " ".join(metric.meaning for metric in COUNTERS.values()))),
}


@pytest.fixture(scope="module")
def scraped(new_installation):
    """The families and samples of a gateway that has answered a few requests."""
    installation = new_installation("metrics")
    write_sample_cache(
        installation.cache_root, [SampleModel(model_id="acme/cars/1", packages={"pkgA1": {"a.bin": b"a"}})]
    )
    gateway = installation.serve(workers=2)
    try:
        for path in ("/v1/models", "/v1/whoami", "/nowhere"):
            gateway.wire.get(path, installation.admin_key)
        text = gateway.ops.get("/metrics").body.decode()
    finally:
        gateway.stop()
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    samples = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
    return families, samples


def names_of(query):
    return set(re.findall(r"\b(?:cachegate_\w+|up)\b", query))


def matchers_of(query):
    """Each matcher of a query: the metric, the label, and the values that it names."""
    for name, inside in re.findall(r"(cachegate_\w+)\{([^}]*)\}", query):
        for label, values in re.findall(r'(\w+)[!=~]+"([^"]*)"', inside):
            yield name, label, values.split("|")


def labels_of(families, samples, name):
    """The labels that a metric's series have: those that were seen, or that a counter declares."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    if families.get(base) == "histogram":
        return {"face"}
    seen = {label for one, labels, _ in samples if one == name for label in re.findall(r"(\w+)=", labels)}
    return seen | set(COUNTERS[name].labels if name in COUNTERS else ())


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_every_metric_that_is_asked_for_is_there(query, scraped):
    families, _ = scraped
    histograms = {f"{name}_{end}" for name, kind in families.items() if kind == "histogram"
                  for end in ("bucket", "sum", "count")}  # fmt: skip
    assert names_of(query)
    assert names_of(query) <= {*families, *histograms, "up"}


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_every_label_that_is_asked_for_is_one_of_its_metric_with_values_that_occur(query, scraped):
    families, samples = scraped
    for name, label, values in matchers_of(query):
        assert label in OF_PROMETHEUS | labels_of(families, samples, name), f"{name} has no {label}"
        if label == "check":
            assert f'check="{values[0]}"' in {labels for one, labels, _ in samples if one == name}
        elif label in VALUES:
            assert set(values) <= VALUES[label], values
    grouped = {
        label for labels in re.findall(r"by \(([^)]*)\)", query) for label in re.split(r",\s*", labels)
    }
    of_query = set().union(*(labels_of(families, samples, name) for name in names_of(query)))
    assert grouped <= OF_PROMETHEUS | of_query


def test_a_served_gateway_tells_of_its_times_its_disk_and_what_it_is(scraped):
    families, samples = scraped
    values = {(name, labels): float(value) for name, labels, value in samples}
    assert families["cachegate_request_seconds"] == "histogram"
    for face in ("content", "identity", "none"):
        assert values["cachegate_request_seconds_count", f'face="{face}"'] == 1
        assert values["cachegate_request_seconds_bucket", f'face="{face}",le="+Inf"'] == 1
        assert values["cachegate_request_seconds_sum", f'face="{face}"'] >= 0
    assert 0 < values["cachegate_audit_disk_free_bytes", ""] < values["cachegate_audit_disk_bytes", ""]
    assert 0 <= values["cachegate_audit_lag_seconds", ""] < 60
    assert values["cachegate_audit_waiting_records", ""] == 0
    assert values["cachegate_check", 'check="audit"'] == 1
    assert [labels for name, labels, _ in samples if name == "cachegate_build_info"]
