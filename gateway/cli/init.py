"""`cachegate init`: the state folder, the pepper, the signing key, the rules, the first admin key."""

from __future__ import annotations

import asyncio

from gateway.configuration.sources import load_settings
from gateway.operations.setup import set_up
from gateway.terminal.console import AsJson, print_json, print_secret, say


def init(as_json: AsJson = False) -> None:
    """Set up the state folder and show the first admin key, this once. A second run changes nothing."""
    settings = load_settings()
    done = asyncio.run(set_up(settings))
    document = {"admin_key": done.admin_key, "state": str(settings.state), "changed": done.is_new}
    if done.admin_key is None or done.admin_key_id is None:
        if as_json:
            print_json(document)
            return
        what = "completed" if done.is_new else "set up already; nothing was changed"
        say(f"The state folder {settings.state} is {what}.")
        return
    if as_json:
        print_secret(done.admin_key, document, key_id=done.admin_key_id)
        return
    say(f"The state folder {settings.state} is set up: pepper, signing key and rules are in place.")
    say("Back its peppers up: without them no key can ever be recognised again.")
    say("This is the first admin key. It is shown once and stored nowhere:", style="bold")
    print_secret(done.admin_key, None, key_id=done.admin_key_id)
