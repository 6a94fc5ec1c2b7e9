"""The layout of the audit folder: file names, chain ids, permissions and locked file creation.

    <chain>-000001.jsonl   segments: one process writes one chain, no other process touches the one it writes
    <chain>-000001.jsonl.zst  a closed segment, packed (`packed.py`)
    heads.jsonl            the signed heads of all chains, linked line to line; they are the evidence
                           when a segment is cut or a chain is removed
    signing.pub            the public keys that signed here, so that a copy can be verified anywhere
    live/<chain>           locked while the chain's process lives
    live/.<name>           under construction: a segment before its first head, a chain before its first

A chain's id is the node, the millisecond of its start and eight random hex digits. Files are created
exclusively, so two processes never share one. The folder is for the gateway's user alone: no other user may
write to it or to a directory on its path (`model/trusted_files.py`).
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured, Reason, Unavailable
from gateway.model.file_lock import is_at, try_lock
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
_SEGMENT = re.compile(rf"(?P<chain>{_CHAIN.pattern})-(?P<number>[0-9]{{6,9}})\.jsonl(?:\.zst)?")


def parse_node(text: str) -> str:
    """Check a node's name, which becomes part of file names. Raises `Misconfigured`."""
    if not _NODE.fullmatch(text):
        raise Misconfigured(
            "the node's name", f"{text!r} is not [A-Za-z0-9][A-Za-z0-9._-]{{0,62}}; set one that is"
        )
    return text


def new_chain_id(node: str, now: float) -> str:
    """The id of a chain that starts now."""
    return f"{node}.{int(now * 1000):012x}-{secrets.token_hex(4)}"


def chain_started(chain: str) -> float | None:
    """The start time of a chain, from its id; None for text that is not a chain id.

    Anyone who can write to the folder can choose file names: a time too late to format counts as the last
    one that can be formatted.
    """
    match = _CHAIN.fullmatch(chain)
    return min(int(match["started"], 16) / 1000, _LAST_TIME) if match else None


def node_of(chain: str) -> str:
    """The node that a chain's id names."""
    return chain.rpartition(".")[0]


def segment_name(chain: str, number: int) -> str:
    """The file name of a chain's segment; the first is number 1."""
    return f"{chain}-{number:06d}.jsonl"


def parse_segment_name(name: str) -> tuple[str, int] | None:
    """The chain and number of a segment's file name; None for any other file."""
    match = _SEGMENT.fullmatch(name)
    return (match["chain"], int(match["number"])) if match else None


def group_segments(paths: Iterable[Path]) -> dict[str, list[tuple[int, Path]]]:
    """The segments among these files: each chain's numbered files in order; chains in order of their ids.

    A segment that is there both plain and packed, as when packing it was interrupted, is the plain one.
    """
    chains: dict[str, dict[int, Path]] = {}
    for path in paths:
        parsed = parse_segment_name(path.name)
        if parsed is not None:
            chain, number = parsed
            known = chains.setdefault(chain, {}).setdefault(number, path)
            if len(path.name) < len(known.name):
                chains[chain][number] = path
    return {chain: sorted(chains[chain].items()) for chain in sorted(chains)}


def verify_is_folder(folder: Path) -> None:
    """Raises `Misconfigured` when the path exists and is not a folder. A missing folder is accepted."""
    if folder.exists() and not folder.is_dir():
        raise Misconfigured(str(folder), "is not a folder; set CACHEGATE_AUDIT_DIR to one")


def verify_own(folder: Path) -> None:
    """Raises `Misconfigured` unless we, and nobody else, can write there. A missing folder is accepted."""
    try:
        verify_own_folder(folder, is_private=False)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Misconfigured(str(folder), f"cannot be accessed ({refusal_of(folder, error)})") from error


def prepare_folder(folder: Path) -> None:
    """Create the folder and its `live` folder, owner only. Raises `OSError` and `Misconfigured`."""
    make_own_folder(folder, is_private=False)
    folder.chmod(FOLDER_MODE)
    (folder / LIVE_NAME).mkdir(mode=FOLDER_MODE, exist_ok=True)


def create_locked(path: Path, flags: int = 0) -> int:
    """A descriptor of a new file, which is locked before another process acts on it. Raises `OSError`.

    A process that cleans up may lock or unlink the file between its creation and our lock. Then the file is
    created again.
    """
    flags |= os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(_CREATE_ATTEMPTS):
        descriptor = os.open(path, flags, FILE_MODE)
        try:
            if try_lock(descriptor) and is_at(path, descriptor):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
    raise OSError(errno.EBUSY, f"{path} is taken away again and again")


def verify_writable(folder: Path) -> None:
    """Raises `Unavailable` when the next segment could not be created; the open one may still be writable."""
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise Unavailable(
            "audit", f"no file can be made in {folder}; make it writable for this user", Reason.NO_AUDIT
        )
