"""Read the entries of an engine's auto-resolution cache, and remove those of one tenant when ordered to.

Files are read by descriptor, without following links, and in bounded number: anyone who can write there may
write anything. An entry that does not parse is reported as such, because that we cannot parse it does not
prove that no engine would.

The gateway itself never removes an entry: it never writes below the cache root (I9). Removal is for an
operator who names the engine's own volume, and it removes only entries that were just read as that tenant's.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from gateway.engine.resolutions import (
    MAX_RESOLUTION_BYTES,
    RESOLUTIONS,
    is_resolution_name,
    parse_resolution,
)
from gateway.model.errors import Conflict, Refusal, Unavailable
from gateway.resource.safe_open import names_in, open_regular, opened_directory, opened_root
from gateway.resource.unservable import finding_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import tzinfo
    from pathlib import Path

    from gateway.engine.resolutions import Resolution

MAX_ENTRIES = 20_000  # some 20 MB to read; an engine writes one for each key, model and machine


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of that cache: its content, or why it could not be read."""

    name: str
    resolution: Resolution | None
    fault: str | None = None


class Entries(msgspec.Struct, frozen=True, kw_only=True):
    """The entries that were read; `left_out` more were not."""

    entries: tuple[Entry, ...]
    left_out: int


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a removal."""

    removed: tuple[str, ...]
    failed: tuple[str, ...]


def local_zone(now: float) -> tzinfo | None:
    """This machine's zone. The engine dates entries by its machine's local time, without a zone."""
    return datetime.fromtimestamp(now, UTC).astimezone().tzinfo


def read_entries(root: Path, zone: tzinfo | None) -> Entries:
    """The entries below an engine's folder, with times in this zone."""
    try:
        with (
            opened_root(root) as root_descriptor,
            opened_directory(RESOLUTIONS, below=root_descriptor, is_listable=True) as directory,
        ):
            if directory is None:
                return Entries(entries=(), left_out=0)
            names = sorted(filter(is_resolution_name, names_in(directory)))
            entries = tuple(_read(name, directory, zone) for name in names[:MAX_ENTRIES])
            return Entries(entries=entries, left_out=max(0, len(names) - MAX_ENTRIES))
    except Refusal as error:
        raise Conflict(f"{root}: {finding_of(error)}; an engine does not leave that there") from error


def remove_entries(
    root: Path, names: Iterable[str], zone: tzinfo | None, is_theirs: Callable[[Resolution], bool]
) -> Removal:
    """Read these entries again, and remove those that are still theirs."""
    removed: list[str] = []
    failed: list[str] = []
    with (
        opened_root(root) as root_descriptor,
        opened_directory(RESOLUTIONS, below=root_descriptor, is_listable=True) as directory,
    ):
        if directory is None:
            return Removal(removed=(), failed=())
        for name in names:
            entry = _read(name, directory, zone)
            if entry.resolution is None or not is_theirs(entry.resolution):
                continue
            try:
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                continue
            except OSError:
                failed.append(name)
            else:
                removed.append(name)
    return Removal(removed=tuple(removed), failed=tuple(failed))


def verify_removable(root: Path) -> None:
    """Raises `Conflict` where nothing could be removed: no such folder, or a read-only mount."""
    try:
        flags = os.statvfs(root / RESOLUTIONS).f_flag
    except OSError as error:
        raise Conflict(f"{root / RESOLUTIONS} cannot be looked at ({error.strerror}); name the folder that "
                       "the engine has as its INFERENCE_HOME") from error  # fmt: skip
    if flags & os.ST_RDONLY:
        raise Conflict(
            f"{root} is mounted read-only here, as it should be for a gateway (I9); run this where the "
            "engine's own volume is mounted for writing"
        )


def _read(name: str, directory: int, zone: tzinfo | None) -> Entry:
    try:
        found = open_regular(name, below=directory, may_have_other_names=False)
        if found is None:
            return Entry(name=name, resolution=None, fault="it went away while we looked")
        descriptor, _ = found
        with os.fdopen(descriptor, "rb") as file:
            raw = file.read(MAX_RESOLUTION_BYTES + 1)
        return Entry(name=name, resolution=parse_resolution(raw, zone or UTC))
    except Refusal as error:
        # The full name is a hash of a request, its key included: it is not repeated (I8).
        return Entry(name=name, resolution=None, fault=finding_of(error).removeprefix(f"{name}: "))
    except Unavailable as error:
        return Entry(name=name, resolution=None, fault=error.why.removeprefix(f"{name}: "))
    except OSError as error:
        return Entry(name=name, resolution=None, fault=error.strerror)
