"""The manifest (`model_config.json`): which files a package has, and by what digest.

The engine writes it last, once a package has loaded: a package without one is not finished. It is not signed
and names no tenant, so it can only narrow what is served: a file that it does not list is not a file of the
package, and a package is not served at all when its manifest names another model, or when the engine itself
would call the manifest corrupted.

Any version is accepted, and none at all. Version 4 is what the engine writes today, and the only one with
every field. Older ones lack some fields, but name their files in the same way. A missing field is derived: a
file with a digest is a shared blob, one without is the package's own file, and a manifest that names no files
has none. Two of the engine's checks are not made here, because nothing that is served depends on them: that
all fields are present, and that the files are sorted.

No content is checked against a digest here; the pins do that (`gateway/pinning`).

**Limits.** Anyone who can write to the volume can write any manifest, and parsing one delays everybody else:
on the event loop for the whole parse, in a thread for as long as one call into C holds the interpreter lock.
All limits are stated here:

* `MAX_MANIFEST_BYTES`, 4 MiB: twenty thousand files as the engine writes them, 175 bytes each. The decoder
  reads that in one call of 4 ms.
* `MAX_OBJECTS` and `MAX_LISTS`, 32,768 each, and `MAX_MEMBERS`, 262,144: more than 4 MiB of what the engine
  writes can hold (its shortest file is 150 bytes, and one object with six members). They are counted by their
  brackets and commas before anything is decoded. Without these limits 200,000 empty files or a million empty
  lists would hold the decoder for 10 ms, on a fast machine.
* `MAX_FILES`, 25,000: each costs 320 bytes and its name in memory, 12 MiB for a manifest at most.
* Nesting: JSON nested deeper than the interpreter's own limit is refused by the decoder.
* A handle has at most 512 bytes and 16 segments (`model/names.py`); a longer one excludes only its own file.
* `SLICE_FILES`, 500: how many files are processed between two pauses, one to five milliseconds. In a thread
  the pause is a sleep, so that other threads get the interpreter lock.

`manifests.py` decides where a manifest is read, and when it is read again.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from gateway.model.errors import BadNameError, NameTooLongError
from gateway.model.hidden_fields import shown
from gateway.model.names import parse_file_handle, parse_md5, parse_model_id
from gateway.resource.slices import in_slices, no_pause, sorted_in_slices
from gateway.resource.unservable import unservable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.model.names import FileHandle, Md5, ModelId

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_OBJECTS = MAX_LISTS = 32_768
MAX_MEMBERS = 262_144
MAX_FILES = 25_000
MAX_LINKS_OF_A_BLOB = (
    16  # files of one package that are tried for a digest: two are rare, and a check costs 10 us
)
SLICE_FILES = 500

MANIFEST_HELD_BYTES = 1_000  # what a manifest without files costs in memory
FILE_HELD_BYTES = 320  # of each file: the artifact, its digest, its entries in two tables; its name is added


class Storage(StrEnum):
    """Where a file's content is; the values are the manifest's own."""

    SHARED_BLOB = "shared_blob"
    PACKAGE_FILE = "package_file"


class Artifact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One file that a manifest lists. `md5` is set for every shared blob and for no unhashed file.

    Excluded from garbage collection (`gc=False`): they hold no cycles, and a collection over tens of
    thousands of them would stop every thread.
    """

    handle: FileHandle
    md5: Md5 | None
    storage: Storage

    @property
    def unhashed(self) -> bool:
        """Whether the provider gave no digest for it."""
        return self.md5 is None

    @property
    def blob(self) -> Md5 | None:
        """The digest of the blob that holds it; None for a package file.

        A package file that comes with a digest still counts as no blob: otherwise a wrong digest would put
        the correct blob of all other tenants in doubt.
        """
        return self.md5 if self.storage is Storage.SHARED_BLOB else None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The parsed manifest: the model that the package belongs to, and its files sorted by handle.

    A file is found by its handle or its blob without a search.
    """

    version: int | None
    canonical_model_id: ModelId | None
    cache_model_id: ModelId | None  # the owner of the directory; the manifest calls it `model_id`
    artifacts: tuple[Artifact, ...]
    too_long: int = 0  # files whose handle exceeds the bounds of `model/names.py`: only they are left out
    by_handle: Mapping[FileHandle, Artifact]
    by_blob: Mapping[Md5, tuple[Artifact, ...]]

    def __repr__(self) -> str:
        return shown(self, hidden=("artifacts", "by_handle", "by_blob"))

    @property
    def held_bytes(self) -> int:
        """How many bytes it is charged in a cache."""
        names = sum(len(handle) for handle in self.by_handle)
        return MANIFEST_HELD_BYTES + FILE_HELD_BYTES * len(self.artifacts) + names

    def is_of(self, model: ModelId) -> bool:
        """Whether nothing in it contradicts that the package belongs to this model."""
        return self.canonical_model_id in {None, model} and self.cache_model_id in {None, model}

    def find(self, handle: FileHandle) -> Artifact | None:
        """The listed file with this handle."""
        return self.by_handle.get(handle)

    def linking(self, md5: Md5) -> tuple[Artifact, ...]:
        """The first listed files that are this blob, sorted by handle, at most `MAX_LINKS_OF_A_BLOB`."""
        return self.by_blob.get(md5, ())


class _RawArtifact(msgspec.Struct, gc=False):
    file_handle: str
    md5_hash: str | None = None
    unhashed: bool | None = None
    storage: Storage | None = None


class _RawManifest(msgspec.Struct):
    offline_manifest_version: int | None = None
    canonical_model_id: str | None = None
    model_id: str | None = None
    package_artifacts: list[_RawArtifact] | None = None


_COUNTED = ((b"{", MAX_OBJECTS, "objects"), (b"[", MAX_LISTS, "lists"), (b",", MAX_MEMBERS, "members"))
_DECODER = msgspec.json.Decoder(_RawManifest)


def parse_manifest(raw: bytes, pause: Callable[[], None] = no_pause) -> Manifest:
    """Parse a manifest. Raises `Refusal(UNSERVABLE)` for bytes that are none.

    `pause` is called after each slice of the work.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise unservable(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes")
    for mark, limit, counted in _COUNTED:
        if raw.count(mark) > limit:
            raise unservable(f"the manifest holds more than {limit} {counted}")
        pause()
    try:
        claimed = _DECODER.decode(raw)
        listed = claimed.package_artifacts or []
        if len(listed) > MAX_FILES:
            raise unservable(f"the manifest lists more than {MAX_FILES} files")
        pause()
        found = [_find_artifact(item) for item in in_slices(listed, SLICE_FILES, pause)]
        artifacts = [artifact for artifact in found if artifact is not None]
        _verify_distinct(artifacts, pause)
        return make_manifest(
            artifacts,
            version=claimed.offline_manifest_version,
            canonical_model_id=_parse_optional_id(claimed.canonical_model_id),
            cache_model_id=_parse_optional_id(claimed.model_id),
            too_long=len(found) - len(artifacts),
            pause=pause,
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unservable("the manifest is not JSON of the expected shape") from error
    except BadNameError as error:
        raise unservable(f"the manifest holds a bad name: {error}") from error


def make_manifest(
    artifacts: Sequence[Artifact],
    *,
    version: int | None = None,
    canonical_model_id: ModelId | None = None,
    cache_model_id: ModelId | None = None,
    too_long: int = 0,
    pause: Callable[[], None] = no_pause,
) -> Manifest:
    """A manifest of these files, whose handles are distinct."""
    by_handle: dict[FileHandle, Artifact] = {}
    by_blob: dict[Md5, tuple[Artifact, ...]] = {}
    ordered = sorted_in_slices(artifacts, key=handle_of, pause=pause)
    for artifact in in_slices(ordered, SLICE_FILES, pause):
        by_handle[artifact.handle] = artifact
        if artifact.blob is not None and len(linking := by_blob.get(artifact.blob, ())) < MAX_LINKS_OF_A_BLOB:
            by_blob[artifact.blob] = (*linking, artifact)
    return Manifest(
        version=version,
        canonical_model_id=canonical_model_id,
        cache_model_id=cache_model_id,
        artifacts=tuple(by_handle.values()),
        too_long=too_long,
        by_handle=by_handle,
        by_blob=by_blob,
    )


def _parse_optional_id(claimed: str | None) -> ModelId | None:
    return None if claimed is None else parse_model_id(claimed)


def _find_artifact(claimed: _RawArtifact) -> Artifact | None:
    """The listed file; None if its handle is too long to be served, which excludes no other file."""
    try:
        return _parse_artifact(claimed)
    except NameTooLongError:
        return None


def _parse_artifact(claimed: _RawArtifact) -> Artifact:
    handle = parse_file_handle(claimed.file_handle)
    if any(_is_lock_name(segment) for segment in handle.split("/")):
        raise BadNameError("not a file handle: a lock file")
    md5 = None if claimed.md5_hash is None else parse_md5(claimed.md5_hash)
    if claimed.unhashed not in {None, md5 is None}:
        raise BadNameError("a file is hashed or unhashed, not both")
    storage = claimed.storage or (Storage.PACKAGE_FILE if md5 is None else Storage.SHARED_BLOB)
    if md5 is None and storage is not Storage.PACKAGE_FILE:
        raise BadNameError("a file without a digest cannot be a shared blob")
    return Artifact(handle=handle, md5=md5, storage=storage)


def _is_lock_name(segment: str) -> bool:
    # The engine's test ignores case and counts `.lock` itself.
    return segment.startswith(".") and segment.lower().endswith(".lock")


def handle_of(artifact: Artifact) -> FileHandle:
    """The sort key of files."""
    return artifact.handle


def _spread(artifact: Artifact) -> str:
    """The sort key that makes handles that could collide neighbours.

    The slash is replaced by a character that sorts before every character of a name: whatever is below a
    folder then directly follows it.
    """
    return artifact.handle.lower().replace("/", "\0")


def _verify_distinct(artifacts: list[Artifact], pause: Callable[[], None]) -> None:
    """Refuse two handles that some file system would make one, or that need one name as file and directory.

    In this order, between any two handles that collide there are two neighbours that collide, or the two are
    neighbours themselves. So each is compared with the next one only, and a hostile manifest costs no more
    than a regular one.
    """
    ordered = sorted_in_slices(artifacts, key=_spread, pause=pause)
    for one, other in pairwise(in_slices(ordered, SLICE_FILES, pause)):
        if _collide(one.handle, other.handle):
            raise BadNameError("two file handles collide")


def _collide(one: str, other: str) -> bool:
    *folders, name = one.split("/")
    *other_folders, other_name = other.split("/")
    for folder, other_folder in zip(folders, other_folders, strict=False):
        if folder.lower() != other_folder.lower():
            return False
        if folder != other_folder:
            return True
    depth, other_depth = len(folders), len(other_folders)
    if depth == other_depth:
        return name.lower() == other_name.lower()
    # The name of one is a folder of the other, ignoring case.
    if depth < other_depth:
        return name.lower() == other_folders[depth].lower()
    return other_name.lower() == folders[other_depth].lower()
