from __future__ import annotations

from gateway.server.status import FleetStatus, Retired, WorkerStatus, combine

READY = WorkerStatus(ready={"redis": True}, counters={"requests": 2})
UNREADY = WorkerStatus(ready={"redis": False}, counters={"requests": 3, "refusals": 1})


def test_counters_are_summed_and_readiness_is_the_conjunction():
    status = combine([READY, UNREADY], [READY, UNREADY], Retired())
    assert status.ready == {"redis": False}
    assert status.counters == {"requests": 5, "refusals": 1}
    assert (status.expected, status.answering, status.is_ready) == (2, 2, False)


def test_all_ready_workers_make_a_ready_instance():
    assert combine([READY, READY], [], Retired()).is_ready


def test_a_silent_worker_is_not_ready_and_keeps_what_it_counted():
    status = combine([READY, None], [READY, UNREADY], Retired())
    assert not status.is_ready
    assert status.answering == 1
    assert status.counters["requests"] == 5


def test_no_worker_at_all_is_not_ready():
    assert not FleetStatus(expected=0, answering=0, ready={}, counters={}).is_ready


def test_the_counters_of_the_dead_stay():
    retired = Retired()
    retired.add(UNREADY)
    retired.add(None)
    retired.add(UNREADY)
    assert combine([READY], [READY], retired).counters == {"requests": 8, "refusals": 2}


def test_values_of_the_moment_are_those_of_the_workers_that_answer():
    # The gauge of a worker that has ended or does not answer has no value any more; a counter has.
    lag = WorkerStatus(ready={}, counters={}, gauges={"lag": 0.25, "transfers": 3.0})
    idle = WorkerStatus(ready={}, counters={}, gauges={"lag": 0.0, "transfers": 2.0})
    assert combine([lag, idle], [lag, idle], Retired()).gauges == {"lag": 0.25, "transfers": 5.0}
    assert combine([None, idle], [lag, idle], Retired()).gauges == {"lag": 0.0, "transfers": 2.0}
    retired = Retired()
    retired.add(lag)
    assert combine([idle], [idle], retired).gauges == {"lag": 0.0, "transfers": 2.0}


def test_of_some_values_the_instance_has_the_largest():
    # Two workers write to one disk, and the log of each lags by itself: a sum would mean nothing.
    one = WorkerStatus(ready={}, counters={}, gauges={"cachegate_audit_lag_seconds": 2.0})
    other = WorkerStatus(ready={}, counters={}, gauges={"cachegate_audit_lag_seconds": 7.0})
    assert combine([one, other], [], Retired()).gauges == {"cachegate_audit_lag_seconds": 7.0}
    assert combine([other, one], [], Retired()).gauges == {"cachegate_audit_lag_seconds": 7.0}
