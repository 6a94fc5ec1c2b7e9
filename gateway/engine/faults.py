"""The two errors of this package: an answer or a file of somebody else's cannot be used.

An invalid answer of the provider decides nothing: it is neither an allow nor a denial (I7). A file of the
engine that does not have the engine's format is not servable. In both cases the finding is for the operator;
it names fields and never repeats their values, which may be a signed URL.
"""

from __future__ import annotations

from gateway.model.errors import Reason, Refusal, Unavailable

UPSTREAM = "upstream"


def undecided(finding: str) -> Unavailable:
    """To be raised when the provider's answer is invalid."""
    return Unavailable(UPSTREAM, finding, Reason.UPSTREAM_UNDECIDED)


def unservable(finding: str) -> Refusal:
    """To be raised when a file in the cache is not as the engine would have written it."""
    refusal = Refusal(Reason.UNSERVABLE)
    refusal.add_note(finding)
    return refusal
