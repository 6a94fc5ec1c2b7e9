"""Merkle trees over records (RFC 6962, 2.1), by which one record is proven without the others.

The entries of a tree are the hashes of the records between two heads, in order: 32 bytes each. A leaf is
SHA-256(0x00 || entry), an inner node SHA-256(0x01 || left || right). So an inner node cannot be passed off
as a leaf: no entry hashes to it. The root and the number of entries are in the signed head.

The path of an entry is the other child at each level, from the leaf upward: ten hashes for a thousand
records. It says nothing about the records beside it but their hashes.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LEAF, _INNER = b"\x00", b"\x01"
EMPTY_ROOT = sha256(b"").digest()
"""The root of a tree without entries."""


def root_of(entries: Iterable[bytes]) -> bytes:
    """The root of the tree over these entries."""
    level = _leaves(entries)
    while len(level) > 1:
        level = _above(level)
    return level[0] if level else EMPTY_ROOT


def path_of(entries: Sequence[bytes], index: int) -> list[bytes]:
    """The path of the entry at this index, from the leaf upward."""
    level, path = _leaves(entries), []
    while len(level) > 1:
        beside = index ^ 1
        if beside < len(level):  # the last of an odd number goes up as it is
            path.append(level[beside])
        level, index = _above(level), index >> 1
    return path


def root_by(entry: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root of a tree of this size that has this entry at this index, if the path is right.

    Raises `ValueError` when the path has not as many nodes as such a place has.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} has no place {index}")
    node = sha256(_LEAF + entry).digest()
    rest = iter(path)
    while size > 1:
        if index ^ 1 < size:
            beside = next(rest, None)
            if beside is None:
                raise ValueError("the path is too short for this place in the tree")
            left, right = (beside, node) if index & 1 else (node, beside)
            node = sha256(_INNER + left + right).digest()
        index, size = index >> 1, (size + 1) >> 1
    if next(rest, None) is not None:
        raise ValueError("the path is too long for this place in the tree")
    return node


def _leaves(entries: Iterable[bytes]) -> list[bytes]:
    hashed, prefix = sha256, _LEAF
    return [hashed(prefix + entry).digest() for entry in entries]


def _above(level: Sequence[bytes]) -> list[bytes]:
    """The next level: pairs, and the last of an odd number as it is.

    This is the tree of RFC 6962, which splits at the largest power of two below the size.
    """
    hashed, prefix = sha256, _INNER
    above = [
        hashed(prefix + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)
    ]
    if len(level) & 1:
        above.append(level[-1])
    return above
