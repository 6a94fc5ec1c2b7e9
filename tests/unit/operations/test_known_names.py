"""An unknown name is an error, for every command that takes one, and suggests the nearest known name."""

from __future__ import annotations

import json

import pytest

from gateway.operations.known_names import MAX_COMPARED, find_nearest

UNKNOWN = "glboex"


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "list", "--tenant", UNKNOWN),
        ("grants", "list", "--tenant", UNKNOWN),
        ("tenants", "show", UNKNOWN),
        ("tenants", "suspend", UNKNOWN),
        ("tenants", "resume", UNKNOWN),
        ("tenants", "degraded", UNKNOWN, "closed"),
        ("keys", "create", "--tenant", UNKNOWN),
        ("keys", "import", "--tenant", UNKNOWN, "--sha256", "0" * 64),
        ("grants", "add", "--tenant", UNKNOWN, "--models", "acme/cars/1"),
        ("grants", "remove", "--tenant", UNKNOWN, "--models", "acme/cars/1"),
        ("models", "own", UNKNOWN, "new/*"),
        ("models", "disown", UNKNOWN, "nothing/said"),
        ("cache", "resolutions", "--tenant", UNKNOWN),
        ("connect", "--tenant", UNKNOWN),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_unknown_tenant_is_an_error_with_the_nearest_name(command, arguments, form):
    status, out, err = command(*arguments, *form)
    assert (status, out) == (1, "")
    assert f"there is no tenant {UNKNOWN}" in err
    assert "the nearest is globex" in err


def test_a_tenant_that_resembles_none_is_an_error_all_the_same(command):
    status, out, err = command("keys", "list", "--tenant", "zzzzzzzz")
    assert (status, out) == (1, "")
    assert "nearest" not in err


def test_a_tenant_without_keys_and_grants_is_no_error(command_json, command):
    assert command("tenants", "create", "keyless")[0] == 0
    assert command_json("keys", "list", "--tenant", "keyless") == (0, [])
    assert command_json("grants", "list", "--tenant", "keyless") == (0, [])


@pytest.mark.parametrize("verb", [("keys", "revoke"), ("keys", "show"), ("keys", "rotate")])
def test_an_unknown_key_is_an_error_with_the_nearest_id(command, installed, verb):
    known = installed.key_id("globex")
    mistyped = known[:-1] + ("a" if known[-1] != "a" else "b")
    status, out, err = command(*verb, mistyped)
    assert (status, out) == (1, "")
    assert f"the nearest is {known}" in err


@pytest.mark.parametrize(
    ("arguments", "missing", "nearest"),
    [
        (
            ("grants", "remove", "--tenant", "acme", "--models", "globex/sings/1"),
            "globex/sings/1",
            "globex/signs/1",
        ),
        (("grants", "remove", "--tenant", "acme", "--groups", "nobodys"), "group nobodys", None),
        (("models", "disown", "acme", "acm/*"), "acm/*", "acme/*"),
        (("models", "unalias", "acme/lastest"), "acme/lastest", "acme/latest"),
        (("models", "ungroup", "no-such-group", "acme/cars/1"), "no-such-group", None),
    ],
)
def test_what_is_to_be_taken_away_and_is_not_there_is_an_error(
    command, command_json, arguments, missing, nearest
):
    status, said = command_json(*arguments)
    assert (status, said["changed"], said["missing"]) == (1, False, [missing])
    _, _, err = command(*arguments)
    assert f"not there: {missing}" in err
    assert ("the nearest is" in err) is (nearest is not None)
    assert nearest is None or f"the nearest is {nearest}" in err


def test_what_is_there_is_taken_though_something_beside_it_is_not(command, command_json):
    assert command("grants", "add", "--tenant", "initech", "--models", "acme/one/1")[0] == 0
    status, said = command_json(
        "grants", "remove", "--tenant", "initech", "--models", "acme/one/1", "acme/none/1"
    )
    assert (status, said["changed"], said["missing"]) == (1, True, ["acme/none/1"])
    assert command_json("grants", "list", "--tenant", "initech") == (0, [])


def test_a_group_is_left_only_by_what_is_in_it(command, command_json):
    assert command("models", "group", "vision", "acme/cars/1")[0] == 0
    status, said = command_json("models", "ungroup", "vison", "acme/cars/1")
    assert (status, said["missing"]) == (1, ["vison"])
    assert "the nearest is vision" in command("models", "ungroup", "vison", "acme/cars/1")[2]
    assert command_json("models", "ungroup", "vision", "acme/trucks/2")[1]["missing"] == ["acme/trucks/2"]
    assert command_json("models", "ungroup", "vision", "acme/cars/1")[0] == 0


def test_a_grant_on_a_group_without_models_says_so(command_json, command):
    status, said = command_json("grants", "add", "--tenant", "initech", "--groups", "empty")
    assert status == 0
    assert any("no model is in the group empty" in line for line in said["messages"])
    assert command("grants", "remove", "--tenant", "initech", "--groups", "empty")[0] == 0


@pytest.mark.parametrize(("model", "nearest"), [("acme/casr/1", "acme/cars/1"), ("zz/unlike/anything", None)])
def test_a_model_that_nothing_names_and_that_is_not_on_disk_is_an_error(command, model, nearest):
    status, out, err = command("models", "show", model, "--json")
    said = json.loads(out)
    assert (status, said["known"], said["nearest"]) == (1, False, nearest)
    assert f"there is no model {model}" in err


def test_a_model_is_known_by_a_fact_or_by_the_disk(command_json, command):
    for model in ("acme/cars/1", "acme/latest"):
        assert command_json("models", "show", model)[1]["known"] is True
    assert command("models", "publish", "public/soon/1")[0] == 0
    assert command_json("models", "show", "public/soon/1")[0] == 0


def test_nothing_is_compared_with_very_many_names():
    many = [f"tenant-{number}" for number in range(MAX_COMPARED + 1)]
    assert find_nearest("tenant-7x", many) is None
    assert find_nearest("tenant-7x", many[:100]) is not None
