"""The refusal for files that exist but are not what the engine would have written, with a finding.

The client gets the reason `unservable` and nothing else. The finding is attached to the exception as a note,
so that `doctor` and the scan's report can name it. Findings hold names and never content.
"""

from __future__ import annotations

import codecs

from gateway.model.errors import CachegateError, Reason, Refusal

# Loaded now, because Python reads a codec from a file: the first name to be printed may be that of a file
# that could not be opened because no descriptors are left.
codecs.lookup("unicode_escape")

MAX_FINDING_CHARACTERS = 200  # a finding may quote what a hostile file holds; it must not fill a log line


def unservable(finding: str) -> Refusal:
    """The refusal to raise; `finding` says in a few words what was found on disk."""
    refusal = Refusal(Reason.UNSERVABLE)
    refusal.add_note(finding[:MAX_FINDING_CHARACTERS])
    return refusal


def finding_of(error: CachegateError) -> str:
    """The finding of an error, for reports."""
    notes: list[str] = getattr(error, "__notes__", [])
    return notes[0] if notes else str(error)


def printable(name: str) -> str:
    """A name found on disk, escaped for a log line or JSON: anyone may have chosen it."""
    return name.encode("unicode_escape").decode("ascii")
