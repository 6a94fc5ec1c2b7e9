"""The story as an audit folder with an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.audit.index import Indexer, IndexReader
from tests.audit_story import NODE, write_story

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def story(tmp_path: Path) -> Path:
    folder = tmp_path / "audit"
    write_story(folder)
    return folder


@pytest.fixture
def indexer(story):
    indexer = Indexer(story, NODE)
    yield indexer
    indexer.close()


@pytest.fixture
def reader(story, indexer) -> IndexReader:
    indexer.step()
    return IndexReader(story, NODE)
