from __future__ import annotations

import asyncio
import dataclasses

import pytest
from msgspec.structs import replace

from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.history_file import HistoryFile
from gateway.adapters.redis_fleet import Fleet, Registered
from gateway.adapters.redis_store import RedisStore
from gateway.model.facts import Tenant
from gateway.model.names import TenantId
from gateway.model.stores import Moment
from gateway.operations.doctor.findings import Level
from gateway.operations.doctor.fleet import check_history, judge_lease, judge_workers


def worker(name, applied=10, number=2, silent=0.0):
    return Registered(worker=name, applied=applied, entry=b"%d:%d" % (applied, number), silent_seconds=silent)


def judged(*workers, newest=10):
    """The finding after a second read; at the first, at 10, every worker was at its first renewal."""
    first = tuple(replace(one, entry=b"%d:1" % one.applied) for one in workers)
    last = Fleet(workers=workers, moment=Moment(generation=newest))
    return judge_workers(Fleet(workers=first, moment=Moment(generation=10)), last, 1.0)


def test_a_fleet_that_renews_and_has_applied_everything_is_in_order():
    found = judged(worker("a"), worker("b"))
    assert found.health is Level.OK
    assert all(part in found.found for part in ("a has acknowledged 10 of 10", "b has acknowledged 10 of 10"))


def test_a_change_between_the_two_reads_is_counted_in_both_numbers_and_nobody_is_behind_by_it():
    found = judged(worker("a"), worker("b", applied=11), newest=11)
    assert found.health is Level.OK
    assert all(part in found.found for part in ("a has acknowledged 10 of 11", "b has acknowledged 11 of 11"))


def test_nobody_serving_is_no_fault():
    assert judged().health is Level.OK


def test_one_that_does_not_renew_is_named_and_told_from_one_that_is_behind():
    silent = judged(worker("a"), worker("gone", applied=3, number=1, silent=9.0))
    assert silent.health is Level.WARNING
    assert "do not renew" in silent.advice
    assert "silent for 9.0 s" in silent.found
    assert "behind" not in silent.advice
    late = judged(worker("late", applied=9))
    assert late.health is Level.WARNING
    assert "behind" in late.advice
    assert "do not renew" not in late.advice


def test_a_large_fleet_is_counted_and_those_who_are_behind_are_named_first():
    found = judged(*(worker(f"w{number:02}") for number in range(20)), worker("last", applied=1))
    assert found.found.startswith("last has acknowledged 1")
    assert found.found.endswith("and 16 more")


def tenant(name, seconds):
    return Tenant(
        tenant_id=TenantId(name), name=name, is_suspended=False, created_at=1.0, degraded_seconds=seconds
    )


def test_lease_and_degraded_times_are_shown(installed):
    found = judge_lease(installed.settings, [tenant("a", 60.0), tenant("b", 0.0), tenant("c", 3600.0)])
    assert found.health is Level.OK
    assert "1 s, renewed every 0.3 s" in found.found
    assert "c 1h, a 1m" in found.found
    assert "b" not in found.found.split("known:")[1]


@pytest.mark.parametrize("milliseconds", [100, 299, 5001, 60_000])
def test_a_lease_that_is_too_short_or_too_long_is_a_warning(installed, milliseconds):
    found = judge_lease(dataclasses.replace(installed.settings, lease_milliseconds=milliseconds), [])
    assert found.health is Level.WARNING
    assert "CACHEGATE_LEASE_MILLISECONDS" in found.advice


def test_facts_that_are_not_the_known_ones_are_a_failure_that_says_what_to_do(installed, tmp_path):
    settings = dataclasses.replace(installed.settings, state=tmp_path)

    async def check():
        with EmbeddedValkey(installed.settings.state).running() as url:
            store = RedisStore(url, history=HistoryFile(settings.history_file))
            try:
                return await check_history(store, settings), await store.moment()
            finally:
                await store.close()

    first, present = asyncio.run(check())
    assert first.health is Level.OK
    HistoryFile(settings.history_file).note(present)
    assert asyncio.run(check())[0].health is Level.OK
    others = (
        replace(present, generation=present.generation + 1),
        replace(present, history="f" * 32),
        replace(present, mark="f" * 16),
    )
    for seen in others:
        HistoryFile(settings.history_file).accept(seen)
        found, _ = asyncio.run(check())
        assert found.health is Level.FAIL
        assert "directory accept" in found.advice
