"""Laws of OCSF events: whatever a record says, its event is of the schema and keeps the record's bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.audit.ocsf import to_ocsf
from gateway.audit.record import HASH_TAIL
from tests.audit_records import KINDS, records_of
from tests.ocsf_schema import finding_of


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_the_event_of_any_record_is_of_the_schema_and_keeps_its_bytes(kind, data):
    record, line = data.draw(records_of(kind))
    event = to_ocsf(record)
    assert finding_of(event) is None
    assert event == to_ocsf(record, line)
    sent = json.loads(json.dumps(event))
    covered, digest = sent["raw_data"].encode(), sent["raw_data_hash"]["value"].encode()
    assert covered[:-1] + HASH_TAIL % digest == line
    assert (sent["metadata"]["uid"], sent["metadata"]["sequence"]) == (record.id, record.seq)
