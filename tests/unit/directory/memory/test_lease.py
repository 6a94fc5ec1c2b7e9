from __future__ import annotations

import pytest

from gateway.directory.memory.lease import MAX_PENDING, Lease


@pytest.fixture
def lease():
    return Lease(1.0)


def test_a_new_worker_holds_no_lease(lease):
    assert not lease.is_held(0.0)


def test_a_renewal_counts_from_the_moment_it_was_sent(lease):
    lease.restart(5)
    lease.renewed(sent_at=10.0, generation=5)
    assert lease.is_held(10.999)
    assert not lease.is_held(11.0)


def test_a_renewal_of_a_generation_that_is_not_applied_does_not_count_yet(lease):
    # The reply to a heartbeat can overtake an invalidation that was sent before it.
    lease.restart(5)
    lease.renewed(sent_at=10.0, generation=6)
    assert not lease.is_held(10.1)
    lease.apply(6)
    assert lease.is_held(10.1)
    assert not lease.is_held(11.0)


def test_of_several_renewals_the_latest_that_counts_decides(lease):
    lease.restart(5)
    lease.renewed(sent_at=10.0, generation=5)
    lease.renewed(sent_at=10.3, generation=7)
    lease.renewed(sent_at=10.6, generation=9)
    lease.apply(7)
    assert lease.until == 11.3


def test_a_renewal_that_was_sent_earlier_takes_nothing_back(lease):
    lease.restart(5)
    lease.renewed(sent_at=10.6, generation=5)
    lease.renewed(sent_at=10.0, generation=5)
    assert lease.until == 11.6


def test_what_was_pending_on_a_connection_that_is_gone_never_counts(lease):
    lease.restart(5)
    lease.renewed(sent_at=10.0, generation=9)
    lease.restart(9)
    assert not lease.is_held(10.1)


def test_a_dropped_lease_is_over_at_once_until_a_renewal_counts_again(lease):
    lease.restart(5)
    lease.renewed(sent_at=10.0, generation=5)
    lease.renewed(sent_at=10.1, generation=6)
    lease.drop()
    assert not lease.is_held(10.0)
    lease.apply(6)
    assert not lease.is_held(10.1)
    lease.renewed(sent_at=10.2, generation=6)
    assert lease.is_held(10.3)


def test_applied_goes_back_only_with_a_new_memory(lease):
    lease.apply(9)
    lease.apply(5)
    assert lease.applied == 9
    lease.restart(5)
    assert lease.applied == 5


def test_what_is_pending_is_bounded(lease):
    for number in range(10 * MAX_PENDING):
        lease.renewed(sent_at=float(number), generation=number + 1)
    assert len(lease._pending) == MAX_PENDING


def test_each_loss_is_counted_once(lease):
    lease.restart(1)
    assert not lease.watch(0.0)
    assert lease.losses == 0  # a lease that was never held is not lost
    for start in (10.0, 20.0):
        lease.renewed(sent_at=start, generation=1)
        assert [lease.watch(start + seconds) for seconds in (0.1, 0.9, 1.5, 2.0)] == [
            True,
            True,
            False,
            False,
        ]
    assert lease.losses == 2
