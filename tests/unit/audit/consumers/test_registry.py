"""The registry of consumers: who they are, how far they are, and what retention keeps for them."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from gateway.audit.consumers.registry import (
    CONSUMERS_NAME,
    MOST_CONSUMERS,
    ConsumerProgress,
    ConsumerRegistry,
)
from gateway.audit.keeping.needs import Needs, read_needs
from gateway.model.errors import BadNameError, Conflict, UnknownName

if TYPE_CHECKING:
    from pathlib import Path

NOW = "2030-01-31T12:00:00.000000Z"


def _registry(folder: Path) -> ConsumerRegistry:
    folder.chmod(0o700)
    return ConsumerRegistry(folder)


def test_what_was_added_is_found_with_its_options(tmp_path: Path) -> None:
    registry = _registry(tmp_path)
    added = registry.add("siem", "push", {"url": "https://siem.example/in"}, now=NOW, cursor="c0")
    (found,) = ConsumerRegistry(tmp_path).load_all()
    assert found.registration == added
    assert (found.cursor, found.progress.state) == ("c0", "new")
    mode = (tmp_path / CONSUMERS_NAME / "siem.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_retention_waits_from_the_moment_a_consumer_is_added_until_it_is_removed(tmp_path: Path) -> None:
    registry = _registry(tmp_path)
    registry.add("siem", "push", now=NOW, has_before="2030")
    assert read_needs(tmp_path) == {"siem": Needs(has_before="2030")}
    registry.remove("siem")
    assert read_needs(tmp_path) == {}
    assert registry.load_all() == []


def test_progress_is_kept_and_tells_retention_what_is_delivered(tmp_path: Path) -> None:
    registry = _registry(tmp_path)
    added = registry.add("siem", "push", now=NOW, cursor="c0")
    progress = ConsumerProgress(cursor="c7", state="running", delivered=7)
    assert registry.save(added, progress, Needs(has={"chain": 7}))
    found = registry.find("siem")
    assert found is not None
    assert (found.cursor, found.progress.delivered) == ("c7", 7)
    assert read_needs(tmp_path)["siem"].has == {"chain": 7}


def test_a_removed_consumer_is_not_brought_back_by_one_that_still_delivers_to_it(tmp_path: Path) -> None:
    registry = _registry(tmp_path)
    first = registry.add("siem", "push", now=NOW)
    registry.remove("siem")
    assert not registry.save(first, ConsumerProgress(cursor="c7"), Needs(has={"chain": 7}))
    assert read_needs(tmp_path) == {}
    registry.add("siem", "push", now=NOW, cursor="c1")
    assert not registry.save(first, ConsumerProgress(cursor="c7"))
    found = registry.find("siem")
    assert found is not None
    assert found.cursor == "c1"


def test_damaged_progress_starts_again_where_the_consumer_was_added(tmp_path: Path) -> None:
    registry = _registry(tmp_path)
    added = registry.add("siem", "push", now=NOW, cursor="c0")
    registry.save(added, ConsumerProgress(cursor="c7"))
    (tmp_path / CONSUMERS_NAME / "siem.progress.json").write_bytes(b"\0\0\0")
    found = registry.find("siem")
    assert found is not None
    assert found.cursor == "c0"


def test_a_damaged_registration_is_named_and_holds_up_no_other(tmp_path: Path) -> None:
    registry = _registry(tmp_path)
    registry.add("one", "push", now=NOW)
    registry.add("two", "push", now=NOW)
    (tmp_path / CONSUMERS_NAME / "one.json").write_bytes(b"{")
    assert [one.registration.name for one in registry.load_all()] == ["two"]
    assert registry.damaged() == ["one"]
    assert registry.remove("one") is None
    assert registry.damaged() == []


@pytest.mark.parametrize("name", ["", "Siem", "../siem", "a.progress", "-a", "a" * 63, "a/b", "a\n"])
def test_a_name_that_is_no_file_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    registry = _registry(tmp_path)
    with pytest.raises(BadNameError):
        registry.add(name, "push", now=NOW)
    assert registry.find(name) is None


def test_the_number_of_consumers_is_bounded_and_names_are_taken_once(tmp_path: Path) -> None:
    registry = _registry(tmp_path)
    for number in range(MOST_CONSUMERS):
        registry.add(f"c{number}", "feed", now=NOW)
    with pytest.raises(Conflict):
        registry.add("one-more", "feed", now=NOW)
    with pytest.raises(Conflict):
        registry.add("c1", "feed", now=NOW)
    with pytest.raises(UnknownName):
        registry.remove("one-more")
