"""The log with known findings, with an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.audit.index import Indexer, IndexReader
from tests.known_log import NODE, write_known_log

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def known_log(tmp_path: Path) -> Path:
    folder = tmp_path / "audit"
    write_known_log(folder)
    return folder


@pytest.fixture
def indexer(known_log):
    indexer = Indexer(known_log, NODE)
    yield indexer
    indexer.close()


@pytest.fixture
def reader(known_log, indexer) -> IndexReader:
    while indexer.step():
        pass
    return IndexReader(known_log, NODE)
