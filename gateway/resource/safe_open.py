"""Open files below the cache root without following a link that we did not compute (I9).

Anyone who can write into the cache can put a link, a FIFO or a device in place of a directory or a file, and
can do so between any two of our system calls. Therefore no path below the root is ever given to the kernel:
each component is opened by its own name, relative to the directory opened before, and never through a link.
The checks are made on the open descriptor, so nothing can be swapped after the check. The root itself is
configured by the operator and may be reached through links.

The only link that is read is a package's link to a blob. Its text is compared with the texts that the engine
could have written and not used further: the blob is opened by its digest below our own `shared-blobs`
(`package.py`).

Nothing here decides who may read. Descriptors are closed by the `with` that opened them; `open_regular`
returns one, which its caller must close.
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
# O_NONBLOCK: a FIFO that replaces the file after it was checked must not block the event loop.
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
    """Open the cache root. The only place where links are followed.

    Raises `Unavailable` when it does not exist or is no directory that we may enter: then the content of the
    cache is unknown, which says nothing about any single file.
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
    """Open one of the engine's own folders in the root; None when it does not exist.

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
    """Open a directory by its own name; None when it, or its parent, does not exist."""
    flags = _LISTABLE if is_listable else _PASS_THROUGH
    descriptor = None if below is None else _find_directory(name, flags, below=below)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def opened_folder(folders: Sequence[str], *, below: int) -> Iterator[int | None]:
    """Open the innermost of nested directories; `below` itself if none are given, None when one is missing.

    At most one of them is open besides `below`: how deep a manifest nests its files must not decide how many
    descriptors are used.
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
    """Like `names_in`, one by one, for a directory that may hold more names than fit in memory."""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.name
    except FileNotFoundError:
        return
    except OSError as error:
        _raise_for(error, "a directory's list of names")


def find_link_text(name: str, *, below: int) -> str | None:
    """The text of a link, which is not followed; None when the name does not exist."""
    try:
        return os.readlink(name, dir_fd=below)
    except FileNotFoundError:
        return None
    except OSError as error:
        _raise_for(error, name)


def inspect_regular(name: str, *, below: int, may_have_other_names: bool) -> os.stat_result | None:
    """The stat of a regular file, without opening it; None when the name does not exist."""
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
    """Open a regular file and return it with its stat after opening; None when the name does not exist.

    It is checked before it is opened, because opening a device or a FIFO can have effects, and again once it
    is open, because only that check cannot be raced.
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
    """The whole content of a document that is never served; None when it does not exist.

    The engine publishes files by renaming, so an open one never changes. One that does change gives half a
    document, which does not parse. Raises `Refusal(UNSERVABLE)` for one that is too large.
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
        # A file mounted over the engine's own: the engine did not make that mount.
        raise unservable(f"{printable(name)}: on another device than its directory")
    if found.st_nlink > 1 and not may_have_other_names:
        raise unservable(f"{printable(name)}: a hard link")


def _raise_for(error: OSError, name: str) -> NoReturn:
    """Distinguish a file of the wrong kind (the client gets "not found") from a failure of the machine."""
    finding = _NOT_AS_LEFT.get(error.errno or 0)
    if finding is not None:
        raise unservable(f"{printable(name)}: {finding}") from error
    raise_unavailable(error, name)


def _raise_no_cache(error: OSError, what: str) -> NoReturn:
    finding = _NO_FOLDER.get(error.errno or 0) or errno.errorcode.get(error.errno or 0, "unknown error")
    raise Unavailable("cache", f"{what} {finding}", Reason.CACHE_UNAVAILABLE) from error


def raise_unavailable(error: OSError, name: str) -> NoReturn:
    """Raise `Unavailable` for a failure of the disk or the machine.

    Too many open files, an I/O error or a stale handle.
    """
    why = errno.errorcode.get(error.errno or 0, "unknown error")
    raise Unavailable("cache", f"{printable(name)}: {why}", Reason.CACHE_UNAVAILABLE) from error
