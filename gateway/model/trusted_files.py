"""Open our own files and folders only where no other user but root could have written them.

Secrets, rules and settings take effect, so a user who can write them controls the gateway. A path is trusted
when each of these holds, for the file or folder itself and for every folder on the path from `/`:

- its owner is the user of this process, or root;
- nobody else may write to it: no write bit for others, and none for its group, unless this user is the only
  member of that group (the private group that many distributions give each user);
- a folder on the path may be world-writable if it has the sticky bit, as `/tmp`: no other user can replace
  our folder there. A file or a link directly in such a folder is not trusted whoever owns it, because
  another user can move or hard-link a file of ours to a name that we would read;
- a link is trusted when the folder that contains it and its target's whole path are.

On a read-only mount only owners are checked: nobody can write through that mount, and Kubernetes mounts
secrets and configuration so, with links in a folder whose mode is 1777 or 0777.

The path is walked from `/` by descriptors, one component after the other, and links are followed here and
not by the kernel. Each step is taken in a folder in which nobody else can rename anything, so what was
checked is what is opened, and a path that was found trusted may be used by its name afterwards. Only
regular files are opened for reading: a FIFO cannot block us and no device is opened.

Access lists: the group's bits in a mode are the list's mask, so a user whom a POSIX list lets write shows as
a write bit of the group. Lists of other kinds (NFSv4) are not seen. Where a file system has no owners or
modes (FAT, some network mounts), those of its mount options count. A user who is not mapped into a
container shows as the overflow user (usually 65534), which is not trusted.

Non-goals: what the files mean, and the cache, which others write to (`resource/safe_open.py`).
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

MAX_LINKS = 40  # the kernel's limit
OPENINGS = 10  # attempts at a file that is replaced each time while it is opened
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ACCESS_LIST = "system.posix_acl_access"


class Distrusted(Misconfigured):
    """A path that another user could have written. `culprit` is the file or folder that permits it.

    Each walk reports the first one found, so all paths below one bad folder have the same culprit.
    """

    def __init__(self, path: str, culprit: str, finding: str, remedy: str) -> None:
        it = "it" if culprit == path else f"{culprit}, on the way to it,"
        super().__init__(path, f"cannot be trusted: {it} {finding}. {remedy}")
        self.culprit = culprit
        self._parts = culprit, finding, remedy

    def with_hint(self, hint: str) -> Distrusted:
        """The same, with one more sentence on what to do."""
        culprit, finding, remedy = self._parts
        return Distrusted(self.where, culprit, finding, f"{remedy} {hint}")


def refuse(found: Distrusted) -> None:
    """The default `on_distrust`, for everything that takes effect or writes: raise."""
    raise found


def verify_trusted(
    path: Path, *, also: int | None = None, on_distrust: Callable[[Distrusted], None] = refuse
) -> None:
    """Call `on_distrust` for the first thing that lets another user write this. Raises `OSError` too.

    `also` is another user who is trusted here, for paths that are not ours alone.
    """
    with _walk(path, on_distrust, also=also):
        pass


def verify_trusted_folder(
    folder: Path, *, expected: str, on_distrust: Callable[[Distrusted], None] = refuse
) -> None:
    """The same for a folder. Raises `Misconfigured`, also when it is no folder or cannot be read."""
    try:
        with _walk(folder, on_distrust) as place:
            is_folder = stat.S_ISDIR(place.status.st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_folder = False
    except OSError as error:
        raise Misconfigured(str(folder), f"cannot be accessed ({error.strerror})") from error
    if not is_folder:
        raise Misconfigured(str(folder), f"is not a folder; expected {expected}")


@contextmanager
def open_trusted(
    path: Path, *, is_secret: bool = False, on_distrust: Callable[[Distrusted], None] = refuse
) -> Iterator[BinaryIO]:
    """Open a regular file for reading. A secret must not be readable by others either.

    Raises `OSError` where it cannot be opened, `Misconfigured` when it is not a regular file.
    """
    with _walk(path, on_distrust, is_secret=is_secret) as place:
        if not stat.S_ISREG(place.status.st_mode):
            raise Misconfigured(str(path), "is not a regular file; name one")
        descriptor = os.open(place.name, _READ, dir_fd=place.folder)
        with os.fdopen(descriptor, "rb") as file:
            if not os.path.samestat(os.fstat(descriptor), place.status):
                raise OSError(errno.ESTALE, "it was replaced while it was opened")
            yield file


def read_trusted(
    path: Path,
    *,
    max_bytes: int,
    is_secret: bool = False,
    on_distrust: Callable[[Distrusted], None] = refuse,
) -> bytes:
    """The contents of a trusted file. Raises as `open_trusted`, and `Misconfigured` if it is too large.

    A file that is replaced at that moment, as processes of ours replace theirs, is opened again.
    """
    attempt, content = 1, None
    while content is None:
        try:
            with open_trusted(path, is_secret=is_secret, on_distrust=on_distrust) as file:
                content = file.read(max_bytes + 1)
        except OSError as error:
            if error.errno != errno.ESTALE or attempt == OPENINGS:
                raise
            attempt += 1
    if len(content) > max_bytes:
        raise Misconfigured(str(path), f"is too large; expected at most {max_bytes} bytes")
    return content


def verify_own_folder(folder: Path, *, is_private: bool = True) -> None:
    """Raises `Misconfigured` unless this is a trusted folder of the very user that we run as.

    We write there, and the owner has to be able to read that. With `is_private`, other users must have no
    permission on it. Raises `OSError` where it does not exist or cannot be checked.
    """
    with _walk(folder, refuse) as place:
        status, where = place.status, str(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise Misconfigured(where, "is not a folder; name one, or remove it")
    if status.st_uid != os.geteuid():
        finding = f"belongs to {user_name(status.st_uid)}, and this runs as {user_name(os.geteuid())}"
        raise Distrusted(where, where, finding, f"Run this as {user_name(status.st_uid)}.")
    if is_private and status.st_mode & 0o077:
        finding = f"is open to others (mode {stat.S_IMODE(status.st_mode):04o})"
        raise Distrusted(where, where, finding, f"Run `chmod 700 {folder}`.")


def make_own_folder(folder: Path, *, is_private: bool = True, with_parents: bool = True) -> None:
    """Create the folder, and missing ones above it, and check that it is ours. Raises as the function above.

    Nothing is created in a folder that is not trusted. In a world-writable folder, another user may have
    been faster: so the folder is checked again after it was created.
    """
    folder = folder.absolute()
    try:
        verify_own_folder(folder, is_private=is_private)
    except FileNotFoundError:
        missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
        for one in reversed(missing if with_parents else missing[:1]):
            # Whatever the umask is, none of them lets others write.
            one.mkdir(mode=0o700 if one == folder else 0o755, exist_ok=True)
        verify_own_folder(folder, is_private=is_private)


def refusal_of(path: Path, error: OSError) -> str:
    """Why the system refused access, for a message: with the owner where that is another user."""
    if isinstance(error, PermissionError):
        with suppress(OSError):
            owner = path.stat().st_uid
            if owner != os.geteuid():
                return (
                    f"{error.strerror}: it belongs to {user_name(owner)}, and this runs as "
                    f"{user_name(os.geteuid())}"
                )
    return error.strerror or type(error).__name__


def user_name(uid: int) -> str:
    """The name of a user, for a message."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a walk: a name, the descriptor of the folder that contains it, and its status."""

    folder: int
    name: str
    status: os.stat_result


@contextmanager
def _walk(
    path: Path,
    on_distrust: Callable[[Distrusted], None],
    *,
    is_secret: bool = False,
    also: int | None = None,
) -> Iterator[_Place]:
    """Walk to a path from `/`, one component after the other, and check each."""
    absolute = os.fspath(path.absolute())
    way = _Way(absolute, on_distrust, {0, os.geteuid(), *([] if also is None else [also])})
    try:
        yield way.go(is_secret=is_secret)
    finally:
        way.close()


class _Way:
    """One walk. It holds a descriptor of the folder that it has reached."""

    def __init__(self, path: str, on_distrust: Callable[[Distrusted], None], trusted: set[int]) -> None:
        self._path = path
        self._on_distrust = on_distrust
        self._trusted = trusted
        self._has_distrusted = False
        self._names = deque(_components(path))
        self._folder = -1
        self._where = "/"  # the folder's path, without links
        self._is_open = False  # whether others may create entries in the folder

    def close(self) -> None:
        if self._folder >= 0:
            os.close(self._folder)

    def go(self, *, is_secret: bool) -> _Place:
        status = self._start()
        self._judge("/", status, self._folder, is_last=not self._names)
        links = 0
        name = "."
        while self._names:
            name = self._names.popleft()
            found = os.open(name, _LOOK, dir_fd=self._folder)
            try:
                status = os.fstat(found)
                where = os.path.normpath(os.path.join(self._where, name))  # noqa: PTH118
                is_last = not self._names
                self._judge(where, status, found, is_last=is_last, is_secret=is_secret and is_last)
                if stat.S_ISLNK(status.st_mode):
                    links += 1
                    if links > MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    self._follow(os.readlink("", dir_fd=found))
                elif not is_last:
                    self._enter(found, where, status)
                    found = -1
            finally:
                if found >= 0:
                    os.close(found)
        return _Place(folder=self._folder, name=name, status=status)

    def _follow(self, target: str) -> None:
        self._names.extendleft(reversed(_components(target)))
        if target.startswith("/"):
            self._start()

    def _start(self) -> os.stat_result:
        root = os.open("/", _LOOK | os.O_DIRECTORY)
        status = os.fstat(root)
        self._enter(root, "/", status)
        return status

    def _enter(self, descriptor: int, where: str, status: os.stat_result) -> None:
        self.close()
        self._folder, self._where = descriptor, where
        self._is_open = stat.S_ISDIR(status.st_mode) and _may_others_write(status, descriptor)

    def _judge(
        self, where: str, status: os.stat_result, descriptor: int, *, is_last: bool, is_secret: bool = False
    ) -> None:
        if self._has_distrusted:
            return
        found = self._finding(where, status, descriptor, is_last=is_last, is_secret=is_secret)
        if found is not None:
            self._has_distrusted = True
            self._on_distrust(Distrusted(self._path, where, *found))

    def _finding(
        self, where: str, status: os.stat_result, descriptor: int, *, is_last: bool, is_secret: bool
    ) -> tuple[str, str] | None:
        """What lets another user write (or read) here, and what to do about it; None where nothing does."""
        me, mode = os.geteuid(), status.st_mode
        # In a world-writable folder, an entry owned by `also` may have been put there by anyone.
        if status.st_uid not in ({0, me} if self._is_open else self._trusted):
            owner = user_name(status.st_uid)
            return (
                f"belongs to {owner}, and this runs as {user_name(me)}",
                f"Use one of your own or of root's, or run this as {owner}.",
            )
        if self._is_open and not stat.S_ISDIR(mode):
            return (
                f"lies in {self._where}, where other users may give any file of yours this name",
                "Move it into a folder of your own.",
            )
        if is_secret and stat.S_ISREG(mode) and _may_others_use(status):
            finding = f"is a secret and open to others (mode {stat.S_IMODE(mode):04o})"
            return finding, f"Run `chmod 600 {where}`."
        if stat.S_ISLNK(mode) or not _may_others_write(status, descriptor):
            return None
        if stat.S_ISDIR(mode) and mode & stat.S_ISVTX and not is_last:
            return None  # only its owner can rename or remove its entries
        who = "everybody" if mode & stat.S_IWOTH else f"its group {_group_name(status.st_gid)}"
        is_shared = stat.S_ISDIR(mode) and mode & stat.S_ISVTX  # like /tmp: shared on purpose
        remedy = "Use a folder of your own." if is_shared else f"Run `chmod go-w {where}`."
        return f"may be written by {who} (mode {stat.S_IMODE(mode):04o})", remedy


def _components(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]


def _may_others_write(status: os.stat_result, descriptor: int) -> bool:
    """Whether a user other than the owner and root can write, through this mount."""
    if not status.st_mode & _OTHERS_WRITE or os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        return False
    return bool(status.st_mode & stat.S_IWOTH) or not _is_group_of_one(status, descriptor)


def _may_others_use(status: os.stat_result) -> bool:
    """Whether it is open to users other than the owner, root, and a group that root lets read it."""
    is_lent = status.st_uid == 0 and os.geteuid() != 0  # a mounted secret, or root:service 0640
    return bool(status.st_mode & (0o037 if is_lent else 0o077))


def _is_group_of_one(status: os.stat_result, descriptor: int) -> bool:
    """Whether the group that may write is the private group of this user, with no other member.

    Many distributions give each user such a group and a umask of 002. It has the user's name and is
    the user's primary group. Root's own group never counts as private: containers run other users in it.
    """
    me = os.geteuid()
    if _has_access_list(descriptor):
        return False
    try:
        user, group = pwd.getpwuid(me), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    is_private = group.gr_name == user.pw_name and group.gr_gid == user.pw_gid != 0
    others = {*group.gr_mem} - {user.pw_name}
    others |= {one.pw_name for one in pwd.getpwall() if one.pw_gid == group.gr_gid and one.pw_uid != me}
    return is_private and not others


def _has_access_list(descriptor: int) -> bool:
    """Whether the group's bits are the mask of a list that names others. True where that is unknown."""
    try:
        os.getxattr(f"/proc/self/fd/{descriptor}", _ACCESS_LIST)
    except OSError as error:
        return error.errno not in {errno.ENODATA, errno.EOPNOTSUPP}
    return True


def _group_name(gid: int) -> str:
    try:
        return f"{grp.getgrgid(gid).gr_name} (gid {gid})"
    except KeyError:
        return f"gid {gid}"


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that its file names survive a power failure. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
