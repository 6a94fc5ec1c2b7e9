from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from gateway.adapters.history_file import HistoryFile
from gateway.model.stores import Moment


@pytest.fixture
def memory(installed):
    """What this node saw last; restored after the test."""
    memory = HistoryFile(installed.settings.history_file)
    before = memory.load()
    yield memory
    memory.accept(before)


def test_known_facts_are_shown_and_are_no_question(command, command_json, memory):
    status, shown = command_json("directory", "show")
    assert (status, shown["known"]) == (0, True)
    assert shown["seen"] == {"history": memory.load().history, "generation": memory.load().generation}
    assert shown["present"] == shown["seen"]
    assert command("directory", "show")[0] == 0


def test_accepting_what_is_known_changes_nothing(command_json, memory):
    before = memory.load()
    status, shown = command_json("directory", "accept")
    assert (status, shown["accepted"], shown["known"]) == (0, False, True)
    assert memory.load() == before


@pytest.mark.parametrize("what", ["another history", "an older state", "a change that was lost"])
def test_unknown_facts_are_refused_until_they_are_accepted(command, command_json, memory, what):
    real = memory.load()
    seen = {
        "another history": Moment(history="f" * 32, generation=1, mark="f" * 16),
        "an older state": replace(real, generation=real.generation + 100),
        "a change that was lost": replace(real, mark="f" * 16),
    }[what]
    memory.accept(seen)

    status, shown = command_json("directory", "show")
    assert (status, shown["known"]) == (1, False)
    assert shown["seen"] == {"history": seen.history, "generation": seen.generation}
    assert shown["present"] == {"history": real.history, "generation": real.generation}
    assert "revocations may" in command("directory", "show")[2]

    status, _, said = command("tenants", "create", "somebody")
    assert status == 3
    assert "directory accept" in said

    # There is no terminal to ask on.
    for arguments in ((), ("--json",)):
        assert command("directory", "accept", *arguments)[0] == 2
    assert memory.load() == seen

    status, shown = command_json("directory", "accept", "--yes")
    assert (status, shown["accepted"], shown["known"]) == (0, True, True)
    assert memory.load() == real
    assert command_json("directory", "show")[0] == 0


def test_an_acceptance_is_in_the_audit_log(command, memory, installed):
    real = memory.load()
    memory.accept(Moment(history="f" * 32, generation=1))
    assert command("directory", "accept", "--yes")[0] == 0
    lines = [
        json.loads(line)
        for path in installed.settings.audit_folder.glob("*.jsonl")
        for line in path.read_bytes().splitlines()
    ]
    accepted = [one for one in lines if one.get("action") == "directory.accept"]
    assert any(real.history in json.dumps(one) for one in accepted)


def test_a_file_that_does_not_parse_is_shown_as_such(command_json, memory, installed):
    installed.settings.history_file.write_text("{")
    status, shown = command_json("directory", "show")
    assert (status, shown["seen"]["history"]) == (1, "unreadable")
    assert command_json("directory", "accept", "--yes")[0] == 0


def test_the_group_is_shown_and_set(command, command_json):
    status, shown = command_json("directory", "group")
    assert (status, shown["group"], shown["set"], shown["seen"]) == (0, 1, False, 1)
    status, shown = command_json("directory", "group", "2")
    # With one server of two, only one holds the change just made.
    assert (status, shown["group"], shown["set"], shown["sure"]) == (1, 2, True, False)
    assert (shown["held_by"], shown["servers"], shown["sure_in_seconds"]) == (1, 2, None)
    assert "held by 1 of 2 servers" in shown["why"]
    status, shown = command_json("directory", "group", "1")
    assert (status, shown["group"], shown["sure"]) == (0, 1, True)
    assert "1 servers" in command("directory", "group")[2]
    for wrong in ("0", "17", "-1"):
        assert command("directory", "group", wrong)[0] == 2
