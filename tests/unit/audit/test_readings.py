"""One record stands for the readings of a reader within a minute, and for no other's."""

from __future__ import annotations

import pytest

from gateway.audit.readings import Readings
from gateway.model.verdicts import Receipt
from tests import samples


def reading(at=100.0, client="192.0.2.1", **principal):
    request = samples.wire_request(route="/audit/v1/events", client=client, received_at=at)
    return samples.admission(samples.principal(**principal), request=request)


def recorded(admission, record_id="first"):
    return Receipt(record_id=record_id, admission=admission, on_close=lambda _: None)


@pytest.fixture
def readings():
    found = Readings()
    found.note(recorded(reading()))
    return found


def test_within_the_minute_it_is_in_the_log_already(readings):
    receipt = readings.recall(reading(159.9))
    assert receipt.record_id == "first"
    assert receipt.admission.request.received_at == 159.9


@pytest.mark.parametrize(
    "other",
    [
        reading(160.0),
        reading(99.0),  # the clock went back
        reading(100.0),  # the same request, decided anew: what is recorded of it was withdrawn
        reading(101.0, client="198.51.100.1"),
        reading(101.0, key_id="key_otherotherot"),
        reading(101.0, tenant_record="trc_2"),
        reading(101.0, token_id="tok_1"),
    ],
)
def test_whatever_else_it_is_has_a_record_of_its_own(readings, other):
    assert readings.recall(other) is None


def test_what_is_remembered_is_bounded_and_forgetting_means_recording():
    readings = Readings(most=2)
    for number in range(3):
        readings.note(recorded(reading(client=f"192.0.2.{number}")))
    assert readings.recall(reading(101.0, client="192.0.2.0")) is None
    assert readings.recall(reading(101.0, client="192.0.2.2")) is not None
