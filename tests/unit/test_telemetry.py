from __future__ import annotations

import re
from base64 import b64encode
from types import SimpleNamespace

import pytest

from gateway.audit.consumers.runner import ConsumerStatus
from gateway.audit.keeping.keeper import Kept
from gateway.audit.request_secrets import RequestSecrets
from gateway.decisions import DecisionCounts
from gateway.directory.memory.near_cache import CacheCounts
from gateway.model.errors import Reason, Unavailable
from gateway.request_times import REQUEST_SECONDS
from gateway.telemetry import (
    CONSUMER_GAUGES,
    COUNTERS,
    GAUGES,
    LARGEST,
    MOST_LINES,
    QUIET_SECONDS,
    SUMMARY_SECONDS,
    Telemetry,
    freshness_counters,
    gauge_sample,
    sample,
    split_sample,
    unknown_key_counters,
    upstream_counters,
)

KEPT = Kept(
    packed=1,
    removed=2,
    removed_bytes=10,
    waiting=3,
    waits_for=("siem",),
    overrun=("anchor",),
    problems=("a segment does not verify",),
    bytes=5000,
    oldest="2030-01-01T00:00:00.000000Z",
)


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
def busy(telemetry):
    """Count everything that can be counted, once."""
    telemetry.decided("/v1/models", Reason.PERMITTED)
    telemetry.questioned("no")
    telemetry.answered(200, 10)
    telemetry.failed(Unavailable("redis", "gone"))
    telemetry.defect("/v1/models", RuntimeError("x"))
    telemetry.unreadable("{cachegate}:f:t:a")
    telemetry.damaged_record("acme/cars/1")
    telemetry.packages_left_out("acme/cars/1", 1)
    telemetry.chore_failed("pin-ahead", RuntimeError("x"), 0.1)
    telemetry.items_failed("pin-ahead", [("a blob", "it cannot be read")], 1)
    telemetry.withdrawn()
    telemetry.degraded()
    telemetry.mode_changed("mode.no-lease")
    telemetry.canary_measured(0.25)
    telemetry.refused_by_server(Reason.SLOW_REQUEST)
    telemetry.answered_at_once([("/v1/models", Reason.PERMITTED, 200, 10, 1.0)], 1.5)
    telemetry.inference_failed("10.0.0.5:9001", "it did not answer in time")
    telemetry.unexpected_model("10.0.0.5:9001")
    telemetry.pinned(1)
    telemetry.decoy_used(SimpleNamespace(key_id="key_decoydecoyde", tenant="acme"), "192.0.2.1")
    telemetry.new_network("key_abcdefghijkl", "192.0.2.0/24")
    telemetry.audit_kept(KEPT)
    for delivered in (0, 7):  # what is counted is the difference of two reports
        telemetry.consumers_reported([consumer(delivered)], [])
    return telemetry


def freshness():
    facts = SimpleNamespace(
        cache=SimpleNamespace(
            counts=CacheCounts(hits=1, misses=2, evictions=3, invalidations=4, flushes=5, overtaken=6)
        ),
        lease=SimpleNamespace(losses=7),
        stale_refusals=8,
    )
    return freshness_counters(facts, SimpleNamespace(counts=DecisionCounts(hits=9, misses=10)))


def upstream():
    unknown_keys = SimpleNamespace(counts={"asked": 1})
    return {
        **upstream_counters(SimpleNamespace(outcomes={"answered": 1, "failed": 2})),
        **unknown_key_counters(SimpleNamespace(unknown_keys=unknown_keys)),
    }


def test_a_worker_without_an_upstream_counts_no_questions():
    assert upstream_counters(None) == {}
    assert upstream()[sample("cachegate_upstream_questions_total", "failed")] == 2


def counted_by(telemetry):
    """What it counted, without the histogram of request times."""
    return [one for one in telemetry.values() if split_sample(one)[0] != REQUEST_SECONDS]


def test_every_sample_belongs_to_a_metric_that_is_declared_with_its_labels(busy):
    for one in (*counted_by(busy), *freshness(), *upstream()):
        name, values = split_sample(one)
        assert len(values) == len(COUNTERS[name].labels), one


def test_every_metric_is_explained():
    assert all(metric.meaning for metric in COUNTERS.values())
    assert all(GAUGES.values())
    assert all(LARGEST.values())


def test_what_a_worker_reports_of_its_request_times_is_by_face_and_bucket(telemetry):
    telemetry.began("/v1/models", 0.002)
    begun = ("/v1/whoami", Reason.PERMITTED, 200, 10, 1.0), ("-", Reason.NO_ROUTE, 404, 90, 1.25)
    telemetry.answered_at_once(begun, 1.25)
    counted = telemetry.values()
    values = {(name, *labels): counted[one] for one in counted for name, labels in [split_sample(one)]}
    assert values[REQUEST_SECONDS, "content", "0.0025"] == 1
    assert values[REQUEST_SECONDS, "identity", "0.25"] == 1
    assert values[REQUEST_SECONDS, "identity", "sum"] == 0.25
    assert values[REQUEST_SECONDS, "none", "0.0005"] == 1


def test_a_metric_is_counted_with_exactly_the_labels_that_it_is_declared_with():
    counted = sample("cachegate_decisions_total", "/v1/models", Reason.PERMITTED)
    assert split_sample(counted) == ("cachegate_decisions_total", ["/v1/models", "permitted"])
    assert sample("cachegate_defects_total") == "cachegate_defects_total"
    for name, values in (("cachegate_responses_total", ()), ("cachegate_defects_total", ("x",))):
        with pytest.raises(ValueError, match=name):
            sample(name, *values)


def consumer(delivered, **more):
    return ConsumerStatus(name="siem", kind="push", state="running", delivered=delivered, **more)


def test_each_consumer_has_its_lag_until_it_is_removed_and_its_records_are_counted(telemetry):
    telemetry.consumers_reported([consumer(3, lag_records=9, lag_seconds=2.5)], [])
    telemetry.consumers_reported([consumer(10, refused=2)], ["broken"])
    key = "cachegate_audit_consumer_records_total"
    assert telemetry.counters[sample(key, "siem", "delivered")] == 7
    assert telemetry.counters[sample(key, "siem", "refused")] == 2
    assert telemetry.gauges[gauge_sample("cachegate_audit_consumer_up", "siem")] == 1
    telemetry.consumers_reported([], [])
    assert not any(split_sample(one)[0] in CONSUMER_GAUGES for one in telemetry.gauges)


def test_every_metric_is_counted_somewhere_but_those_that_others_count(busy):
    counted = {split_sample(one)[0] for one in (*counted_by(busy), *freshness(), *upstream())}
    assert COUNTERS.keys() - counted == {
        "cachegate_feed_reconnects_total",
        "cachegate_hashed_bytes_total",
        "cachegate_connections_refused_total",
        "cachegate_connections_stalled_total",
        "cachegate_issuer_fetches_total",
        "cachegate_workers_hung_total",
    }


def test_what_was_done_to_the_audit_log_is_counted_and_alarms_are_logged(telemetry, lines, capsys):
    telemetry.audit_kept(KEPT)
    telemetry.audit_kept(KEPT)
    values = telemetry.values()
    names = ("packed_segments", "removed_segments", "overruns")
    assert [values[f"cachegate_audit_{name}_total"] for name in names] == [2, 4, 2]
    assert telemetry.gauges["cachegate_audit_bytes"] == 5000
    assert telemetry.gauges["cachegate_audit_waiting_segments"] == 3
    assert telemetry.gauges["cachegate_audit_oldest_timestamp_seconds"] == 1_893_456_000
    logged = "".join(capsys.readouterr())  # where it goes is another test's
    assert logged.count("audit segments were removed that a consumer still needed") == 2
    waiting = "audit segments are due for removal, and a consumer still needs them"
    assert lines.events.count(waiting) == 1  # then once a minute


def test_what_memory_did_is_told_apart():
    assert freshness() == {
        sample("cachegate_near_cache_total", "hit"): 1,
        sample("cachegate_near_cache_total", "miss"): 2,
        sample("cachegate_near_cache_total", "eviction"): 3,
        sample("cachegate_near_cache_total", "invalidation"): 4,
        sample("cachegate_near_cache_total", "flush"): 5,
        sample("cachegate_near_cache_total", "overtaken"): 6,
        "cachegate_lease_losses_total": 7,
        "cachegate_stale_refusals_total": 8,
        sample("cachegate_decision_memory_total", "hit"): 9,
        sample("cachegate_decision_memory_total", "miss"): 10,
    }


def test_the_lag_is_the_latest_and_barriers_add_up(telemetry):
    for seconds in (0.25, 0.5):
        telemetry.canary_measured(seconds)
    assert telemetry.gauges == {"cachegate_revocation_lag_seconds": 0.5}
    values = telemetry.values()
    assert values["cachegate_barriers_total"] == 2
    assert values["cachegate_barrier_seconds_total"] == 0.75


def test_a_worker_that_does_not_measure_adds_nothing(telemetry):
    telemetry.canary_measured(0.5)
    telemetry.canary_measured(0.0)
    assert telemetry.gauges["cachegate_revocation_lag_seconds"] == 0.0
    assert telemetry.values()["cachegate_barriers_total"] == 1


class Lines:
    """The lines that were logged."""

    def __init__(self):
        self.said = []

    def error(self, event, **fields):
        self.said.append((event, fields))

    info = warning = error

    @property
    def events(self):
        return [event for event, _ in self.said]


@pytest.fixture
def lines(telemetry):
    telemetry.lines._log = Lines()
    return telemetry.lines._log


FULL = Unavailable("audit", "no space left to write /a", Reason.NO_AUDIT)


def test_what_fails_a_thousand_times_is_one_line_and_one_more_a_minute(telemetry, lines):
    for second in range(130):
        for _ in range(10):
            telemetry.failed(FULL)
        telemetry.lines.tick(1000.0 + second)
    assert lines.events == ["not decided", "not decided, again", "not decided, again"]
    assert lines.said[0][1] == {"dependency": "audit", "why": FULL.why, "reason": "no-audit"}
    assert [fields["times"] for _, fields in lines.said[1:]] == [609, 600]
    assert telemetry.values()[sample("cachegate_dependency_failures_total", "audit")] == 1300


def test_that_it_has_ended_is_said_and_the_next_time_is_a_new_one(telemetry, lines):
    for _ in range(5):
        telemetry.failed(FULL)
    for second in range(int(QUIET_SECONDS) + 2):
        telemetry.lines.tick(1000.0 + second)
    telemetry.failed(FULL)
    assert lines.events[0] == lines.events[-1] == "not decided"
    assert len(lines.events) == 3
    assert lines.said[1][1]["times"] == 5


def test_another_cause_is_a_line_of_its_own(telemetry, lines):
    telemetry.failed(FULL)
    telemetry.failed(Unavailable("audit", "/a was replaced", Reason.NO_AUDIT))
    telemetry.failed(Unavailable("redis", "gone"))
    telemetry.failed(FULL)
    assert lines.events == ["not decided"] * 3


def test_many_different_causes_take_a_bounded_number_of_lines(telemetry, lines):
    for number in range(3 * MOST_LINES):
        telemetry.unreadable(f"record {number}")
    telemetry.lines.tick(1000.0)
    telemetry.lines.tick(1000.0 + SUMMARY_SECONDS)
    assert len(lines.said) <= MOST_LINES + 3  # all others are one: it begins, continues, and ends
    assert telemetry.values()["cachegate_unreadable_facts_total"] == 3 * MOST_LINES


def test_what_was_not_said_yet_is_said_at_the_end(telemetry, lines):
    for _ in range(3):
        telemetry.failed(FULL)
    telemetry.lines.end()
    assert [(event, fields.get("times")) for event, fields in lines.said] == [
        ("not decided", None),
        ("not decided, again", 2),
    ]


def test_a_clock_that_jumps_does_not_multiply_the_lines(telemetry, lines):
    for now in (1000.0, 5.0, 1e9, 3.0, 1000.0):
        telemetry.failed(FULL)
        telemetry.lines.tick(now)
    assert len(lines.said) <= 2 * 5


def _raise(text):
    raise RuntimeError(text)


def _defect(text):
    try:
        _raise(text)
    except RuntimeError as error:
        return error


def test_a_defect_is_logged_with_its_stack_once_for_each_place(telemetry, lines):
    for _ in range(10):
        telemetry.defect("/v1/models", _defect("x"))
    telemetry.defect("/v1/blobs/{md5}", _defect("x"))
    assert lines.events == ["defect"] * 2
    assert "in _raise" in lines.said[0][1]["exception"]
    assert telemetry.values()["cachegate_defects_total"] == 11


@pytest.mark.parametrize("form", ["{}", "b64:{}", "{!r}"])
def test_the_key_of_the_request_is_in_no_stack(telemetry, lines, form):
    key = "R0bKeyOf20Characters"
    text = b64encode(key.encode()).decode() if form.startswith("b64") else key
    secrets = RequestSecrets(((b"x-api-key", key.encode()),), b"")
    telemetry.defect("/v1/models", _defect(form.format(text)), secrets)
    telemetry.defect("/v1/whoami", _defect("cg_live_0123456789abcdefghijklmn123456"))
    said = str(lines.said)
    assert text not in said
    assert "cg_live" not in said
    assert "RuntimeError" in said


def test_what_a_chore_leaves_aside_is_counted_whole_and_named_as_far_as_it_is_told(telemetry, capsys):
    telemetry.items_failed("pin-ahead", [("one", "odd"), ("other", "odd")], 7)
    assert telemetry.values() == {
        sample("cachegate_chore_items_total", "pin-ahead"): 7,
        "cachegate_barrier_seconds_total": 0.0,
    }
    said = capsys.readouterr()
    told = said.out + said.err
    assert all(word in told for word in ("one", "other"))
    assert re.search(r"more\W+5\b", told)


def raised(defect):
    """With the stack that it has where it is caught."""
    try:
        raise defect
    except RuntimeError as caught:
        return caught


def test_a_chore_that_fails_is_told_with_a_stack_only_where_nobody_expected_it(telemetry, capsys):
    telemetry.chore_failed("pin-ahead", Unavailable("state", "the folder is gone"), 0.1)
    told = capsys.readouterr()
    assert "the folder is gone" in told.out + told.err
    telemetry.chore_failed("pin-ahead", raised(RuntimeError("nobody expected it")), 0.1)
    told = capsys.readouterr()
    assert "Traceback" in told.out + told.err
    assert telemetry.values()[sample("cachegate_chore_failures_total", "pin-ahead")] == 2
