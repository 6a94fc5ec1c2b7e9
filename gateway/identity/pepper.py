"""Peppers: the secrets under which keys are hashed at rest, kept outside of Redis.

A key is stored as HMAC-SHA-256(pepper, SHA-256(key)). Whoever reads Redis alone can neither use a
digest nor test guesses against it. The inner hash is there so that a key of another system can be
imported by its SHA-256, without anybody seeing the key.

Peppers have ids, `p1`, `p2` and so on; the highest is current, the others go on verifying the keys
that were hashed under them. All nodes share them: the files `<id>.pepper` in one folder. Redis holds
ids and fingerprints only, by which a node with other peppers notices before it serves.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.model.errors import Conflict, Misconfigured

if TYPE_CHECKING:
    from pathlib import Path

PEPPER_BYTES = 32  # the output size of the hash: more adds nothing, less would be the weakest part
_FILE = re.compile(r"p([1-9][0-9]{0,5})\.pepper")
_TEXT = re.compile(rb"([0-9a-f]{64})\n?")
_FINGERPRINT_LABEL = b"cachegate: fingerprint of a pepper, version 1"  # never 32 bytes, as digests' input is


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pepper:
    """One pepper. It is neither printed nor compared (I8)."""

    id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """A short pepper would make the keyed hash the weakest part."""
        if len(self.secret) != PEPPER_BYTES:
            raise Misconfigured(
                f"pepper {self.id}", f"holds {len(self.secret)} bytes, expected {PEPPER_BYTES}"
            )

    @property
    def fingerprint(self) -> str:
        """Names the secret and tells nothing of it: a hash of a keyed hash of a fixed label."""
        return hashlib.sha256(hmac.digest(self.secret, _FINGERPRINT_LABEL, "sha256")).hexdigest()

    def digest(self, sha256_of_key: bytes) -> bytes:
        """What a key is stored under."""
        return hmac.digest(self.secret, sha256_of_key, "sha256")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Peppers:
    """The current pepper, under which new keys are hashed, and older ones, newest first."""

    current: Pepper
    previous: tuple[Pepper, ...] = ()

    def digest(self, sha256_of_key: bytes) -> bytes:
        """What a new key is stored under."""
        return self.current.digest(sha256_of_key)

    def digests(self, sha256_of_key: bytes) -> tuple[bytes, ...]:
        """Everything that a key may be stored under, the current pepper's digest first."""
        if not self.previous:
            return (self.current.digest(sha256_of_key),)
        return tuple(pepper.digest(sha256_of_key) for pepper in (self.current, *self.previous))

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints by pepper id, for the directory to compare with its own."""
        return {pepper.id: pepper.fingerprint for pepper in (self.current, *self.previous)}


def load_peppers(folder: Path) -> Peppers:
    """The peppers of a folder. Raises `Misconfigured` when there is none or one is not as it must be."""
    numbers = sorted(_pepper_numbers(folder), reverse=True)
    if not numbers:
        raise Misconfigured(
            str(folder), "holds no pepper (p1.pepper): run `cachegate init`, or copy it from another node"
        )
    current, *previous = (_load_pepper(folder / f"p{number}.pepper") for number in numbers)
    return Peppers(current=current, previous=tuple(previous))


def create_pepper(folder: Path) -> Pepper:
    """Write a new current pepper, 0600, beside the older ones; makes the folder, 0700, if it is missing.

    The file gets its name only once it is whole and on disk, and never replaces another: when two
    commands race for one id, the second gets `Conflict`.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Misconfigured(str(folder), f"cannot be made: {error.strerror}") from error
    identifier = f"p{max(_pepper_numbers(folder), default=0) + 1}"
    pepper = Pepper(id=identifier, secret=secrets.token_bytes(PEPPER_BYTES))
    final = folder / f"{identifier}.pepper"
    unfinished = folder / f".{identifier}.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(pepper.secret.hex().encode("ascii") + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, final)
        finally:
            unfinished.unlink()
        _sync_folder(folder)
    except FileExistsError as error:
        raise Conflict(f"{final} was made by somebody else just now") from error
    except OSError as error:
        raise Misconfigured(str(final), f"cannot be written: {error.strerror}") from error
    return pepper


def _pepper_numbers(folder: Path) -> list[int]:
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Misconfigured(str(folder), f"cannot be listed: {error.strerror}") from error
    return [int(match[1]) for name in names if (match := _FILE.fullmatch(name))]


def _load_pepper(path: Path) -> Pepper:
    try:
        # O_NONBLOCK: a FIFO in the file's place must not hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise Misconfigured(str(path), "is not a regular file")
            if mode & 0o077:
                raise Misconfigured(
                    str(path), f"is open to others (mode {stat.S_IMODE(mode):04o}): run `chmod 600 {path}`"
                )
            raw_text = file.read(1024)
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read: {error.strerror}") from error
    match = _TEXT.fullmatch(raw_text)
    if match is None:
        raise Misconfigured(str(path), "expected 64 lower-case hex digits and nothing else")
    return Pepper(id=path.stem, secret=bytes.fromhex(match[1].decode("ascii")))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
