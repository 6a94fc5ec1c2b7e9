"""Signed notes of what retention removed, in `retention.jsonl`: the evidence that nothing else is missing.

A note names each segment that was removed: its place in the chain, its records' numbers, the hash of its
content, where its chain stood at its end, and the last head up to there, as it was signed. With that,
`verify` goes on behind a removed segment as if it had read it: the next record has to link to it. A segment
that is missing without a note is missing.

The notes are linked line to line and signed with the key that signs heads. Notes cut off the end of the file
prove nothing any more, so the segments that they named count as missing.

Removing comes last: first the note is on the disk, then the record of it has its signed head.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.folder import FILE_MODE, segment_name
from gateway.audit.head import verify_signature
from gateway.audit.heads_evidence import verify_head
from gateway.audit.packed import DamagedSegmentError
from gateway.audit.reading import read_lines
from gateway.audit.record import (
    GENESIS,
    MAX_LINE_BYTES,
    SCHEMA_VERSION,
    encode_signed,
    hash_of,
    seal,
    split_hash,
    split_signature,
)
from gateway.audit.segment import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from gateway.audit.head import Signer
    from gateway.audit.heads_evidence import ListedChain
    from gateway.audit.record import HeadRecord

RETENTION_NAME = "retention.jsonl"
MOST_IN_A_NOTE = 200  # segments, of less than 2 kB each
MOST_PROBLEMS = 20


class Removed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One removed segment, and where its chain stood at its end."""

    chain: str
    segment: int
    first_seq: int
    last_seq: int
    last_time: str
    last_hash: str  # of its last record, which the next one links to
    bytes: int  # of its content
    sha256: str  # of its content
    trace: str  # of all heads of the chain up to here (`heads_evidence.next_trace`)
    head: msgspec.Raw  # the last head of the chain up to here, as it was written
    is_end: bool  # the chain had ended, and this was its last segment

    @property
    def name(self) -> str:
        """The segment's name."""
        return segment_name(self.chain, self.segment)


class Note(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="retention-note",
):
    """One line of the file. `overrun` names the consumers that still needed some of it."""

    schema: int
    prev: str
    time: str
    node: str
    signer: str
    why: str
    overrun: tuple[str, ...] = ()
    removed: tuple[Removed, ...]
    signature: str = ""
    hash: str = ""


_decoder = msgspec.json.Decoder(Note)


@dataclass
class Notes:
    """The notes of a folder that trusted keys signed, and what is wrong with the file."""

    segments: dict[str, dict[int, Removed]] = field(default_factory=dict)
    heads: dict[tuple[str, int], HeadRecord] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    last: str = GENESIS  # the hash of the last line

    def before(self, chain: str, number: int) -> Removed | None:
        """The last removed segment in front of this number up to which all of the chain was removed."""
        removed = self.segments.get(chain, {})
        last = 0
        while last + 1 < number and last + 1 in removed:
            last += 1
        return removed.get(last)

    def has_whole(self, chain: str, listed: ListedChain) -> bool:
        """Whether all of a chain was removed, and no listed head proves that there was more of it."""
        removed = self.segments.get(chain, {})
        last = self.before(chain, max(removed, default=0) + 1)
        if last is None or last.segment != max(removed) or not last.is_end:
            return False
        newest = listed.newest
        head = self.heads[chain, last.segment]
        if newest is None or newest.seq < head.seq:
            return True
        return newest.hash == head.hash and listed.trace.hex() == last.trace


def read_notes(path: Path | None, keys: Mapping[str, Ed25519PublicKey]) -> Notes:
    """Read and check the notes. Raises `Unavailable` when the file is there and cannot be read."""
    notes = Notes()
    if path is None:
        return notes
    number = 0
    try:
        for number, line in read_lines(path):
            if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
                break  # it is being written, or was when its process was killed: nothing was removed yet
            _add(notes, line, keys, f"{RETENTION_NAME}, line {number}")
    except DamagedSegmentError as error:
        _complain(notes, f"{RETENTION_NAME}, line {number + 1}: {error}")
    return notes


def _add(notes: Notes, line: bytes, keys: Mapping[str, Ed25519PublicKey], where: str) -> None:
    try:
        note, digest = _verify(line, keys)
        heads = {(one.chain, one.segment): verify_head(bytes(one.head) + b"\n", keys) for one in note.removed}
    except ValueError as error:
        _complain(notes, f"{where}: {error}")
        return
    if note.prev != notes.last:
        _complain(notes, f"{where}: lines are missing in front of it, or were changed")
    notes.last = digest
    for one in note.removed:
        head = heads[one.chain, one.segment]
        if head.chain != one.chain or not head.seq <= one.last_seq:
            _complain(notes, f"{where}: the head of {one.name} is another chain's")
            continue
        notes.segments.setdefault(one.chain, {})[one.segment] = one
        notes.heads[one.chain, one.segment] = head


def _verify(line: bytes, keys: Mapping[str, Ed25519PublicKey]) -> tuple[Note, str]:
    covered, claimed_hash = split_hash(line[:-1])
    if claimed_hash != hash_of(covered):
        raise ValueError("its bytes do not have the hash it carries")
    note = _decoder.decode(line)
    key = keys.get(note.signer)
    if key is None:
        raise ValueError(f"signed by {note.signer}, which is not a trusted key")
    statement, signature = split_signature(covered)
    verify_signature(key, signature, statement)
    return note, claimed_hash


def _complain(notes: Notes, problem: str) -> None:
    if len(notes.problems) < MOST_PROBLEMS:
        notes.problems.append(problem)


def append_note(
    folder: Path,
    signer: Signer,
    *,
    prev: str,
    time: str,
    node: str,
    why: str,
    overrun: tuple[str, ...],
    removed: Sequence[Removed],
) -> str:
    """Write a note, and have it on the disk; its hash. One process at a time may. Raises `OSError`."""
    note = Note(
        schema=SCHEMA_VERSION,
        prev=prev,
        time=time,
        node=node,
        signer=signer.fingerprint,
        why=why,
        overrun=overrun,
        removed=tuple(removed),
    )
    line, digest = seal(encode_signed(note, signer.sign))
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder / RETENTION_NAME, flags, FILE_MODE)
    try:
        size = _cut_incomplete(descriptor)
        try:
            write_whole(descriptor, line)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    return digest


def _cut_incomplete(descriptor: int) -> int:
    """Cut off a line that a killed process left incomplete; the size of the rest."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - 2 * MAX_LINE_BYTES)
    whole = start + os.pread(descriptor, size - start, start).rfind(b"\n") + 1
    if whole != size:
        os.ftruncate(descriptor, whole)
    return whole
