"""Opening what lies below the cache root without following a link that we did not compute (I9).

Who can write into the cache can put a link, a FIFO or a device where a directory or a file should
be, and can do so between any two of our steps. Therefore no path is ever given to the kernel below
the root: each component is opened by its own name, relative to the directory opened before, and
never through a link. What was checked is the open descriptor, so nothing can be swapped after the
check. The root itself is the operator's word and may be reached through links.

The one link that is read is a package's link to a blob. It is read as text, compared with the texts
that the engine could have written, and then forgotten: the blob is opened by its digest below our
own `shared-blobs` (`package.py`).

Nothing here decides who may read. Descriptors are closed by the `with` that opened them; the one
that leaves is returned by `open_regular`, and whoever receives it closes it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from gateway.model.errors import Reason, Unavailable
from gateway.resource.unservable import printable, unservable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# O_PATH: a handle to start from, which needs no right to list the directory and reads nothing.
_PASS_THROUGH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LISTABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO that takes the file's place after the look at it must not hang the event loop.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_NOT_AS_LEFT = {
    errno.ELOOP: "a link",
    errno.ENOTDIR: "a link or a file where a directory belongs",
    errno.ENXIO: "a socket or a device",
    errno.EACCES: "not readable by the gateway's user",
    errno.EPERM: "not readable by the gateway's user",
    errno.ENAMETOOLONG: "a name that no file can have",
    errno.EINVAL: "a file where a link belongs",
}

_NO_FOLDER = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "is a file or a link, and no directory",
    errno.ELOOP: "is a link that leads to itself, or a link where none belongs",
    errno.EACCES: "is not readable by the gateway's user",
    errno.EPERM: "is not readable by the gateway's user",
    errno.ESTALE: "is gone from the server that it is mounted from (ESTALE)",
    errno.EIO: "cannot be read from its disk (EIO)",
}


@contextmanager
def opened_root(root: Path) -> Iterator[int]:
    """The cache root. The only place where links are followed.

    Raises `Unavailable` when it is not there or is no directory that we may enter: then nobody can say what
    is in the cache, and that is no answer about any one thing in it.
    """
    try:
        descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        _raise_no_cache(error, f"the cache root {printable(str(root))}")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_cache_folder(name: str, *, below: int, is_listable: bool = False) -> Iterator[int | None]:
    """One of the engine's own folders in the root; None when it is not there.

    Raises `Unavailable` for a link or a file in its place, and where we may not enter it: as for the root.
    """
    flags = _LISTABLE if is_listable else _PASS_THROUGH
    descriptor = None
    try:
        descriptor = os.open(name, flags, dir_fd=below)
    except FileNotFoundError:
        pass
    except OSError as error:
        _raise_no_cache(error, name)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def opened_directory(name: str, *, below: int | None, is_listable: bool = False) -> Iterator[int | None]:
    """A directory by its own name; None when it, or what it would be below, is not there."""
    flags = _LISTABLE if is_listable else _PASS_THROUGH
    descriptor = None if below is None else _find_directory(name, flags, below=below)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def opened_folder(folders: Sequence[str], *, below: int) -> Iterator[int | None]:
    """The innermost of nested directories; `below` itself when there are none, None when one is not there.

    At most one of them is open besides `below`: how deep a manifest nests its files must not decide
    how many descriptors we need.
    """
    current: int | None = below
    try:
        for folder in folders:
            outer = current
            current = None if outer is None else _find_directory(folder, _PASS_THROUGH, below=outer)
            if outer is not None and outer != below:
                os.close(outer)
        yield current
    finally:
        if current is not None and current != below:
            os.close(current)


def _find_directory(name: str, flags: int, *, below: int) -> int | None:
    try:
        return os.open(name, flags, dir_fd=below)
    except FileNotFoundError:
        return None
    except OSError as error:
        _raise_for(error, name)


def names_in(directory: int) -> list[str]:
    """The names in a directory that was opened listable, in no order."""
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []  # removed while we had it open
    except OSError as error:
        _raise_for(error, "a directory's list of names")


def each_name_in(directory: int) -> Iterator[str]:
    """The same one by one, for a directory that may hold more names than one wants in memory."""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.name
    except FileNotFoundError:
        return
    except OSError as error:
        _raise_for(error, "a directory's list of names")


def find_link_text(name: str, *, below: int) -> str | None:
    """The text of a link, which nobody follows; None when there is nothing of that name."""
    try:
        return os.readlink(name, dir_fd=below)
    except FileNotFoundError:
        return None
    except OSError as error:
        _raise_for(error, name)


def inspect_regular(name: str, *, below: int, may_have_other_names: bool) -> os.stat_result | None:
    """The stat of a regular file, without opening it; None when there is nothing of that name."""
    try:
        found = os.stat(name, dir_fd=below, follow_symlinks=False)
        device = os.fstat(below).st_dev
    except FileNotFoundError:
        return None
    except OSError as error:
        _raise_for(error, name)
    _verify_regular(found, name, device, may_have_other_names=may_have_other_names)
    return found


def open_regular(name: str, *, below: int, may_have_other_names: bool) -> tuple[int, os.stat_result] | None:
    """Open a regular file, and its stat after opening; None when there is nothing of that name.

    It is looked at before it is opened, because opening a device or a FIFO can do something, and
    again when it is open, because only that look is proof.
    """
    looked_at = inspect_regular(name, below=below, may_have_other_names=may_have_other_names)
    if looked_at is None:
        return None
    try:
        descriptor = os.open(name, _FILE, dir_fd=below)
    except FileNotFoundError:
        return None
    except OSError as error:
        _raise_for(error, name)
    try:
        found = os.fstat(descriptor)
        _verify_regular(found, name, looked_at.st_dev, may_have_other_names=may_have_other_names)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found


def load_regular(name: str, *, below: int, max_bytes: int, what: str) -> bytes | None:
    """A document that is never served, whole; None when it is not there.

    The engine publishes by renaming, so an open one never changes. One that does gives half a document,
    which does not parse. Raises `Refusal(UNSERVABLE)` for one that is too large.
    """
    opened = open_regular(name, below=below, may_have_other_names=True)
    if opened is None:
        return None
    descriptor, found = opened
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if found.st_size > max_bytes:
            raise unservable(f"{what} is larger than {max_bytes} bytes")
        try:
            return file.read(found.st_size)
        except OSError as error:
            raise_unavailable(error, what)


def _verify_regular(found: os.stat_result, name: str, device: int, *, may_have_other_names: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise unservable(f"{printable(name)}: not a regular file")
    if found.st_dev != device:
        # A file mounted over the engine's own: the mount was not made by the engine either.
        raise unservable(f"{printable(name)}: on another device than its directory")
    if found.st_nlink > 1 and not may_have_other_names:
        raise unservable(f"{printable(name)}: a hard link")


def _raise_for(error: OSError, name: str) -> NoReturn:
    """Tell what somebody put there (the client gets "not found") from what the machine cannot do now."""
    finding = _NOT_AS_LEFT.get(error.errno or 0)
    if finding is not None:
        raise unservable(f"{printable(name)}: {finding}") from error
    raise_unavailable(error, name)


def _raise_no_cache(error: OSError, what: str) -> NoReturn:
    finding = _NO_FOLDER.get(error.errno or 0) or errno.errorcode.get(error.errno or 0, "unknown error")
    raise Unavailable("cache", f"{what} {finding}", Reason.CACHE_UNAVAILABLE) from error


def raise_unavailable(error: OSError, name: str) -> NoReturn:
    """The disk or the machine could not say: too many open files, an I/O error, a stale handle."""
    why = errno.errorcode.get(error.errno or 0, "unknown error")
    raise Unavailable("cache", f"{printable(name)}: {why}", Reason.CACHE_UNAVAILABLE) from error
