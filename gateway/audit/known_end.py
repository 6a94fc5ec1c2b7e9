"""Find how far `heads.jsonl` went, from the heads in segments, for a process that starts and finds it gone.

A process that starts knows of the file only what is there. If the file is missing or empty while chains
exist whose signed heads know lines of it, it was removed: the new file must not begin like a first one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.audit.folder import group_segments
from gateway.audit.heads_file import NO_LINE, HeadsEnd
from gateway.audit.last_head import read_tail
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.audit.head import Signer

MOST_CHAINS = 1000  # the newest ones; each costs a few reads


def find_known_end(folder: Path, signer: Signer) -> HeadsEnd:
    """The furthest end of the file named by a head that our own key signed; `NO_LINE` when none names one."""
    try:
        chains = group_segments(folder.iterdir())
    except OSError:
        return NO_LINE  # no folder yet
    known = NO_LINE
    for chain in sorted(chains, key=_started, reverse=True)[:MOST_CHAINS]:
        try:
            tail = read_tail(chain, chains[chain], signer.public_keys)
        except Unavailable:
            continue  # reported by the next start, or by `verify`
        if tail is None or tail.head.listed_bytes is None or tail.head.listed_hash is None:
            continue
        known = max(known, HeadsEnd(tail.head.listed_bytes, tail.head.listed_hash))
    return known


def _started(chain: str) -> str:
    """The start time in a chain's id, in a form that sorts."""
    return chain.rpartition(".")[2]
