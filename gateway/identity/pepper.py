"""Peppers: the secrets with which API keys are hashed at rest, kept outside Redis.

A key is stored as HMAC-SHA-256(pepper, SHA-256(key)). A reader of Redis alone can neither use a digest nor
test guesses against it. The inner hash allows a key of another system to be imported by its SHA-256, without
anyone seeing the key.

Peppers have ids, `p1`, `p2` and so on. The one with the highest number is current; the others still verify
the keys that were hashed with them. All nodes share them: the files `<id>.pepper` in one folder. Redis holds
only ids and fingerprints, by which a node with other peppers refuses to start.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING

import msgspec

from gateway.identity.secret_file import SECRET_BYTES, create_secret, load_secret
from gateway.model.errors import Misconfigured
from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from pathlib import Path

_FILE = re.compile(r"p([1-9][0-9]{0,5})\.pepper")
_FINGERPRINT_LABEL = b"cachegate: fingerprint of a pepper, version 1"  # not 32 bytes, unlike a SHA-256


class Pepper(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """One pepper. Never printed or compared (I8)."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return shown(self, hidden=("secret",))

    def __post_init__(self) -> None:
        """Refuse a short pepper, which would be the weakest part of the keyed hash."""
        if len(self.secret) != SECRET_BYTES:
            raise Misconfigured(
                f"pepper {self.id}", f"holds {len(self.secret)} bytes, expected {SECRET_BYTES}"
            )

    @property
    def fingerprint(self) -> str:
        """Identifies the secret without revealing it: a hash of a keyed hash of a fixed label."""
        return hashlib.sha256(hmac.digest(self.secret, _FINGERPRINT_LABEL, "sha256")).hexdigest()

    def digest(self, sha256_of_key: bytes) -> bytes:
        """The digest that a key is stored under."""
        return hmac.digest(self.secret, sha256_of_key, "sha256")


class Peppers(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The current pepper, under which new keys are hashed, and older ones, newest first."""

    current: Pepper
    previous: tuple[Pepper, ...] = ()

    def digest(self, sha256_of_key: bytes) -> bytes:
        """The digest that a new key is stored under."""
        return self.current.digest(sha256_of_key)

    def digests(self, sha256_of_key: bytes) -> tuple[bytes, ...]:
        """All digests that a key may be stored under, the current pepper's first."""
        if not self.previous:
            return (self.current.digest(sha256_of_key),)
        return tuple(pepper.digest(sha256_of_key) for pepper in (self.current, *self.previous))

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints by pepper id, for the directory to compare with its own."""
        return {pepper.id: pepper.fingerprint for pepper in (self.current, *self.previous)}


def load_peppers(folder: Path) -> Peppers:
    """The peppers of a folder. Raises `Misconfigured` when there is none, or one is invalid."""
    numbers = sorted(_pepper_numbers(folder), reverse=True)
    if not numbers:
        raise Misconfigured(
            str(folder),
            "holds no pepper (p1.pepper): is CACHEGATE_STATE right? If it is, run `cachegate init`, or copy "
            "the pepper folder from another node",
        )
    current, *previous = (
        Pepper(id=f"p{number}", secret=load_secret(folder / f"p{number}.pepper")) for number in numbers
    )
    return Peppers(current=current, previous=tuple(previous))


def create_pepper(folder: Path) -> Pepper:
    """Write a new current pepper beside the older ones; create the folder if it is missing."""
    identifier = f"p{max(_pepper_numbers(folder), default=0) + 1}"
    return Pepper(id=identifier, secret=create_secret(folder / f"{identifier}.pepper"))


def _pepper_numbers(folder: Path) -> list[int]:
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Misconfigured(str(folder), f"cannot be listed: {error.strerror}") from error
    return [int(match[1]) for name in names if (match := _FILE.fullmatch(name))]
