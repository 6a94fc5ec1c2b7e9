"""The table of classes in the documents is what records become."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.audit.ocsf import to_ocsf
from tests.audit_records import KINDS, records_of

PAGE = Path(__file__).parents[4] / "docs/reference/ocsf.md"
ROW = re.compile(r"^\| `([\w-]+)` \| (\d{4}) ([\w ]+) \|", re.MULTILINE)


def documented() -> dict[str, set[tuple[int, str]]]:
    found: dict[str, set[tuple[int, str]]] = {}
    for kind, class_uid, name in ROW.findall(PAGE.read_text()):
        found.setdefault(kind, set()).add((int(class_uid), name))
    return found


def test_every_kind_is_in_the_table():
    assert set(documented()) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_record_becomes_an_event_of_a_class_that_the_table_has_for_its_kind(kind, data):
    record, line = data.draw(records_of(kind))
    event = to_ocsf(record, line)
    assert (event["class_uid"], event["class_name"]) in documented()[kind]
