"""Commands that work on this machine, also where CACHEGATE_URL names a gateway; each says so, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.configuration.sources import load_gateway
from gateway.model.errors import Misconfigured
from gateway.terminal.console import say

if TYPE_CHECKING:
    from collections.abc import Sequence

LOCAL = "This command works on the state folder and the Redis of this machine, whatever CACHEGATE_URL says"
WHY_LOCAL = {
    "init": "it makes the secrets of this machine's state folder",
    "serve": "it serves with the secrets of this machine's state folder",
    "demo": "it makes an installation of its own, and removes it",
    "doctor": "it looks at this machine",
    "connect": "it prints what clients of this machine's settings need",
    "explain --record": "the log is this machine's",
    "cache verify": "it reads the cache of this machine",
    "cache status": "it reads the cache of this machine",
    "cache resolutions": "it reads the engine's volume on this machine",
    "cache attest": "it reads the cache of this machine",
    "policy check": "it reads files, and needs no gateway",
    "policy test": "it reads files, and needs no gateway",
    "audit": "the log is this machine's; `audit follow` reads all nodes through the gateway",
    "tokens": "the keys that sign tokens are in the state folder, and no gateway gives them away",
    "directory": "it works on the server of the facts as a whole",
}
"""Why a command stays local, or a group of commands, or a command with an option."""

THROUGH_THE_GATEWAY = {("audit", "follow")}
"""Commands of a group that stays local, which do not."""


def why_local(arguments: Sequence[str]) -> str | None:
    """What is said of a command with these arguments; None for one that goes through the gateway."""
    words = [one for one in arguments if not one.startswith("-")]
    options = {one.partition("=")[0] for one in arguments if one.startswith("--")}
    if "--help" in options or tuple(words[:2]) in THROUGH_THE_GATEWAY:
        return None
    for name, why in WHY_LOCAL.items():
        named = name.split()
        if words[:1] == named[:1] and all(one in options or one in words[1:2] for one in named[1:]):
            return f"{LOCAL}: {why}."
    return None


def say_where(arguments: Sequence[str]) -> None:
    """Say, where a gateway is named, that this command does not go through it."""
    try:
        is_named = load_gateway() is not None
    except Misconfigured:  # one of the two alone: commands that go through a gateway say so
        return
    text = why_local(arguments) if is_named else None
    if text is not None:
        say(text, style="yellow")
