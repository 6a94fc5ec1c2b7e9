"""The words of a command line that a shell wants to have completed, as its completion script passes them.

The script is printed by `cachegate --show-completion`. The words are looked at only to import the one command
that they are about; the parser's library reads them again, and completes.
"""

from __future__ import annotations

import os

VARIABLE = "_CACHEGATE_COMPLETE"  # set by the script, to what it wants
WORDS = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")  # bash, and all others


def completed_words() -> list[str]:
    """The words after the program's name; none where nothing is to be completed."""
    environment = os.environ  # noqa: TID251 -- configuration/ is the one reader
    if VARIABLE not in environment:
        return []
    words = next((environment[name] for name in WORDS if name in environment), "")
    return words.split()[1:]
