"""The records of the story, oldest first."""

from __future__ import annotations

import pytest

from gateway.audit.events import read_events
from tests.audit_story import write_story


@pytest.fixture(scope="session")
def story_records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    write_story(folder)
    return [event.record for event in read_events(folder)]
