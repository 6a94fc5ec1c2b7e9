"""On disk, but not as the engine would have left it: one refusal, with the finding for the operator.

The client learns the reason `unservable` and nothing else. What was found travels with the exception
as a note, so that `doctor` and the scan's report can name it. Findings hold names and never content.
"""

from __future__ import annotations

import codecs

from gateway.model.errors import CachegateError, Reason, Refusal

# Loaded now: a codec comes from a file, and the first name to be printed may be that of one that could
# not be opened because there are no descriptors left.
codecs.lookup("unicode_escape")

MAX_FINDING_CHARACTERS = 200  # a finding may quote what a hostile file holds; a log line is no place for it


def unservable(finding: str) -> Refusal:
    """The refusal to raise; `finding` says what lies there, in a few words."""
    refusal = Refusal(Reason.UNSERVABLE)
    refusal.add_note(finding[:MAX_FINDING_CHARACTERS])
    return refusal


def finding_of(error: CachegateError) -> str:
    """What was found, for reports."""
    notes: list[str] = getattr(error, "__notes__", [])
    return notes[0] if notes else str(error)


def printable(name: str) -> str:
    """A name as it was found on disk, made safe for a log line or JSON: anybody may have chosen it."""
    return name.encode("unicode_escape").decode("ascii")
