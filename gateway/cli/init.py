"""`cachegate init`: the state folder, the pepper, the signing key, the rules, the first admin key."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING

from gateway.configuration.sources import load_settings
from gateway.operations.setup import set_up
from gateway.terminal.console import AsJson, Line, Note, show, showing_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.operations.setup import SetUp


def init(as_json: AsJson = False) -> None:
    """Set up the state folder and show the first admin key, this once. A second run changes nothing."""
    settings = load_settings()
    done = asyncio.run(set_up(settings))
    document = {"admin_key": done.admin_key, "state": str(settings.state), "changed": done.is_new}
    with nullcontext() if done.admin_key_id is None else showing_key(done.admin_key_id):
        show(document, _shown(done, settings.state), as_json=as_json)


def _shown(done: SetUp, state: Path) -> Iterator[Note | Line]:
    if done.admin_key is None:
        what = "completed" if done.is_new else "set up already; nothing was changed"
        yield Note(f"The state folder {state} is {what}.")
        return
    yield Note(f"The state folder {state} is set up: pepper, signing key and rules are in place.")
    yield Note("Back its peppers up: without them no key can ever be recognised again.")
    yield Note("This is the first admin key. It is shown once and stored nowhere:", "bold")
    yield Line(done.admin_key)
