"""Open one package on disk: its manifest, and the files that the manifest lists.

The package's directories stay open while it is used, so that the manifest and the files come from the same
directory, even if its name is replaced meanwhile.

A listed file is servable in two forms only. A shared blob is a link whose text is exactly
`<root>/shared-blobs/<md5>`, with the digest that the manifest names and one of the roots that the operator
configured; the blob is then opened below our own `shared-blobs`. A package file is a regular file in the
package's directory. Everything else is refused, including the digest under another root and a regular file in
place of a link.

Hard links. A blob may have other names: snapshots made with hard links are common, and a blob's content is
checked against its own name, whatever else links to it. A package file may not: no name states its content,
and a second name would be a link by other means, into another tenant's package for example. The engine makes
no hard links at all.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from gateway.model.errors import Reason, Unavailable
from gateway.resource.manifest import Storage
from gateway.resource.naming import SHARED_BLOBS
from gateway.resource.safe_open import (
    find_link_text,
    inspect_regular,
    open_regular,
    opened_cache_folder,
    opened_directory,
    opened_folder,
)
from gateway.resource.unservable import printable, unservable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.model.names import PackageId
    from gateway.resource.manifest import Artifact, Manifest


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An open package. It holds open descriptors; only `opened_package` makes one."""

    manifest: Manifest
    roots: tuple[str, ...]  # every path that a writer may have used for the cache root
    directory: int
    blobs: int | None

    def inspect(self, artifact: Artifact) -> os.stat_result | None:
        """The stat of a listed file; None when it does not exist, `Refusal` when it is not servable."""
        with self._whereabouts(artifact) as (name, below):
            if below is None:
                return None
            return inspect_regular(name, below=below, may_have_other_names=_is_blob(artifact))

    def open(self, artifact: Artifact) -> tuple[int, os.stat_result] | None:
        """Open a listed file, as `inspect` checks it. The caller must close the descriptor."""
        with self._whereabouts(artifact) as (name, below):
            if below is None:
                return None
            return open_regular(name, below=below, may_have_other_names=_is_blob(artifact))

    @contextmanager
    def _whereabouts(self, artifact: Artifact) -> Iterator[tuple[str, int | None]]:
        """The name of the regular file with the content, and the open directory that it must be in."""
        *folders, name = artifact.handle.split("/")
        with opened_folder(folders, below=self.directory) as folder:
            if folder is None or artifact.storage is Storage.PACKAGE_FILE:
                yield name, folder
                return
            text = find_link_text(name, below=folder)
            if text is None:
                yield name, None
                return
            if artifact.md5 is None or text not in self._link_texts(artifact.md5):
                raise unservable(f"{printable(name)}: a link that the engine would not have made")
            if self.blobs is None:
                why = (
                    f"{SHARED_BLOBS} does not exist, and a package links a blob in it: is its volume mounted?"
                )
                raise Unavailable("cache", why, Reason.CACHE_UNAVAILABLE)
            yield artifact.md5, self.blobs

    def _link_texts(self, md5: str) -> Iterator[str]:
        return (os.path.join(root, SHARED_BLOBS, md5) for root in self.roots)  # noqa: PTH118 -- texts, not paths


@contextmanager
def opened_package(
    package: PackageId,
    *,
    below: int | None,
    root: int,
    roots: tuple[str, ...],
    find_manifest: Callable[[int], Manifest | None],
) -> Iterator[Package | None]:
    """A package of the model whose directory is open as `below`.

    None when it does not exist or has no manifest.

    `find_manifest` is given the package's open directory. Raises `Refusal(UNSERVABLE)` when the package's
    directory is not what the engine writes, and what `find_manifest` raises.
    """
    with (
        opened_directory(package, below=below) as directory,
        opened_cache_folder(SHARED_BLOBS, below=root) as blobs,
    ):
        manifest = None if directory is None else find_manifest(directory)
        if directory is None or manifest is None:
            yield None
        else:
            yield Package(manifest=manifest, roots=roots, directory=directory, blobs=blobs)


def _is_blob(artifact: Artifact) -> bool:
    return artifact.storage is Storage.SHARED_BLOB
