"""For each alert of `deploy/prometheus/alerts.yaml`: what makes it fire, and what is like it and does not.

A series is a name with labels and its values, one a minute, in the notation of `promtool test rules`
(`0x5` is a value six times, `0+60x30` rises by 60). `at` is when is looked.
"""

from __future__ import annotations

from typing import NamedTuple

NODE = 'instance="a:9090",job="cachegate"'


def of(name, labels="", node=NODE):
    return f"{name}{{{','.join(filter(None, (labels, node)))}}}"


def decisions(reason, node=NODE):
    return of("cachegate_decisions_total", f'reason="{reason}",route="/v1/models"', node)


def consumed(event):
    return of("cachegate_audit_consumer_records_total", f'consumer="siem",event="{event}"')


FREE, WHOLE = of("cachegate_audit_disk_free_bytes"), of("cachegate_audit_disk_bytes")


class Case(NamedTuple):
    """An alert, and series with which it fires, or not, after some minutes."""

    alert: str
    fires: bool
    at: str
    series: dict[str, str]


def fires(alert, at, **series):
    return Case(alert, True, at, series["series"])


def quiet(alert, at, **series):
    return Case(alert, False, at, series["series"])


def check(name, values):
    return {of("cachegate_check", f'check="{name}"'): values}


SLOW = 'face="content",le="0.5"', 'face="content",le="2.5"', 'face="content",le="+Inf"'
BUCKET = "cachegate_request_seconds_bucket"

CASES = (
    fires("CachegateDown", "3m", series={of("up"): "1 0x5"}),
    fires("CachegateDown", "3m", series={of("up", node='job="other"'): "1x5"}),
    quiet("CachegateDown", "3m", series={of("up"): "1x5"}),
    quiet("CachegateDown", "2m", series={of("up"): "1 0 1 1"}),
    fires("CachegateNotReady", "3m", series={of("cachegate_ready"): "0x5"}),
    quiet("CachegateNotReady", "3m", series={of("cachegate_ready"): "1x5"}),
    fires(
        "CachegateWorkersMissing",
        "4m",
        series={of("cachegate_workers"): "3x6", of("cachegate_workers_expected"): "4x6"},
    ),
    quiet(
        "CachegateWorkersMissing",
        "4m",
        series={of("cachegate_workers"): "4x6", of("cachegate_workers_expected"): "4x6"},
    ),
    fires(
        "CachegateUndecided",
        "15m",
        series={decisions("permitted"): "0+600x20", decisions("no-lease"): "0+60x20"},
    ),
    fires("CachegateUndecided", "15m", series={decisions("no-audit"): "0+60x20"}),
    quiet(
        "CachegateUndecided",
        "15m",
        series={decisions("permitted"): "0+600x20", decisions("no-lease"): "0+1x20"},
    ),
    quiet("CachegateUndecided", "15m", series={decisions("not-permitted"): "0+600x20"}),
    fires(
        "CachegateSlow",
        "20m",
        series={of(BUCKET, SLOW[0]): "0+90x30", **{of(BUCKET, one): "0+100x30" for one in SLOW[1:]}},
    ),
    quiet("CachegateSlow", "20m", series={of(BUCKET, one): "0+100x30" for one in SLOW}),
    quiet(  # what runs models takes its time
        "CachegateSlow",
        "20m",
        series={of(BUCKET, one.replace("content", "front-door")): "0+100x30" for one in SLOW[1:]},
    ),
    fires("CachegateDefects", "3m", series={of("cachegate_defects_total"): "0 0 1x5"}),
    quiet("CachegateDefects", "3m", series={of("cachegate_defects_total"): "4x5"}),
    fires("CachegateChoresDown", "4m", series={of("cachegate_chores_down"): "1x5"}),
    quiet("CachegateChoresDown", "4m", series={of("cachegate_chores_down"): "0x5"}),
    fires(
        "CachegateVersionsDiffer",
        "70m",
        series={
            of("cachegate_build_info", 'version="0.1.0",python="3.11.2"'): "1x90",
            of("cachegate_build_info", 'version="0.2.0",python="3.11.2"', 'instance="b:9090"'): "1x90",
        },
    ),
    quiet(
        "CachegateVersionsDiffer",
        "70m",
        series={
            of("cachegate_build_info", 'version="0.1.0",python="3.11.2"'): "1x90",
            of("cachegate_build_info", 'version="0.1.0",python="3.13.0"', 'instance="b:9090"'): "1x90",
        },
    ),
    fires("CachegateNoLease", "2m", series=check("lease", "0x5")),
    quiet("CachegateNoLease", "2m", series=check("lease", "1x5")),
    fires("CachegateLeaseFlaps", "10m", series={of("cachegate_lease_losses_total"): "0+1x20"}),
    quiet("CachegateLeaseFlaps", "10m", series={of("cachegate_lease_losses_total"): "0 0 1x20"}),
    fires("CachegateUnknownHistory", "1m", series=check("history", "0x5")),
    quiet("CachegateUnknownHistory", "1m", series=check("history", "1x5")),
    fires(
        "CachegateRevocationLag",
        "3m",
        series={
            of("cachegate_revocation_lag_seconds"): "2x5",
            of("cachegate_revocation_lag_seconds", node='instance="b:9090"'): "0x5",
        },
    ),
    quiet("CachegateRevocationLag", "3m", series={of("cachegate_revocation_lag_seconds"): "0.004x5"}),
    fires(
        "CachegateRevocationUnmeasured",
        "15m",
        series={
            of("cachegate_barriers_total"): "9x20",
            of("cachegate_barriers_total", node='instance="b:9090"'): "0x20",
        },
    ),
    quiet(  # one worker of the fleet measures
        "CachegateRevocationUnmeasured",
        "15m",
        series={
            of("cachegate_barriers_total"): "0+12x20",
            of("cachegate_barriers_total", node='instance="b:9090"'): "0x20",
        },
    ),
    fires("CachegateDegraded", "3m", series={of("cachegate_degraded_responses_total"): "0 0 7x5"}),
    quiet("CachegateDegraded", "3m", series={of("cachegate_degraded_responses_total"): "7x5"}),
    fires("CachegateAuditUnwritable", "2m", series=check("audit", "0x5")),
    quiet("CachegateAuditUnwritable", "2m", series=check("audit", "1x5")),
    fires("CachegateAuditLag", "3m", series={of("cachegate_audit_lag_seconds"): "70+60x5"}),
    fires("CachegateAuditLag", "5m", series={of("cachegate_audit_waiting_records"): "3x9"}),
    quiet("CachegateAuditLag", "3m", series={of("cachegate_audit_lag_seconds"): "9x5"}),
    quiet("CachegateAuditLag", "5m", series={of("cachegate_audit_waiting_records"): "3 0 3 0 3 0 3 0"}),
    fires("CachegateAuditDiskLow", "12m", series={FREE: "10e9x20", WHOLE: "100e9x20"}),
    fires(  # it will be full in eight hours
        "CachegateAuditDiskLow", "30m", series={FREE: "50e9-100e6x40", WHOLE: "100e9x40"}
    ),
    quiet("CachegateAuditDiskLow", "30m", series={FREE: "50e9x40", WHOLE: "100e9x40"}),
    fires("CachegateAuditDiskFull", "3m", series={FREE: "5e8x5", WHOLE: "1e9x5"}),
    fires("CachegateAuditDiskFull", "3m", series={FREE: "2e9x5", WHOLE: "100e9x5"}),
    quiet("CachegateAuditDiskFull", "3m", series={FREE: "10e9x5", WHOLE: "100e9x5"}),
    fires(
        "CachegateAuditConsumerBehind",
        "20m",
        series={of("cachegate_audit_consumer_lag_seconds", 'consumer="siem"'): "0+60x30"},
    ),
    quiet(
        "CachegateAuditConsumerBehind",
        "20m",
        series={of("cachegate_audit_consumer_lag_seconds", 'consumer="siem"'): "299x30"},
    ),
    fires("CachegateAuditConsumerLost", "5m", series={consumed("refused"): "_x3 7x9"}),
    fires("CachegateAuditConsumerLost", "5m", series={consumed("missed"): "0 0 0 2x9"}),
    quiet("CachegateAuditConsumerLost", "5m", series={consumed("delivered"): "0+100x9"}),
    quiet("CachegateAuditConsumerLost", "2h", series={consumed("refused"): "7x180"}),
    fires(
        "CachegateRefusals",
        "25m",
        series={decisions("permitted"): "0+60x30", decisions("unknown-key"): "0+120x30"},
    ),
    fires("CachegateRefusals", "25m", series={decisions("not-permitted"): "0+120x30"}),
    quiet(
        "CachegateRefusals",
        "25m",
        series={decisions("permitted"): "0+600x30", decisions("unknown-key"): "0+120x30"},
    ),
    quiet("CachegateRefusals", "25m", series={decisions("unknown-key"): "0+6x30"}),
    fires("CachegateQuarantine", "5m", series={of("cachegate_pins_total", 'event="quarantined"'): "_x3 1x9"}),
    fires(
        "CachegateQuarantine", "5m", series={of("cachegate_pins_total", 'event="quarantined"'): "1 1 1 2x9"}
    ),
    quiet("CachegateQuarantine", "2h", series={of("cachegate_pins_total", 'event="quarantined"'): "1x180"}),
    quiet("CachegateQuarantine", "5m", series={of("cachegate_pins_total", 'event="pinned"'): "0+9x9"}),
    fires(
        "CachegateUnexpectedModels",
        "5m",
        series={of("cachegate_unexpected_models_total", 'server="10.0.0.5:9001"'): "_x3 1x9"},
    ),
    quiet(
        "CachegateUnexpectedModels",
        "2h",
        series={of("cachegate_unexpected_models_total", 'server="10.0.0.5:9001"'): "1x180"},
    ),
    fires("CachegateUntrustedChecks", "5m", series={decisions("untrusted-proxy"): "_x3 1x9"}),
    quiet("CachegateUntrustedChecks", "30m", series={decisions("untrusted-proxy"): "1x60"}),
    fires("CachegateUnreadableFacts", "3m", series={of("cachegate_unreadable_facts_total"): "0 0 1x5"}),
    quiet("CachegateUnreadableFacts", "3m", series={of("cachegate_unreadable_facts_total"): "0x5"}),
    fires(
        "CachegateInferenceFailing",
        "15m",
        series={of("cachegate_inference_failures_total", 'server="10.0.0.5:9001"'): "0+60x20"},
    ),
    quiet(
        "CachegateInferenceFailing",
        "15m",
        series={of("cachegate_inference_failures_total", 'server="10.0.0.5:9001"'): "0 1x20"},
    ),
)
