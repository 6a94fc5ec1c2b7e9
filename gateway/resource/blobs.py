"""List and open the blobs below `shared-blobs` by name, for hashing ahead of time and for reports.

No request is served from here: a blob is served only through a package that links it (I2). The blobs listed
here are hashed and counted whatever tenant they belong to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.errors import BadNameError, Refusal
from gateway.model.names import parse_md5
from gateway.model.pins import identity_of
from gateway.resource.naming import SHARED_BLOBS
from gateway.resource.safe_open import (
    each_name_in,
    inspect_regular,
    open_regular,
    opened_cache_folder,
    opened_root,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.model.names import Md5
    from gateway.model.pins import StatIdentity


def _pass_over(_md5: Md5, _refusal: Refusal) -> None:
    """The default for callers that do not ask for refused blobs."""


def blobs_below(
    root: Path, on_refused: Callable[[Md5, Refusal], None] = _pass_over
) -> Iterator[tuple[Md5, StatIdentity]]:
    """The blobs that exist, in no order, each with its current stat identity.

    Locks and unfinished downloads do not have a blob's name and are skipped. A name of that form that is no
    regular file is left out and reported to `on_refused`.
    """
    with (
        opened_root(root) as top,
        opened_cache_folder(SHARED_BLOBS, below=top, is_listable=True) as blobs,
    ):
        if blobs is None:
            return
        for name in each_name_in(blobs):
            try:
                md5 = parse_md5(name)
            except BadNameError:
                continue
            try:
                found = inspect_regular(md5, below=blobs, may_have_other_names=True)
            except Refusal as refusal:
                on_refused(md5, refusal)
                continue
            if found is not None:
                yield md5, identity_of(found)


def open_blob(root: Path, md5: Md5) -> int | None:
    """Open a blob; None when it does not exist. The caller must close the descriptor.

    Raises `Refusal(UNSERVABLE)` when it is no regular file, or may not be read.
    """
    with opened_root(root) as top, opened_cache_folder(SHARED_BLOBS, below=top) as blobs:
        opened = None if blobs is None else open_regular(md5, below=blobs, may_have_other_names=True)
        return None if opened is None else opened[0]
