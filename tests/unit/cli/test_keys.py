"""Keys and grants on the command line: wrong arguments are a usage error."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "rotate", "key_abcdefghijkl", "--overlap", "40d"),
        ("grants", "add", "--tenant", "acme"),
        ("grants", "remove", "--tenant", "acme", "--packages", "p1"),
    ],
)
def test_what_is_asked_for_wrongly_is_a_usage_error(command, arguments):
    assert command(*arguments)[0] == 2


def test_a_rotated_key_is_shown_as_it_is_stored(command_json):
    asked = (
        "--tenant",
        "initech",
        "--name",
        "short",
        "--scopes",
        "discover",
        "--expires",
        "2h",
        "--not-before",
        "1h",
    )
    _, old = command_json("keys", "create", *asked)
    status, new = command_json("keys", "rotate", old["key_id"])
    _, stored = command_json("keys", "show", new["key_id"])
    assert status == 0
    for name in ("expires_at", "not_before", "scopes", "name", "tenant"):
        assert new[name] == stored[name] == old[name]
