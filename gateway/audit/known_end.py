"""How far `heads.jsonl` once went, by the heads that stand in segments: for a start that finds it gone.

A process that begins knows of the file what is there. Where there is nothing, and chains are there
whose signed heads know of it, it was taken away: the new file must not begin as the first one did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.audit.folder import group_segments
from gateway.audit.heads_file import NO_LINE, End
from gateway.audit.last_head import read_tail
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.audit.head import Signer

MOST_CHAINS = 1000  # the newest ones; a few reads each


def find_known_end(folder: Path, signer: Signer) -> End:
    """The furthest end of the file that a head of our own signing key names; `NO_LINE` when none does."""
    try:
        chains = group_segments(folder.iterdir())
    except OSError:
        return NO_LINE  # no folder yet
    known = NO_LINE
    for chain in sorted(chains, key=_started, reverse=True)[:MOST_CHAINS]:
        try:
            tail = read_tail(chain, chains[chain], signer.public_keys)
        except Unavailable:
            continue  # the next start, or `verify`, says what is wrong with it
        if tail is None or tail.head.listed_bytes is None or tail.head.listed_hash is None:
            continue
        known = max(known, End(tail.head.listed_bytes, tail.head.listed_hash))
    return known


def _started(chain: str) -> str:
    """When a chain began, as its id says, in a form that sorts."""
    return chain.rpartition(".")[2]
