"""The state folder: it holds the pepper and the signing key, so it is for the gateway's user alone.

Looked at before anything in it is trusted: whoever can write to the folder can exchange a pepper or
the audit log's key whatever the files' own modes are, and whoever can read it can copy what will be
put there. Doctor looks at the same and goes on; everything else stops.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from pathlib import Path


def make_private(folder: Path) -> None:
    """Make the folder if it is missing. Raises `Misconfigured`, also for one that is open to others."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(str(folder), f"cannot be made: {error.strerror}") from error
    verify_private(folder)


def verify_private(folder: Path) -> None:
    """Raises `Misconfigured` when others may do anything in the folder. A missing one is nobody's yet."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise Misconfigured(str(folder), f"cannot be looked at ({error.strerror})") from error
    if not stat.S_ISDIR(found.st_mode):
        raise Misconfigured(str(folder), "is not a folder; set CACHEGATE_STATE to one")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise Misconfigured(
            str(folder),
            f"is open to others (mode {mode:04o}) and holds secrets: run `chmod 700 {folder}`, "
            "or set CACHEGATE_STATE to a folder that is private",
        )
