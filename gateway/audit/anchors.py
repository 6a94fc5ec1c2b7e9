"""Anchors: time stamps (RFC 3161) of the heads, made by an authority that is not us.

An authority signs that it saw a digest at a time. What is stamped is the hash of a line of `heads.jsonl`,
which covers all lines before it. So a holder of our signing key cannot write another log afterwards that
has these heads, or say that another one was there before: the stamp is of the lines that were there.

`heads.stamps` in the audit folder holds the stamps, one JSON line each: where the line of `heads.jsonl` ends,
its hash, the authority, and its answer. The file needs no protection: a stamp that is changed does not
verify, and a copy of it kept elsewhere shows that one was removed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.folder import FILE_MODE, HEADS_NAME
from gateway.audit.heads_file import NO_LINE, HeadsEnd, find_last_line, has_line_ending_at
from gateway.audit.segment import write_whole
from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

ANCHORS_NAME = "heads.stamps"
MAX_STAMP_BYTES = 64 << 10  # with the certificates of the authority, some 5 KiB
_MAX_FILE_BYTES = 64 << 20  # a stamp an hour for a year


class Anchor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of the file. Nothing about it is verified."""

    listed_bytes: int
    listed_hash: str
    authority: str
    stamp: bytes  # base64 in JSON: the authority's answer


class CheckedAnchor(msgspec.Struct, frozen=True, kw_only=True):
    """One stamp, verified or not: `why` is None if it is of the heads that are there."""

    listed_bytes: int
    authority: str
    stamped_at: datetime | None = None
    why: str | None = None


def find_end(folder: Path) -> HeadsEnd:
    """The end of the last head that is listed. Raises `Misconfigured` when there is none."""
    path = folder / HEADS_NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            end = find_last_line(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({error.strerror})") from error
    if end == NO_LINE:
        raise Misconfigured(str(path), "has no head: there is nothing to stamp")
    return end


def stamped_text(end: HeadsEnd) -> bytes:
    """What the authority stamps: the hash of the line, as it is written there."""
    return end.hash.encode()


def append_anchor(folder: Path, anchor: Anchor) -> None:
    """Add a stamp to the file, synced. Raises `OSError`."""
    descriptor = os.open(
        folder / ANCHORS_NAME,
        os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
        FILE_MODE,
    )
    try:
        write_whole(descriptor, msgspec.json.encode(anchor) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_anchors(
    folder: Path, verify_stamp: Callable[[bytes, bytes], datetime]
) -> tuple[CheckedAnchor, ...]:
    """Check every stamp of a folder against its heads. `verify_stamp` raises `ValueError` for a bad one.

    Raises `Misconfigured` when there is no stamp, or a file cannot be read.
    """
    path = folder / ANCHORS_NAME
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES)
        descriptor = os.open(folder / HEADS_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Misconfigured(str(error.filename), f"cannot be read ({error.strerror})") from error
    try:
        return tuple(_checked(line, descriptor, verify_stamp) for line in raw.splitlines())
    finally:
        os.close(descriptor)


def _checked(line: bytes, descriptor: int, verify_stamp: Callable[[bytes, bytes], datetime]) -> CheckedAnchor:
    try:
        anchor = msgspec.json.decode(line, type=Anchor)
    except ValueError as error:
        return CheckedAnchor(listed_bytes=0, authority="", why=f"not a stamp: {error}")
    end = HeadsEnd(anchor.listed_bytes, anchor.listed_hash)
    stamped_at, why = None, None
    try:
        stamped_at = verify_stamp(anchor.stamp, stamped_text(end))
    except ValueError as error:
        why = f"the stamp does not verify: {error}"
    if why is None and not has_line_ending_at(descriptor, end):
        why = f"{HEADS_NAME} has no longer the line that was stamped: it was written anew since"
    return CheckedAnchor(
        listed_bytes=anchor.listed_bytes, authority=anchor.authority, stamped_at=stamped_at, why=why
    )
