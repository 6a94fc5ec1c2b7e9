"""Refusals of anonymous callers: limited on disk, complete in the counts of their summaries."""

from __future__ import annotations

import json

from msgspec.structs import replace

from gateway.audit.refusal_limiter import (
    MANY_SOURCES,
    MAX_NOTED,
    MAX_SUMMARIES,
    AnonymousCaller,
    RefusalLimiter,
)
from gateway.model.errors import Reason
from gateway.model.verdicts import Rejection


def _records(audit, kind):
    return [record for record in map(json.loads, audit.lines()) if record["kind"] == kind]


def test_many_refusals_of_one_source_are_ten_records_and_a_summary_that_adds_up(audit):
    log = audit.open()
    ids = [log.reject(audit.nobody()) for _ in range(1000)]
    ids += [log.reject(audit.nobody(reason=Reason.MISTYPED_KEY)) for _ in range(500)]
    assert _records(audit, "summary") == []
    audit.clock.time += 1
    log.tick(audit.clock.now())
    assert len(_records(audit, "decision")) == 10
    (summary,) = _records(audit, "summary")
    assert summary["count"] == 1490
    assert summary["reasons"] == {"unknown-key": 990, "mistyped-key": 500}
    assert (summary["source"], summary["second"]) == ("192.0.2.7", "2026-09-21T14:13:20.000000Z")
    assert set(ids[10:]) == {summary["id"]}
    assert ids[:10] == [record["id"] for record in _records(audit, "decision")]


def test_refusals_of_many_sources_write_a_bounded_number_of_bytes(audit):
    log = audit.open()
    for number in range(5000):
        log.reject(audit.nobody(client=f"198.{number >> 16}.{(number >> 8) & 255}.{number & 255}"))
    log.close()
    assert len(_records(audit, "decision")) == 200
    (summary,) = _records(audit, "summary")
    assert (summary["source"], summary["count"]) == (MANY_SOURCES, 4800)
    assert sum(path.stat().st_size for path in audit.segments) < 200_000
    assert audit.verify().is_intact


def test_every_second_counts_anew(audit):
    log = audit.open()
    for _ in range(3):
        for _ in range(12):
            log.reject(audit.nobody())
        audit.clock.time += 1
    log.close()
    assert len(_records(audit, "decision")) == 30
    assert [summary["count"] for summary in _records(audit, "summary")] == [2, 2, 2]


def test_the_next_event_of_anybody_writes_the_summary(audit):
    log = audit.open()
    for _ in range(11):
        log.reject(audit.nobody())
    audit.clock.time += 1
    log.reject(audit.denial())
    assert [record["kind"] for record in map(json.loads, audit.lines()[-2:])] == ["summary", "decision"]


def test_one_ipv6_network_is_one_source(audit):
    log = audit.open(anonymous_per_source=3)
    for number in range(8):
        log.reject(audit.nobody(client=f"2001:db8:1:2::{number:x}"))
    log.reject(audit.nobody(client="2001:db8:1:3::1"))
    log.close()
    assert len(_records(audit, "decision")) == 4
    assert _records(audit, "summary")[0]["source"] == "2001:db8:1:2::/64"


def test_refusals_of_known_callers_are_never_limited(audit):
    log = audit.open()
    for _ in range(300):
        log.reject(audit.denial())
    assert len(_records(audit, "decision")) == 300


def _of_key(audit, key_id, **request):
    return Rejection(request=audit.request(**request), reason=Reason.REVOKED_KEY, claimed_key_id=key_id)


def test_many_refusals_of_an_invalid_key_are_limited_and_their_summary_names_the_key(audit):
    log = audit.open()
    for _ in range(30):
        log.reject(_of_key(audit, "key_abcdefghijkl"))
    log.close()
    assert [record["claimed_key_id"] for record in _records(audit, "decision")] == ["key_abcdefghijkl"] * 10
    (summary,) = _records(audit, "summary")
    assert (summary["claimed_key_id"], summary["count"]) == ("key_abcdefghijkl", 20)


def test_many_refusals_of_one_invalid_key_hide_no_other_of_the_same_source(audit):
    log = audit.open()
    for _ in range(30):
        log.reject(_of_key(audit, "key_abcdefghijkl"))
    log.reject(_of_key(audit, "key_ABCDEFGHIJKL"))
    claimed = [record.get("claimed_key_id") for record in _records(audit, "decision")]
    assert claimed[10:] == ["key_ABCDEFGHIJKL"]


def test_known_and_unknown_keys_share_what_their_source_may_have_recorded_before_the_answer(audit):
    log = audit.open()
    for number in range(10):
        log.reject(_of_key(audit, "key_abcdefghijkl") if number % 2 else audit.nobody())
    before = len(audit.lines())
    log.reject(audit.nobody())
    assert len(audit.lines()) == before
    log.close()
    assert [one["count"] for one in _records(audit, "summary")] == [1]


def test_no_number_of_strangers_hides_a_known_key(audit):
    log = audit.open()
    for number in range(1000):
        log.reject(audit.nobody(client=f"198.51.{number >> 8}.{number & 255}"))
    ids = {}
    for reason in (Reason.REVOKED_KEY, Reason.EXPIRED_KEY, Reason.OUTSIDE_NETWORKS, Reason.DISABLED_KEY):
        for key_id in ("key_abcdefghijkl", "key_ABCDEFGHIJKL"):
            rejection = _of_key(audit, key_id, client="203.0.113.9")
            ids[key_id, reason.value] = log.reject(replace(rejection, reason=reason))
    again = log.reject(_of_key(audit, "key_abcdefghijkl", client="203.0.113.9"))
    log.close()
    found = {one["id"]: one for one in _records(audit, "decision")}
    for (key_id, reason), record_id in ids.items():
        assert (found[record_id]["claimed_key_id"], found[record_id]["reason"]) == (key_id, reason)
    (summary,) = [one for one in _records(audit, "summary") if "claimed_key_id" in one]
    assert (summary["id"], summary["count"], summary["reasons"]) == (again, 1, {"revoked-key": 1})
    assert audit.verify().is_intact


def test_every_known_key_has_a_record_of_each_second_however_many_there_are(audit):
    log = audit.open()
    for _ in range(2):
        for number in range(1000):
            log.reject(_of_key(audit, f"key_{number:012d}", client=f"192.0.2.{number % 200}"))
        audit.clock.time += 1
    log.close()
    claimed = [record["claimed_key_id"] for record in _records(audit, "decision")]
    assert sorted(claimed) == sorted([f"key_{number:012d}" for number in range(1000)] * 2)


def test_the_record_of_a_known_key_beyond_the_limits_is_written_after_its_answer(audit):
    told = []
    log = audit.open(on_left=lambda: told.append(None), anonymous_per_source=1)
    log.reject(audit.nobody())
    before = len(audit.lines())
    first = log.reject(_of_key(audit, "key_abcdefghijkl"))
    second = log.reject(_of_key(audit, "key_ABCDEFGHIJKL"))
    assert len(audit.lines()) == before
    assert told
    log.flush()
    assert [one["id"] for one in _records(audit, "decision")][1:] == [first, second]
    told.clear()
    log.reject(_of_key(audit, "key_mnopqrstuvwx"))
    assert told


def test_the_table_never_holds_more_sources_than_the_total():
    limiter = RefusalLimiter(per_source=10, total=50)
    for number in range(10_000):
        limiter.count(AnonymousCaller(str(number)), "unknown-key", 1, lambda: "id")
    assert len(limiter._recorded) == 50
    assert len(limiter._open) == 1


def test_the_tables_are_bounded_for_who_owns_many_revoked_keys_and_every_key_keeps_its_record():
    limiter = RefusalLimiter(per_source=1, total=1)
    limiter.count(AnonymousCaller("a"), "unknown-key", 1, lambda: "id")
    for number in range(MAX_NOTED + 100):
        caller = AnonymousCaller("a", f"key_{number:012d}", "acme")
        first = limiter.count(caller, "revoked-key", 1, lambda: "own")
        assert first is not None and first.is_own  # noqa: PT018 -- the second is about the first
        limiter.count(caller, "revoked-key", 1, lambda: "summary")
    assert len(limiter._noted) <= MAX_NOTED
    assert len(limiter._open) <= MAX_SUMMARIES + 1
    counts = [sum(one.reasons.values()) for one in limiter._open.values()]
    assert sum(counts) == MAX_NOTED + 100


def test_a_summary_that_was_not_written_stays_owed():
    limiter = RefusalLimiter(per_source=1, total=50)
    for _ in range(3):
        limiter.count(AnonymousCaller("a"), "unknown-key", 1, lambda: "id-1")
    assert limiter.first_due(1) is None
    owed = limiter.first_due(2)
    assert owed is not None
    assert limiter.first_due(2) is owed
    limiter.drop_first()
    assert limiter.first_due(2) is None
