"""What lies where in the audit folder.

    <chain>-000001.jsonl   segments: one process writes one chain, nobody else touches its files
    heads.jsonl            the signed heads of all chains, linked line to line, which bear witness
                           when a segment is cut or a chain is taken away
    signing.pub            the public keys that signed here, so that a copy can be verified anywhere
    live/<chain>           locked for as long as the chain's process lives
    live/.<name>           what is being made: a segment before its first head, a chain before its first

A chain's id is the node, the millisecond of its start and eight random digits; files are created
exclusively, so two processes never share one. The folder is for the gateway's user alone; nobody else may
write to it or to the way to it (`model/trusted_files.py`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured, Reason, Unavailable
from gateway.model.trusted_files import make_own_folder, refusal_of, verify_own_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HEADS_NAME = "heads.jsonl"
PUBLIC_KEY_NAME = "signing.pub"
LIVE_NAME = "live"
FOLDER_MODE = 0o700
FILE_MODE = 0o600

_CREATE_ATTEMPTS = 100
_LAST_TIME = 253_402_300_799.0  # the last second of the year 9999: no later time has a text

_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_CHAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\.(?P<started>[0-9a-f]{12})-[0-9a-f]{8}")
_SEGMENT = re.compile(rf"(?P<chain>{_CHAIN.pattern})-(?P<number>[0-9]{{6,9}})\.jsonl")


def parse_node(text: str) -> str:
    """A node's name, which becomes part of file names."""
    if not _NODE.fullmatch(text):
        raise Misconfigured(
            "the node's name", f"{text!r} is not [A-Za-z0-9][A-Za-z0-9._-]{{0,62}}; set one that is"
        )
    return text


def new_chain_id(node: str, now: float) -> str:
    """The id of a chain that starts now."""
    return f"{node}.{int(now * 1000):012x}-{secrets.token_hex(4)}"


def chain_started(chain: str) -> float | None:
    """When a chain was started, by its id; None for text that is no chain's id.

    Anybody who writes into the folder names files: a time that cannot be written counts as the last that can.
    """
    match = _CHAIN.fullmatch(chain)
    return min(int(match["started"], 16) / 1000, _LAST_TIME) if match else None


def node_of(chain: str) -> str:
    """The node that a chain's id names."""
    return chain.rpartition(".")[0]


def segment_name(chain: str, number: int) -> str:
    """The name of a chain's segment; the first is number 1."""
    return f"{chain}-{number:06d}.jsonl"


def parse_segment_name(name: str) -> tuple[str, int] | None:
    """The chain and number of a segment's file name; None for any other file."""
    match = _SEGMENT.fullmatch(name)
    return (match["chain"], int(match["number"])) if match else None


def group_segments(paths: Iterable[Path]) -> dict[str, list[tuple[int, Path]]]:
    """The segments among these files: chain to its numbered files in order; chains in order of their ids."""
    chains: dict[str, list[tuple[int, Path]]] = {}
    for path in paths:
        parsed = parse_segment_name(path.name)
        if parsed is not None:
            chains.setdefault(parsed[0], []).append((parsed[1], path))
    return {chain: sorted(chains[chain]) for chain in sorted(chains)}


def verify_is_folder(folder: Path) -> None:
    """Raises `Misconfigured` when something else stands in the folder's place. One to be made is fine."""
    if folder.exists() and not folder.is_dir():
        raise Misconfigured(str(folder), "is not a folder; set CACHEGATE_AUDIT_DIR to one")


def verify_own(folder: Path) -> None:
    """Raises `Misconfigured` when we may not write there, or somebody else may. One to be made is fine."""
    try:
        verify_own_folder(folder, is_private=False)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Misconfigured(str(folder), f"cannot be looked at ({refusal_of(folder, error)})") from error


def prepare_folder(folder: Path) -> None:
    """Make the folder and its `live` folder, for the owner only. Raises `OSError` and `Misconfigured`."""
    make_own_folder(folder, is_private=False)
    folder.chmod(FOLDER_MODE)
    (folder / LIVE_NAME).mkdir(mode=FOLDER_MODE, exist_ok=True)


def create_locked(path: Path, flags: int = 0) -> int:
    """A descriptor of a new file that is locked before anybody acts on it. Raises `OSError`.

    Whoever tidies up may lock or unlink the file in the moment before we have locked it: then another is
    made in its place.
    """
    flags |= os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(_CREATE_ATTEMPTS):
        descriptor = os.open(path, flags, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
    raise OSError(errno.EBUSY, f"{path} is taken away again and again")


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the path names the very file that the descriptor is of."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def verify_writable(folder: Path) -> None:
    """Raises `Unavailable` when the next segment could not be made there; the open one may still be fine."""
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise Unavailable(
            "audit", f"no file can be made in {folder}; make it writable for this user", Reason.NO_AUDIT
        )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
