"""All that a key did: what it took, from where, what it was refused, and what was done about it."""

from __future__ import annotations

from gateway.audit.inquiries import KeyReading
from gateway.audit.record import ChangeRecord, QuestionRecord, RefusedChangeRecord
from tests.known_log import FILE_BYTES, GONE, LAPTOP, PROBER, STOLEN

PLACE = {
    "schema": 2,
    "chain": "c",
    "seq": 1,
    "prev": "0" * 64,
    "node": "n",
    "time": "2026-11-07T10:00:00.000000Z",
}


def history(records, key_id):
    reading = KeyReading(key_id)
    for record in records:
        reading.take(record)
    return reading.history


def test_the_damage_of_a_stolen_key_is_its_models_files_bytes_and_networks(known_records):
    found = history(known_records, STOLEN)
    assert (found.requests, found.allowed.times, found.allowed.bytes) == (100, 100, 100 * FILE_BYTES)
    assert len(found.models) == 21
    assert len(found.files) == 61
    assert found.networks == {"10.1.2.0/24": 40, "203.0.113.0/24": 60}
    assert found.models["acme/model-3/1"].times == 3
    assert found.tenant == "acme"


def test_refusals_of_a_key_that_has_ended_are_its_own_and_the_change_is_named(known_records):
    found = history(known_records, GONE)
    assert (found.requests, found.refusals) == (3, {"revoked-key": 3})
    [change] = found.changes_of_it
    assert (change.action, change.actor, change.result) == ("keys.revoke", "cli:anna", "done")


def test_names_that_a_key_asked_for_in_vain_are_told(known_records):
    found = history(known_records, PROBER)
    assert len(found.refused_names) == 40
    assert found.allowed.times == 0


def test_changes_that_it_made_and_questions_that_it_asked_count(known_records):
    more = [
        ChangeRecord(**PLACE, id="c1", actor=LAPTOP, action="keys.create", key_id=PROBER),
        RefusedChangeRecord(**PLACE, id="c2", actor=LAPTOP, action="grants.add", reason="missing-scope"),
        QuestionRecord(**PLACE, id="q1", ask_id="d", item=0, key_id=LAPTOP, answer="no", reason="absent"),
    ]
    found = history([*known_records, *more], LAPTOP)
    assert [(one.action, one.result) for one in found.changes_made] == [
        ("keys.create", None),
        ("grants.add", "refused: missing-scope"),
    ]
    assert [one.action for one in found.changes_of_it] == ["keys.create"]
    assert found.questions == 1


def test_a_key_without_a_record_has_an_empty_history(known_records):
    assert history(known_records, "key_nobody000000").requests == 0
