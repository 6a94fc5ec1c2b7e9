"""Checks by `stat` whether paths of the cache are still what they were when something was found there.

A check is a path, whether a link at its end is followed, and the identity to find (device, inode, size and
both times). Nothing is opened by such a path, so a malicious link can only fail to match.

Answers that are made in one event loop iteration share what was seen (`SeenOnDisk`): the files of a package
have its folder and its manifest in common. What was seen in one iteration is never used in another.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gateway.model.pins import identity_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model.pins import StatIdentity

    PathCheck = tuple[str, bool, StatIdentity]

RELIABLE_AFTER_SECONDS = 2.0  # hundreds of ticks of a file system's clock; FAT, the coarsest, has 2 s
CHECK_BYTES = 350  # of one check beside its path
_CHANGE_TIME = 4  # in an identity


class SeenOnDisk:
    """What was seen at paths, during one event loop iteration."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[tuple[str, bool], StatIdentity | None] = {}

    def find(self, path: str) -> StatIdentity | None:
        """What is at this path, links not followed; None when nothing can be seen there."""
        place = path, False
        if place not in self._seen:
            self._seen[place] = find_identity(path, follows=False)
        return self._seen[place]

    def agree(self, checks: Iterable[PathCheck]) -> bool:
        """Whether each path is what it was."""
        seen = self._seen
        for path, follows, identity in checks:
            place = path, follows
            found = seen.get(place, seen)  # `seen` itself: not looked at yet
            if found is seen:
                found = seen[place] = find_identity(path, follows=follows)
            if found != identity:
                return False
        return True


def find_identity(path: str, *, follows: bool) -> StatIdentity | None:
    """What is at this path now; None when nothing can be seen there."""
    try:
        now = os.stat(path) if follows else os.lstat(path)  # noqa: PTH116 -- a Path would cost as much again
    except OSError:
        return None
    return identity_of(now)


def are_reliable(checks: Iterable[PathCheck], now: float) -> bool:
    """Whether any later change would show: within one tick of the disk's clock it could leave the same times.

    Only the change time counts: every change updates it and nobody can set it. An mtime may be any date.
    """
    latest = (now - RELIABLE_AFTER_SECONDS) * 1e9
    return all(identity[_CHANGE_TIME] < latest for _, _, identity in checks)
