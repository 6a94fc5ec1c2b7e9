"""The start of a command: what it imports is made without looking for garbage, of which there is none yet.

Importing makes some hundred thousand objects, all of which stay. Looking through them again and again takes
an eighth of the time that a command needs to start. `run` looks for garbage again where the command begins.
"""

from __future__ import annotations

import gc


def main() -> None:
    """Run one command and exit."""
    gc.disable()
    from gateway.cli.main import main as run_command  # noqa: PLC0415 -- what is to be imported without it

    run_command()
