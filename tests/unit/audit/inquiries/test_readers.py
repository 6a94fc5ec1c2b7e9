"""Who read a thing: each key with its times, bytes and addresses, and nobody else."""

from __future__ import annotations

import pytest

from gateway.audit.inquiries import ReadQuestion, WhoRead
from gateway.audit.inquiries import readers as module
from tests.known_log import FILE_BYTES, LAPTOP, STOLEN, THIEF, WAITING


def answered(records, **question):
    found = WhoRead(ReadQuestion(**question))
    for record in records:
        found.take(record)
    return found


def test_each_reader_of_a_model_is_named_with_what_it_read(known_records):
    readers = {one.key_id: one for one in answered(known_records, model="acme/cars/1").readers}
    assert set(readers) == {LAPTOP, STOLEN, WAITING}
    uses = readers[LAPTOP].uses
    assert (uses.times, uses.bytes, len(uses.clients)) == (40, 40 * FILE_BYTES, 8)
    assert (uses.first[:16], uses.last[:16]) == ("2026-11-02T09:00", "2026-11-06T16:00")


def test_a_file_is_found_by_its_name_and_a_blob_by_either_digest(known_records):
    [reader] = answered(known_records, file="part-1.onnx").readers
    assert (reader.key_id, reader.uses.times, reader.uses.clients) == (STOLEN, 20, {THIEF: 20})
    by_digest = [answered(known_records, blob=one).readers for one in ("ab" * 16, "cd" * 32)]
    assert by_digest[0] == by_digest[1]
    assert sum(one.uses.times for one in by_digest[0]) == 142


def test_a_refused_request_is_no_read(known_records):
    assert answered(known_records, model="globex/guess-1/1").readers == []


def test_reads_of_one_tenant_are_asked_for_alone(known_records):
    assert [one.key_id for one in answered(known_records, model="acme/cars/1", tenant="globex").readers] == [
        WAITING
    ]


def test_keys_beyond_the_bound_are_counted_as_left_out(known_records, monkeypatch):
    monkeypatch.setattr(module, "MAX_READERS", 1)
    found = answered(known_records, model="acme/cars/1")
    assert len(found.readers) == 1
    assert found.left_out == 41


@pytest.mark.parametrize("question", [{"model": "acme/vans/2"}])
def test_what_an_inference_server_ran_is_a_use_as_well(known_records, question):
    [reader] = answered(known_records, **question).readers
    assert (reader.action, reader.uses.times) == ("infer", 1)
