"""Keep the audit folder within bounds: one round, for the command and for the process that a worker starts.

A worker has `main` run in a process of its own (`assembly/audit_keeping.py`): packing and verifying take a
core for seconds. One process at a time does it, by a lock.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.adapters.clock import SystemClock
from gateway.assembly.audit_keeping import KeepingOrder
from gateway.assembly.signing import load_earlier_keys, load_signing_key
from gateway.audit.folder import prepare_folder
from gateway.audit.head import Signer
from gateway.audit.keeping.keeper import Keeper, Kept
from gateway.audit.limits import Durability
from gateway.audit.log import AuditLog
from gateway.model.errors import CachegateError, Reason, Unavailable
from gateway.model.file_lock import FileLock

if TYPE_CHECKING:
    from gateway.model.clocks import Clock

LOCK_NAME = "keeping.lock"
NICE = 10  # requests come first


def keep(order: KeepingOrder, clock: Clock) -> Kept | None:
    """One round; None when another process is at it. Raises `Unavailable` and `Misconfigured`."""
    folder = Path(order.folder)
    key_file = Path(order.signing_key_file)
    key, earlier = load_signing_key(key_file), load_earlier_keys(key_file)

    def open_log() -> AuditLog:
        # Synced: what it records stands before files are removed.
        return AuditLog(
            folder=folder,
            node=order.node,
            signing_key=key,
            earlier_keys=earlier,
            clock=clock,
            durability=Durability.POWER,
        )

    keeper = Keeper(folder, order.node, Signer(key, earlier), order.bounds, open_log)
    try:
        prepare_folder(folder)
        with FileLock(folder / LOCK_NAME) as lock:
            return keeper.run(clock.now()) if lock.is_taken_alone() else None
    except OSError as error:
        why = f"{folder} cannot be kept within bounds ({error.strerror}); check the disk"
        raise Unavailable("audit", why, Reason.NO_AUDIT) from error


def main() -> None:
    """Read an order from standard input, make the round, and write the result to standard output."""
    os.nice(NICE)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=KeepingOrder)
    said: dict[str, Any]
    try:
        kept = keep(order, SystemClock())
        said = {"kept": kept}
    except CachegateError as failure:
        said = {"failed": str(failure)}
    sys.stdout.buffer.write(msgspec.json.encode(said))
