"""Compare a copy of `heads.jsonl` with an earlier one: the later must begin with all of the earlier.

Whoever holds the signing key can write another log that verifies. They cannot change a copy that is kept
elsewhere: a log that was written anew differs from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.audit.folder import HEADS_NAME
from gateway.audit.heads_evidence import verify_listed
from gateway.audit.record import MAX_LINE_BYTES
from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class HeadsComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an earlier copy. `why` is None if the later one begins with all of it."""

    earlier: int  # lines
    later: int
    why: str | None = None
    line: int | None = None  # the first line that differs

    @property
    def is_continued(self) -> bool:
        """Whether nothing of the earlier copy was changed or is missing."""
        return self.why is None


def compare_heads(
    earlier: Path, later: Path, keys: Mapping[str, Ed25519PublicKey] | None = None
) -> HeadsComparison:
    """Compare two copies, in constant memory. A folder stands for the file in it.

    With keys, each line of the earlier copy is verified as well: a copy that was never a copy of this log's
    heads is not a beginning of them. Raises `Misconfigured` when a file cannot be read.
    """
    earlier, later = _file(earlier), _file(later)
    after = _lines(later)
    count = 0
    for line in _lines(earlier):
        if not line.endswith(b"\n"):
            break  # half a line: it was being written when it was copied
        count += 1
        why = _difference(line, next(after, b""), keys)
        if why is not None:
            return HeadsComparison(earlier=count, later=count, why=f"line {count} {why}", line=count)
    return HeadsComparison(earlier=count, later=count + sum(1 for _ in after))


def _difference(line: bytes, following: bytes, keys: Mapping[str, Ed25519PublicKey] | None) -> str | None:
    """What is wrong with a line, where the later copy has the other one."""
    if not following:
        return "of the earlier copy is not there any more: the heads were cut, or begun anew"
    if line != following:
        return "is another one than in the earlier copy: heads were written anew"
    try:
        if keys is not None:
            verify_listed(line, keys)
    except ValueError as error:
        return f"of both copies does not verify: {error}"
    return None


def _file(path: Path) -> Path:
    return path / HEADS_NAME if path.is_dir() else path


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                yield line
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({error.strerror})") from error
