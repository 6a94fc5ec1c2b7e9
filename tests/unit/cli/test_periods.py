from __future__ import annotations

import asyncio
import uuid
from functools import partial

import pytest

from gateway.directory.edits.grants import add_grants
from gateway.operations.session import open_session


@pytest.fixture
def model():
    return f"globex/{uuid.uuid4().hex[:8]}"


def grants_on(command_json, model):
    return [one for one in command_json("grants", "list")[1] if model in one["models"]]


def add(command, model, *options):
    return command("grants", "add", "--tenant", "acme", "--models", model, *options)


def test_a_grant_has_the_times_that_were_named_last(command, command_json, model):
    assert add(command, model, "--expires", "2d", "--not-before", "2030-01-01T00:00:00Z")[0] == 1
    assert (
        add(command, model, "--expires", "2031-01-01T00:00:00Z", "--not-before", "2030-01-01T00:00:00Z")[0]
        == 0
    )
    [grant] = grants_on(command_json, model)
    assert (grant["state"], grant["not_before"], grant["expires_at"]) == (
        "not-yet", "2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z",
    )  # fmt: skip
    assert "not begun" in command("grants", "list")[1]
    assert add(command, model, "--expires", "2d")[0] == 0
    [grant] = grants_on(command_json, model)
    assert (grant["state"], grant["not_before"]) == ("in-force", None)
    assert add(command, model)[0] == 0
    [grant] = grants_on(command_json, model)
    assert grant["expires_at"] is None


@pytest.mark.parametrize("option", ["--expires=2030-01-01T00:00:00", "--expires=soon", "--not-before=5"])
def test_a_time_that_does_not_parse_is_refused(command, command_json, model, option):
    assert add(command, model, option)[0] == 2
    assert grants_on(command_json, model) == []


def test_times_are_in_the_record_of_the_change(command, installed, model):
    add(command, model, "--expires", "2031-01-01T00:00:00Z")
    written = b"".join(path.read_bytes() for path in installed.settings.audit_folder.glob("*.jsonl"))
    assert b"until 2031-01-01T00:00:00Z" in written


def test_a_publication_has_times_too(command, command_json, model):
    assert command("models", "publish", model, "--not-before", "2030-01-01T00:00:00Z")[0] == 0
    [rule] = [one for one in command_json("models", "list")[1]["rules"] if one["pattern"] == model]
    assert (rule["state"], rule["not_before"]) == ("not-yet", "2030-01-01T00:00:00Z")
    assert "not begun" in command("models", "list")[1]
    assert command_json("models", "show", model)[1]["visibility"] == "private"


def test_explain_names_what_is_not_in_force_and_why(command, command_json, installed, model):
    async def lend_until_yesterday():
        async with open_session(installed.settings) as session:
            edit = partial(
                add_grants,
                tenant_id="acme",
                models=[model],
                actions=["read"],
                expires_at=session.clock.now() - 1,
            )
            await session.perform("grants.add", edit, tenant="acme")

    asyncio.run(lend_until_yesterday())
    question = ("explain", "--key-id", installed.key_id("acme"), "--model", model)
    status, found = command_json(*question)
    assert (status, found["reason"]) == (1, "expired-grant")
    [lapsed] = found["lapsed"]
    [grant] = grants_on(command_json, model)
    assert (lapsed["kind"], lapsed["name"], grant["state"]) == ("grant", grant["grant_id"], "ended")
    assert "not in force" in command(*question)[1]
    assert "(ended)" in str(command_json("models", "show", model)[1]["readers"])
