"""Who consumes the log of a node, how far each is, and what retention has to keep for it.

    consumers/<name>.json           the registration: kind and options; written once, by `add`
    consumers/<name>.progress.json  how far it is: cursor, lag, state; replaced as it goes on
    needs/<name>.json               what it has, for retention (`keeping/needs.py`)

A registration has a random id, and progress is saved for that id alone: a process that has not heard of a
removal yet cannot bring back what was removed. Writers take the lock of the folder; readers take none, since
files are replaced by renaming. No file holds a secret: options name files that do.

Progress that is lost or damaged means that the consumer starts again where it was added: records come twice,
and none is missed. The number of consumers is bounded, since retention waits for each.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from gateway.audit.folder import FILE_MODE, FOLDER_MODE
from gateway.audit.keeping.needs import MOST_BYTES as MOST_NEEDS_BYTES
from gateway.audit.keeping.needs import NEEDS_NAME, Needs
from gateway.model.errors import BadNameError, Conflict, Reason, Unavailable, UnknownName
from gateway.model.file_lock import FileLock
from gateway.model.trusted_files import make_own_folder, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONSUMERS_NAME = "consumers"
LOCK_NAME = ".lock"
MOST_CONSUMERS = 32
MOST_FILE_BYTES = 64 << 10
MOST_TEXT_CHARACTERS = 500  # of an error that is stored
LOCK_SECONDS = 5.0

Kind = Literal["feed", "stream", "push", "syslog"]
RUN_HERE: frozenset[Kind] = frozenset({"stream", "push", "syslog"})
"""The kinds that the runner delivers to. A feed's reader comes and takes."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,61}")
_PROGRESS = ".progress.json"
_Stored = TypeVar("_Stored", bound=msgspec.Struct)


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer, as it was added. `cursor` is where it starts; None is the start of the log."""

    schema: int = 1
    id: str
    name: str
    kind: Kind
    options: dict[str, str] = {}
    added_at: str
    cursor: str | None = None
    has_before: str = ""  # records before this time are none of its business: retention need not keep them


class ConsumerProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a consumer is. `state` is `new`, `running`, `failing`, `paused` or `stopped`."""

    registration: str = ""
    cursor: str | None = None
    state: str = "new"
    error: str | None = None
    delivered: int = 0  # records, since it was added; those that came twice count twice
    refused: int = 0  # records that the target refused for good
    missed: int = 0  # records that retention removed before they could be delivered
    failures: int = 0  # deliveries that failed, and were or will be tried again
    lag_records: int = 0  # at least so many records are waiting
    lag_seconds: float = 0.0  # the age of the oldest record that is waiting
    last_time: str | None = None  # of the last record that was delivered
    updated_at: str | None = None


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer and how far it is."""

    registration: Registration
    progress: ConsumerProgress

    @property
    def cursor(self) -> str | None:
        """Where it goes on; None is the start of the log."""
        return self.progress.cursor or self.registration.cursor


class ConsumerRegistry:
    """The consumers of one audit folder. All calls block; the folder is made by the first that writes."""

    def __init__(self, folder: Path) -> None:
        self._audit = folder
        self._folder = folder / CONSUMERS_NAME
        self._needs = folder / NEEDS_NAME

    def add(
        self,
        name: str,
        kind: Kind,
        options: dict[str, str] | None = None,
        *,
        now: str,
        cursor: str | None = None,
        has_before: str = "",
    ) -> Registration:
        """Register a consumer. Raises `BadNameError`, `Conflict` and `Unavailable`.

        `cursor` is where it starts. With `has_before`, retention keeps nothing of before that time for it.
        """
        verify_consumer_name(name)
        registration = Registration(
            id=secrets.token_hex(8),
            name=name,
            kind=kind,
            options=options or {},
            added_at=now,
            cursor=cursor,
            has_before=has_before,
        )
        encoded = msgspec.json.encode(registration)
        if len(encoded) > MOST_FILE_BYTES:
            raise BadNameError(f"the options of consumer {name} are too large")
        with self._writing():
            names = self._names()
            if name in names:
                raise Conflict(f"there is a consumer {name} already; remove it first, or take another name")
            if len(names) >= MOST_CONSUMERS:
                raise Conflict(f"there are {MOST_CONSUMERS} consumers already; remove one that is not used")
            self._progress_path(name).unlink(missing_ok=True)  # of one that was removed
            self._write_needs(name, Needs(has_before=has_before))
            _replace(self._path(name), encoded, is_synced=True)
            sync_folder(self._folder)
        return registration

    def remove(self, name: str) -> Registration | None:
        """Remove a consumer: nothing is delivered to it any more, and retention stops waiting for it.

        Returns what it was, or None where its file does not parse. Raises `UnknownName` and `Unavailable`.
        """
        verify_consumer_name(name)
        with self._writing():
            if name not in self._names():
                raise UnknownName("consumer", name, "`cachegate audit consumers list` has all")
            found = _load(self._path(name), Registration)
            # First what retention waits for: a kill in between leaves nobody who is waited for and not there.
            (self._needs / f"{name}.json").unlink(missing_ok=True)
            self._path(name).unlink(missing_ok=True)
            self._progress_path(name).unlink(missing_ok=True)
            sync_folder(self._folder)
        return found

    def find(self, name: str) -> Consumer | None:
        """One consumer; None when there is none of this name, or its file does not parse."""
        if not _NAME.fullmatch(name):
            return None
        registration = _load(self._path(name), Registration)
        if registration is None or registration.name != name or registration.schema != 1:
            return None
        return Consumer(registration=registration, progress=self._progress(registration))

    def load_all(self) -> list[Consumer]:
        """All consumers whose files parse, by name. Raises `Unavailable`."""
        found = [self.find(name) for name in self._names()]
        return [one for one in found if one is not None]

    def has_any(self) -> bool:
        """Whether there is a consumer, whole or damaged. Raises `Unavailable`."""
        return bool(self._names())

    def damaged(self) -> list[str]:
        """The names of the files that do not parse: nothing is delivered, and retention waits for them."""
        return [name for name in self._names() if self.find(name) is None]

    def save(
        self,
        registration: Registration,
        progress: ConsumerProgress,
        needs: Needs | None = None,
        *,
        instead_of: ConsumerProgress | None = None,
    ) -> bool:
        """Note how far a consumer is; False when it was removed meanwhile. Raises `Unavailable`.

        `needs` has to cover no more than what was delivered. With `instead_of`, nothing is noted where
        another process has noted something else meanwhile.
        """
        name = registration.name
        error = progress.error
        progress = msgspec.structs.replace(
            progress,
            registration=registration.id,
            error=None if error is None else error[:MOST_TEXT_CHARACTERS],
        )
        with self._writing():
            current = _load(self._path(name), Registration)
            if current is None or current.id != registration.id:
                return False
            if instead_of is not None and self._progress(current) != instead_of:
                return False
            _replace(self._progress_path(name), msgspec.json.encode(progress))
            if needs is not None:
                self._write_needs(name, needs)
        return True

    def _progress(self, registration: Registration) -> ConsumerProgress:
        found = _load(self._progress_path(registration.name), ConsumerProgress)
        is_its_own = found is not None and found.registration == registration.id
        return found if is_its_own and found is not None else ConsumerProgress(registration=registration.id)

    def _write_needs(self, name: str, needs: Needs) -> None:
        self._needs.mkdir(mode=FOLDER_MODE, exist_ok=True)
        encoded = msgspec.json.encode(needs)
        if len(encoded) > MOST_NEEDS_BYTES:
            raise Unavailable("audit", f"what consumer {name} has is too large to be noted", Reason.NO_AUDIT)
        _replace(self._needs / f"{name}.json", encoded)

    def _names(self) -> list[str]:
        try:
            found = [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unavailable("audit", _why(self._folder, error), Reason.NO_AUDIT) from error
        names = [one.removesuffix(".json") for one in found if one.endswith(".json")]
        return sorted(name for name in names if _NAME.fullmatch(name))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _progress_path(self, name: str) -> Path:
        return self._folder / f"{name}{_PROGRESS}"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            make_own_folder(self._folder, is_private=False)
            with FileLock(self._folder / LOCK_NAME) as lock:
                lock.wait_alone(time.monotonic() + LOCK_SECONDS)
                yield
        except OSError as error:
            raise Unavailable("audit", _why(self._folder, error), Reason.NO_AUDIT) from error


def verify_consumer_name(name: str) -> None:
    """Raises `BadNameError` unless it can be the name of a consumer: it becomes the name of files."""
    if not _NAME.fullmatch(name):
        raise BadNameError(
            f"{name[:80]!r} is not a consumer's name: small letters, digits and `-`, at most 62"
        )


def _why(folder: Path, error: OSError) -> str:
    return f"the consumers in {folder} cannot be read or written ({error.strerror}); check the disk"


def _load(path: Path, kind: type[_Stored]) -> _Stored | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(MOST_FILE_BYTES + 1)
    except OSError:
        return None
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(content, type=kind)
    return None


def _replace(path: Path, content: bytes, *, is_synced: bool = False) -> None:
    partial = path.with_name(f".{path.name}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, FILE_MODE), "wb") as file:
        file.write(content)
        if is_synced:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)
