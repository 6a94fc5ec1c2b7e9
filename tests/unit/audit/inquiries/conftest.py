"""The records of the log with known findings, oldest first."""

from __future__ import annotations

import pytest

from gateway.audit.events import read_events
from tests.known_log import write_known_log


@pytest.fixture(scope="session")
def known_records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known_log")
    write_known_log(folder)
    return [event.record for event in read_events(folder)]
