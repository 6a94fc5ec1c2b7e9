"""Write and read private files: readable by the gateway's user only, written once, never overwritten.

A file gets its name only once it is complete and on disk: an incomplete key would stop every start, and
a replaced one would invalidate whatever was signed or hashed with the old one. A file that others may read or
could have written (`model/trusted_files.py`), or that is not a regular file, stops the start. No message
quotes the contents (I8).

The meaning of the bytes is the caller's: secrets (`secret_file.py`), the audit log's signing key.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from gateway.model.errors import Conflict, Misconfigured
from gateway.model.trusted_files import make_own_folder, read_trusted, refusal_of, refuse, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.model.trusted_files import Distrusted

_MAX_FILE_BYTES = 4096  # a key in PEM takes a few hundred; a larger file is something else


def write_once(path: Path, content: bytes) -> None:
    """Write a new file, 0600; create the folder, 0700, if it is missing.

    Raises `Conflict` when the file exists, also for the second of two commands that race for it.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        make_own_folder(path.parent, is_private=False, with_parents=False)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, path)  # never replaces a file, unlike a rename
        finally:
            unfinished.unlink()
        sync_folder(path.parent)
    except FileExistsError as error:
        raise Conflict(f"{path} is there already") from error
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be made: {error.strerror}") from error


def load_private(path: Path, *, on_distrust: Callable[[Distrusted], None] = refuse) -> bytes:
    """The contents of a file. Raises `Misconfigured`."""
    try:
        return read_trusted(path, max_bytes=_MAX_FILE_BYTES, is_secret=True, on_distrust=on_distrust)
    except FileNotFoundError as error:
        raise Misconfigured(
            str(path),
            "is missing: is CACHEGATE_STATE right? If it is, run `cachegate init`, or copy the file from "
            "another node",
        ) from error
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({refusal_of(path, error)})") from error
